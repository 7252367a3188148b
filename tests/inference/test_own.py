"""A network of the user's own: `--network FILE.py:CLASS` in train.py, test.py and export.py."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fails, make_set, write
from PIL import Image

from eval import main as evaluate
from ismallnet.checkpoints import read_checkpoint
from ismallnet.inference.own import own_network
from test import main as infer
from train import main as train

REPOSITORY = Path(__file__).parents[2]
RECIPE = (REPOSITORY / "docs" / "RESEARCH.md").read_text(encoding="utf-8")
TINY = ["--dataset", "tiny", "--crop", "32", "--batch-size", "2", "--epochs", "1", "--workers", "0"]
TINY += ["--device", "cpu"]
RUN = "runs/tiny/x"
THREE = """
from torch import nn
from ismallnet.unet import Outputs

class Three(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 3, 3, padding=1)

    def forward(self, image):
        return Outputs(*super().forward(image).split(1, 1))
"""
COARSE = """
from torch import nn

class Coarse(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 32, 32), nn.ReLU(), nn.ConvTranspose2d(4, 1, 32, 32))
"""


@pytest.fixture(autouse=True)
def recipe(tmp_path) -> str:
    """small.py of the recipe in RESEARCH.md, and a data set."""
    make_set(tmp_path / "data" / "tiny", names="abcdefgh", train=6)
    section = RECIPE[RECIPE.index("## A network of your own") :]
    lines = re.search(r"small\.py:\n\n((?:    .*\n|\n)+)", section)[1]
    write(Path("small.py"), re.sub(r"(?m)^    ", "", lines))
    return "small.py:Small"


def learn(*argv) -> int:
    return train([*TINY, "--network", "small.py:Small", "--run-name", "x", *map(str, argv)])


def state(run: str) -> dict:
    return read_checkpoint(f"{run}/last.pt")["state_dict"]


def test_the_recipe_of_twelve_lines_trains_tests_and_evaluates(recipe, capsys):
    assert len(Path("small.py").read_text().strip().splitlines()) <= 12
    assert learn() == 0
    kept = read_checkpoint(f"{RUN}/last.pt")["info"]["network"]
    assert (kept["class"], kept["file"], len(kept["sha256"])) == ("Small", "small.py", 64)
    assert infer(["--dataset", "tiny", "--network", recipe, "--weights", RUN, "--device", "cpu"]) == 0
    evaluate(["--dataset", "tiny"])
    assert "IoU" in capsys.readouterr().out


def test_it_resumes_to_the_weights_of_a_run_that_was_not_stopped():
    assert learn("--epochs", 2) == 0
    whole = state(RUN)
    stopped = ["--network", "small.py:Small", "--run-name", "y", "--epochs", "2", "--max-minutes", "0"]
    assert train([*TINY, *stopped]) == 0
    assert read_checkpoint("runs/tiny/y/last.pt")["training"]["step"] < 6
    assert train(["--dataset", "tiny", "--resume", "runs/tiny/y"]) == 0
    assert all(torch.equal(whole[key], value) for key, value in state("runs/tiny/y").items())


def test_an_outputs_network_learns_all_three_maps(capsys):
    write(Path("three.py"), THREE)
    assert train([*TINY, "--network", "three.py:Three", "--run-name", "x"]) == 0
    model = own_network("three.py:Three")
    model.load_state_dict(state(RUN))
    assert [x.shape for x in model(torch.zeros(1, 3, 50, 70))] == [(1, 1, 50, 70)] * 3


def test_another_file_is_refused(recipe, capsys):
    assert learn() == 0
    typed = ["--dataset", "tiny", "--weights", RUN, "--device", "cpu"]
    assert "--network small.py:Small" in fails(infer, *typed, capsys=capsys)
    write(Path("small.py"), Path("small.py").read_text() + "# changed\n")
    assert "SHA-256" in fails(infer, *typed, "--network", recipe, capsys=capsys)
    assert "SHA-256" in fails(train, "--dataset", "tiny", "--resume", RUN, capsys=capsys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("small.py", "FILE.py:CLASS"),
        ("missing.py:Small", "missing.py"),
        ("small.py:Big", "Big"),
        ("needs.py:Needs", "torch.nn.Module"),
        ("flat.py:Flat", "shape"),
    ],
)
def test_what_is_no_network_is_refused(text, said, capsys):
    write(Path("needs.py"), "class Needs:\n    def __init__(self, width): ...\n")
    flat = "    def forward(self, x):\n        return x.mean((2, 3))\n"
    write(Path("flat.py"), f"from torch import nn\nclass Flat(nn.Module):\n{flat}")
    assert said in fails(train, *TINY, "--network", text, capsys=capsys)
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]


def test_its_export_gives_its_maps():
    """A network that needs multiples of 32; the images have others."""
    pytest.importorskip("onnxscript")
    from export import main as export

    own = ["--network", "coarse.py:Coarse"]
    write(Path("coarse.py"), COARSE)
    assert train([*TINY, *own, "--run-name", "x"]) == 0
    assert export(["--weights", f"{RUN}/last.pt", *own, "--output", "x.onnx"]) == 0
    typed = ["--dataset", "tiny", "--device", "cpu", "--weights"]
    assert infer([*typed, RUN, *own, "--results", "a"]) == 0
    assert infer([*typed, "x.onnx", "--backend", "onnxruntime", "--results", "b"]) == 0
    maps = [[np.asarray(Image.open(p)) for p in sorted(Path(r).rglob("*.png"))] for r in "ab"]
    assert len(maps[0]) == len(maps[1]) > 0
    assert all(np.abs(x.astype(int) - y).max() <= 1 for x, y in zip(*maps))
