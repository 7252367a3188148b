"""Small trainings that the tests share: 6 images in batches of 2, 3 steps an epoch, of the smallest of
the networks, unless another --variant follows."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import torch
from curves import read_scalar

from ismallnet.checkpoints import read_checkpoint
from train import main

REPOSITORY = Path(__file__).parent.parent
TINY = ["--dataset", "tiny", "--width", "4", "--crop", "32", "--batch-size", "2", "--lr", "1e-3"]
TINY += ["--workers", "0", "--device", "cpu", "--variant", "plain"]
RUN = Path("runs/tiny/x")
FORKS = multiprocessing.get_context("forkserver")  # whose processes have imported most already
FORKS.set_forkserver_preload(["train", "skimage.measure", "pytest"])


def run(*argv, folder="x"):
    return main([*TINY, "--run-name", folder, *map(str, argv)])


def weights(folder: Path | str, name="last.pt") -> dict[str, torch.Tensor]:
    return read_checkpoint(Path(folder) / name)["state_dict"]


def equal(a: dict, b: dict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a) and a.keys() == b.keys()


def start(*argv, **options) -> subprocess.Popen:
    command = [sys.executable, str(REPOSITORY / "train.py"), *TINY, *map(str, argv)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, **pipes, **options)


def logged(folder, tag: str = "loss/mask") -> dict[int, float]:
    """The values of a scalar in a run's TensorBoard files by step; each step is there once."""
    pairs = read_scalar(folder, tag)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)
