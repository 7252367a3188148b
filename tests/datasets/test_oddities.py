"""Images that cannot be right, or not as they are: flat, inverted, drawn on, misread."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import make_set, write
from PIL import Image

from dataset import Frames
from ismallnet.datasets.find import find_dataset
from ismallnet.detection.contrast import doubts
from ismallnet.images.grey import ODD as ODD_TEXTS
from ismallnet.images.grey import GreyRange, eight_bit_doubts, has_drawings, misread, value_limits

BASE = np.random.default_rng(0).integers(60, 160, (40, 48)).astype(np.uint8)
WHITE = np.pad(BASE, 3, constant_values=255)
DRAWN = cv2.rectangle(BASE.copy(), (8, 10), (34, 24), 255)
ODD = {
    "flat": np.full((40, 48), 90, np.uint8),
    "colours": np.dstack([BASE, np.zeros_like(BASE), 255 - BASE]),
    "dim": BASE // 8,
    "white": WHITE,
    "drawn": DRAWN,
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_images_of_8_bits_are_said(kind, capsys, tmp_path):
    assert eight_bit_doubts(BASE) == () and eight_bit_doubts(ODD[kind]) == (kind,)
    assert doubts(ODD[kind], {"bright": None}, True) == [kind]
    root = make_set(tmp_path / "data" / "tiny")
    pixels = cv2.resize(ODD[kind], (48, 40), interpolation=cv2.INTER_NEAREST)
    for name in "abcd":
        write(root / f"images/{name}.png", BASE)
    write(root / "images/d.png", pixels)
    Frames(find_dataset("tiny"), "test")
    line = next(line for line in capsys.readouterr().out.splitlines() if "tiny test: 1 images" in line)
    text = ODD_TEXTS[kind].split(" (")[0]
    assert line.startswith(f"note: tiny test: 1 images {text}") and line.endswith(": d")


def test_a_saturated_side_is_no_white_border():
    image = BASE.copy()
    image[:5] = 255
    assert eight_bit_doubts(image) == ()


def test_small_bright_things_are_no_drawings():
    image = np.repeat(np.repeat(BASE, 4, 0), 4, 1)
    places = np.random.default_rng(1).integers(4, 150, (20, 2))
    for y, x in places:
        image[y : y + 2 + y % 2, x : x + 2 + y % 2] = 255
    assert not has_drawings(image) and (image == 255).sum() > 60
    image[100:140, 100:150] = 255  # a saturated cloud does not hide the text
    cv2.putText(image, "12:04:33", (8, 90), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 235)
    assert has_drawings(image) and has_drawings(np.dstack([image] * 3))


def test_dark_images_are_looked_at_as_inverted():
    write(Path("x.png"), ~DRAWN)
    assert GreyRange(dark=True).read(Path("x.png"), "x")[1].odd == ("drawn",)
    assert GreyRange().read(Path("x.png"), "x")[1] is None


def scene() -> np.ndarray:
    """A smooth 14-bit frame with a little noise, 64x80."""
    y, x = np.mgrid[:64, :80]
    noise = np.random.default_rng(0).normal(0, 3, (64, 80))
    return (7000 + 1500 * np.sin(y / 9) * np.cos(x / 11) + noise).astype(np.uint16)


def test_values_that_were_misread_are_said():
    frame = scene()
    counts = (frame.astype(np.int32) - 7000).astype(np.int16)  # around 0
    flags = np.random.default_rng(2).random(frame.shape) < 0.01
    wrong_width = frame.reshape(80, 64)
    for pixels, raw, expected in (
        (frame, True, ()),
        (np.random.default_rng(1).integers(7000, 7200, (64, 80)).astype(np.uint16), True, ()),
        (frame.byteswap(), False, ("bytes",)),
        (counts.view(np.uint16), False, ("signed",)),
        (frame | (flags << 15).astype(np.uint16), False, ("flag",)),
        (np.where(flags, 50000, frame).astype(np.uint16), False, ()),  # hot pixels
        (np.where(flags, 40000, frame).astype(np.uint16), False, ()),  # which are so by chance
        (np.where(np.roll(flags, 1, 1) | flags, frame | 1 << 15, frame), False, ("flag",)),
        (np.zeros((64, 80), np.uint16), False, ()),
        (scene() + np.uint16(900), False, ()),  # from below bit 13 to above it
        (counts, True, ()),
        (wrong_width, True, ("rows",)),
        (wrong_width, False, ()),
        (np.full((64, 80), np.nan, np.float32), True, ()),
    ):
        assert misread(pixels, raw) == expected
    for pixels, odd in ((frame, ()), (frame.byteswap(), ("bytes",))):
        Image.fromarray(pixels).save("x.tif")
        assert GreyRange().read(Path("x.tif"), "x")[1].odd == odd
    frame = frame.byteswap()
    assert doubts(frame, {"bright": value_limits(frame)}, True) == ["bytes"]


def test_exchanged_bytes_of_dim_frames_are_seen():
    """A scene of a few hundred values is smooth in either order: the range of its values tells."""
    y, x = np.mgrid[:64, :80]
    dim = (7000 + 90 * np.sin(y / 19) * np.cos(x / 21)).astype(np.uint16)
    assert misread(dim) == () and misread(dim.byteswap()) == ("bytes",)
    eight = (dim - 6900).astype(np.uint16)
    for legal in (eight << 8, eight * 257, (dim - 6900) << 6, (eight << 8).clip(0, 40000)):
        assert misread(legal.astype(np.uint16)) == ()
    saturated = eight << 8
    saturated[:2, :9] = 65535
    assert misread(saturated) == ()
    assert misread(np.where(dim > 7000, 259, 7).astype(np.uint16)) == ()  # two values
