"""What only a GPU can show. The first thing to run where there is one:

python -m pytest tests/training/test_cuda.py
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_set, picture
from runs import REPOSITORY, RUN, TINY, equal, weights

from ismallnet.checkpoints import read_checkpoint
from ismallnet.inference.predict import predict, prepared
from net import load_weights
from train import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
CUDA = ["--device", "cuda", "--epochs", "2", "--variant", "full"]


@pytest.fixture(autouse=True)
def data(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny", names="abcdefgh", train=6)


def run(*argv, folder="x"):
    return main([*TINY, *CUDA, "--run-name", folder, *map(str, argv)])


@pytest.fixture
def _default_algorithms():
    """`--deterministic` holds for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("amp", ["fp16", "bf16", "off", "auto"])
def test_steps_in_each_precision(amp):
    assert run("--amp", amp) == 0
    checkpoint = read_checkpoint(RUN / "last.pt")
    history = checkpoint["training"]["history"]
    assert checkpoint["info"]["step"] == 6 and np.isfinite(history[-1]["loss"])
    assert all(v.isfinite().all() for v in checkpoint["state_dict"].values())
    if amp == "fp16":
        assert checkpoint["training"]["scaler"]["scale"] > 0


@pytest.mark.parametrize("amp", ["fp16", "off"])
def test_resume_continues_to_the_same_weights(_default_algorithms, amp):
    run("--deterministic", "--amp", amp, folder="whole")
    run("--deterministic", "--amp", amp, "--max-minutes", 0)
    assert read_checkpoint(RUN / "last.pt")["info"]["step"] == 1
    assert main(["--dataset", "tiny", "--resume", str(RUN)]) == 0
    assert equal(weights("runs/tiny/whole"), weights(RUN))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_graphs_take_the_steps_that_are_taken_without_them(_default_algorithms, optimizer):
    given = ["--deterministic", "--amp", "off", "--optimizer", optimizer, "--epochs", 4]
    losses = []
    for folder, *flags in (("graphs",), ("eager", "--no-graphs")):
        run(*given, *flags, folder=folder)
        losses.append(read_checkpoint(f"runs/tiny/{folder}/last.pt")["training"]["recent"])
    assert np.allclose(*losses, rtol=0.02)


def test_a_run_begun_on_the_gpu_resumes_on_the_cpu():
    run("--max-minutes", 0, "--amp", "bf16")
    assert main(["--dataset", "tiny", "--resume", str(RUN), "--device", "cpu"]) == 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs here")
def test_two_processes_with_nccl():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    argv = [REPOSITORY / "train.py", *TINY, *CUDA, "--device", "auto", "--run-name", "x"]
    done = subprocess.run([*command, *map(str, argv)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(RUN / "last.pt")["info"]["step"] == 6


def test_inference_in_fp16_and_bf16_gives_the_masks_of_float32():
    """A trained network; IoU of the masks over all images."""
    run("--epochs", 30, "--lr", 1e-2, "--ema", 0.9, "--amp", "off")
    images = [np.repeat(picture(k, (64, 80))[..., None], 3, 2) for k in range(24)]
    model = prepared(load_weights(RUN / "last.pt"), "cuda")
    masks = {amp: np.stack(predict(model, images, amp)) >= 0.5 for amp in ("off", "fp16", "bf16")}
    assert masks["off"].any()
    for amp in ("fp16", "bf16"):
        both, either = masks[amp] & masks["off"], masks[amp] | masks["off"]
        assert both.sum() / either.sum() >= 0.999, amp
