"""Masks that lie beside their targets by a part of a pixel."""

import re

import numpy as np
import pytest
from conftest import write

from dataset import Frames
from ismallnet.datasets.checks import mirrors_for, offset_note, offsets
from ismallnet.datasets.find import find_dataset
from train import settle_mirrors


def scene(rng, dy: float, dx: float, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian spots at random places between the pixels, and the masks of spots dy, dx beside them."""
    y, x = np.mgrid[:96, :96]
    image, mask = np.full((96, 96), 60.0) + rng.normal(0, 1, (96, 96)), np.zeros((96, 96), np.uint8)
    for k in range(count):
        cy, cx = 24 + 48 * (k // 2) + rng.uniform(-8, 8), 24 + 48 * (k % 2) + rng.uniform(-8, 8)
        image += 150 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 4)
        mask[(y - cy - dy) ** 2 + (x - cx - dx) ** 2 < 6] = 255
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (-0.5, 0), (0.3, -0.3)])
def test_the_mean_offset_is_found(dy, dx):
    rng = np.random.default_rng(0)
    found = np.concatenate([offsets(*scene(rng, dy, dx)) for _ in range(30)])
    assert len(found) == 120 and found.mean(axis=0) == pytest.approx([dy, dx], abs=0.05)
    note = offset_note("s", found, "all")
    assert mirrors_for(found) == {(0, 0): "all", (-0.5, 0): "none", (0.3, -0.3): "none"}[dy, dx]
    assert ("px higher" in note, "px lower" in note) == (dy < 0, dy > 0)
    assert ("further left" in note, "further right" in note) == (dx < 0, dx > 0)
    assert ("--mirror auto leaves them out" in note) == bool(dy or dx)
    assert mirrors_for(found - (dy - 0.4, dx - 0.4)) == "diagonal"


def test_targets_at_the_border_or_together_are_left_out():
    image, mask = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    for row, column in ((1, 20), (20, 38), (20, 10), (20, 14)):  # the last two are 2 px apart
        mask[row : row + 2, column : column + 2] = image[row : row + 2, column : column + 2] = 255
    assert offsets(image, mask).shape == (0, 2)
    for none in (np.empty((0, 2)), np.zeros((50, 2))):
        assert offset_note("s", none, "all") == "" and mirrors_for(none) == "all"


def test_a_training_says_it_for_its_list(tmp_path, capsys):
    rng, root = np.random.default_rng(0), tmp_path / "data" / "tiny"
    names = [f"f{k}" for k in range(24)]
    for name in names:
        image, mask = scene(rng, -0.4, 0)
        write(root / "images" / f"{name}.png", image)
        write(root / "masks" / f"{name}.png", mask)
    write(root / "50_50/train.txt", "\n".join(names[:22]))
    write(root / "50_50/test.txt", "\n".join(names[22:]))
    data = find_dataset("tiny")
    assert settle_mirrors([data], [Frames(data, "train")], "auto") == ["none"]
    said = capsys.readouterr().out
    assert re.search(r"note: tiny: the masks lie beside their targets, .* 0\.[34]\d px higher", said)
