"""Which values of images and frames become 0 and 255, with bright and dark targets; and what is said of
them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ismallnet.cli import DataError
from ismallnet.detection.detector import Detector
from ismallnet.images.grey import (
    GreyFacts,
    GreyRange,
    doubts,
    inverted,
    inverted_limits,
    stands_alone,
    to_units,
    value_limits,
)
from net import iSmallNet


def deep(seed: int = 0, shape=(40, 48)) -> np.ndarray:
    """A 14-bit image, 7000 to 7399, with a target of 8000."""
    image = np.random.default_rng(seed).integers(7001, 7399, shape).astype(np.uint16)
    image[0, :2] = 7000, 7399
    image[10:13, 12:16] = 8000
    return image


def read(pixels: np.ndarray, **options) -> tuple[np.ndarray, GreyFacts | None]:
    Image.fromarray(pixels).save("x.tif")
    return GreyRange(**options).read(Path("x.tif"), "x")


# --- which values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1, 60, 900])  # of 1920 pixels
@pytest.mark.parametrize("value", [0, 3, -9999, -3.4e38])
def test_a_dark_value_that_stands_alone_does_not_spoil_the_contrast(share, value):
    image = deep().astype(np.float32)
    clean, _ = read(image)
    image.ravel()[-share:] = value
    damaged, facts = read(image)
    assert facts.limits[0] >= 7000 and facts.limits[1] == 8000 and not facts.doubts
    kept = np.s_[: (1920 - share) // 48]
    assert np.abs(damaged[kept] - clean[kept]).max() < 2  # of 255
    assert damaged.ravel()[-1] == 0


def test_a_background_of_one_value_is_no_border():
    flat = np.full((40, 48), 100, np.uint16)
    flat[10:13, 12:16] = 5000
    assert not stands_alone(flat) and value_limits(flat) == (100, 5000)
    assert not stands_alone(np.full((3, 3), 7, np.uint16))
    assert not stands_alone(np.array([[0, 1, 2, 3]], np.uint16))  # a gap of 1 and 2 between others
    assert stands_alone(np.array([[0, 9, 10, 11]], np.uint16))
    border = deep()
    border[:, :6] = 0
    assert value_limits(border, (0, 100)) == (0, 8000)  # asked for


def dark_scene() -> np.ndarray:
    """16 bits, 7000 to 7399, with a dark target of 6400, and three columns of 65535: a border."""
    image = np.random.default_rng(0).integers(7000, 7400, (64, 80)).astype(np.uint16)
    image[10:13, 12:16] = 6400
    image[:, :3] = 65535
    return image


@pytest.mark.parametrize("percentiles", [(0.1, 100), (1, 99), (0, 100)])
def test_data_sets_and_frames_read_dark_targets_by_one_rule(percentiles):
    """One room put this scene at a grey value of 74, the other at 253."""
    image = dark_scene()
    grey = GreyRange(percentiles=percentiles, dark=True)
    detector = Detector(iSmallNet(4), polarity="dark", percentiles=percentiles)
    limits = detector.limits_of(image)
    read_as, facts = read(image, percentiles=percentiles, dark=True)
    assert limits == facts.limits == value_limits(image, percentiles, dark=True)
    expected = to_units(~image, value_limits(~image, percentiles))
    assert np.array_equal(read_as, expected) and np.array_equal(grey.units(image, limits), expected)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32, np.float64])
def test_a_bright_border_does_not_spoil_the_contrast_of_dark_targets(kind):
    image = dark_scene().astype(kind)
    assert value_limits(image, dark=True) == (6400, 7399)
    units = GreyRange(dark=True).units(image, (6400, 7399))[..., 0]
    assert (units[10:13, 12:16] == 255).all() and (units[:, :3] == 0).all()
    assert 40 < np.median(units) < 60  # 255 * (7399 - 7200) / 999 = 51
    image[:, :3] = 7200
    image[40, 40] = 0  # not at the end that is cut off: a target, or a dead pixel
    assert value_limits(image, dark=True) == (0, 7399)


def test_percentiles_of_dark_targets_count_from_the_bright_end():
    image = np.arange(10000, dtype=np.uint16).reshape(100, 100)
    assert value_limits(image, (1, 95)) == (99, 9500)  # of 0 to 9999
    assert value_limits(image, (1, 95), dark=True) == (499, 9900)
    assert value_limits(image, dark=True) == (0, 9990)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
def test_inverted_pixels_of_all_types(dtype):
    values = np.array([3, 100, 250], np.uint8).astype(dtype)
    other = inverted(values)
    assert other.dtype == dtype
    assert (np.diff(other.astype(float)) == -np.diff(values.astype(float))).all()
    assert inverted_limits((3, 250), np.dtype(dtype)) == (other[2], other[0])


def test_dark_and_bright_of_64_bits_keep_small_differences():
    pixels = np.array([[7000, 7001], [7300, 7002]], np.uint64)
    low, high = inverted_limits((7000, 7300), pixels.dtype)
    assert ((inverted(pixels) - low).ravel() == [300, 299, 0, 298]).all() and high - low == 300


def test_pixels_that_are_no_numbers_become_the_median():
    image = deep().astype(np.float32)
    image[1, :3] = np.nan, np.inf, -np.inf
    units, facts = read(image)
    assert facts.limits[1] == 8000 and not facts.doubts
    assert (units[1, :3] == units[1, 0]).all() and 20 < units[1, 0, 0] < 80
    with pytest.raises(DataError, match=r"x\.tif"):
        read(np.full((4, 4), np.nan, np.float32))


# --- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_hot_flat_and_outside_are_doubted(kind, dark):
    image = deep().astype(kind)
    hot = image.copy()
    hot[0, 0] = 60000
    images = {"": image, "hot": hot, "flat": np.full((40, 48), 9, kind)}
    for doubt, pixels in images.items():
        if dark:
            pixels = (65535 - pixels).astype(kind)
        limits = value_limits(pixels, dark=dark)
        assert doubts(pixels, limits, dark=dark) == ((doubt,) if doubt else ())
        _, facts = read(pixels, dark=dark)
        assert facts.doubts == doubts(pixels, limits, dark=dark)
    assert doubts(hot, value_limits(hot, (0.1, 99.9)), dark=False) == ()
    assert doubts(image, (7000, 8000), fixed=True) == ()
    assert doubts(image, (7390, 8000), fixed=True) == ("outside",)
    assert read(image, limits=(7390, 8000))[1].doubts == ("outside",)


def test_of_8_bits_flat_ones_alone_are_doubted():
    assert doubts(np.full((4, 4), 3, np.uint8), None) == ("flat",)
    assert read((deep() >> 6).astype(np.uint8))[1] is None
    assert read(np.full((4, 4), 3, np.uint8))[1] == GreyFacts("x", "uint8", None, ("flat",))


def test_the_range_of_a_list_is_one_line():
    facts = [GreyFacts(name, "uint16", (7000.0, high)) for name, high in (("c", 7400.0), ("d", 7500.0))]
    (line,) = GreyRange().report("tiny test", facts, 3)
    assert line.startswith("tiny test: uint16 in 2 of 3 images: percentiles 0.1 and 100 of each")
    assert "7000 / 7000 / 7000 and 7400 / 7450 / 7500" in line
    (line,) = GreyRange(limits=(7000, 9000)).report("tiny test", facts, 3)
    assert line.endswith("7000 and 9000 become 0 and 255 (--range)")


def test_eight_bits_are_not_mentioned_unless_asked():
    grey = GreyRange(percentiles=(1.0, 99.0))
    assert not list(GreyRange().report("s test", [], 2))
    assert "--range and --percentiles change nothing" in next(grey.report("s test", [], 2))


def test_how_images_were_read_in_the_training():
    assert GreyRange.of_training({}) == GreyRange()
    args = {"range": [1, 2], "percentiles": [0.1, 100], "polarity": "dark"}
    assert GreyRange.of_training({"args": args}) == GreyRange((1, 2), dark=True)
