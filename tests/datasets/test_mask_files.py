"""Mask files of all forms that people have."""

import numpy as np
from conftest import target_mask, write
from PIL import Image

from ismallnet.datasets.masks import read_mask, read_mask_values
from ismallnet.datasets.sample import Sample


def sample(path) -> Sample:
    return Sample("m", path, path)


def save(path, pixels, mode=None):
    Image.fromarray(pixels, mode).save(path)
    return path


def test_forms_of_masks(tmp_path):
    on = target_mask() > 0
    forms = {
        "grey": np.where(on, 255, 0).astype(np.uint8),
        "zero-one": on.astype(np.uint8),
        "just target": np.where(on, 128, 127).astype(np.uint8),
        "16-bit": np.where(on, 32896, 32895).astype(np.uint16),
        "16-bit 0/1": on.astype(np.uint16),
        "red": np.dstack([np.zeros_like(on), np.zeros_like(on), on * 255]).astype(np.uint8),
        "alpha": np.dstack([on * 200] * 3 + [np.full(on.shape, 255)]).astype(np.uint8),
    }
    for name, pixels in forms.items():
        write(tmp_path / "m.png", pixels)
        found = read_mask(sample(tmp_path / "m.png"), on.shape)
        assert (found == on * 255).all(), name
    palette = Image.fromarray(on.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.save(tmp_path / "m.png")
    assert (read_mask_values(sample(tmp_path / "m.png")) == on * 255).all()  # not black is target


def test_float_masks(tmp_path):
    values = [[-0.5, 0, 0.4, 1, np.nan]]
    save(tmp_path / "m.tif", np.array(values, np.float32))
    assert read_mask_values(sample(tmp_path / "m.tif")).tolist() == [[0, 0, 102, 255, 0]]
    save(tmp_path / "m.tif", np.array([[-3, 0, 127.9, 128, 255]], np.float32))
    assert read_mask_values(sample(tmp_path / "m.tif")).tolist() == [[0, 0, 127, 128, 255]]


def test_a_mask_is_resized_before_its_values_are_looked_at(tmp_path):
    pixels = np.zeros((40, 40), np.uint8)
    pixels[10:14, 10:14] = 1
    pixels[1, 1] = 200  # between the pixels that nearest neighbour takes
    write(tmp_path / "m.png", pixels)
    assert read_mask_values(sample(tmp_path / "m.png")).max() == 200
    small = read_mask_values(sample(tmp_path / "m.png"), (20, 20))
    assert small.sum() == 4 * 255 and (small[5:7, 5:7] == 255).all()
