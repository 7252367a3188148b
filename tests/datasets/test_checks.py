"""What is said of a whole data set: near twins of test images, copies of training images."""

import cv2
import numpy as np
from conftest import make_set, write

from ismallnet.datasets.checks import copies_note, digests_of_equal_sizes, near_twins
from ismallnet.datasets.find import find_dataset


def field(seed: int, shape=(96, 96)) -> np.ndarray:
    """A smooth scene of its own."""
    noise = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 16), None, 20, 200, cv2.NORM_MINMAX)


def test_neighbouring_frames_are_near_twins_and_other_scenes_are_not(tmp_path):
    root = make_set(tmp_path / "s", shape=(96, 96))
    for k, name in enumerate("abc"):
        write(root / f"images/{name}.png", field(k, (96, 97))[:, 1:].astype(np.uint8))
    moved = field(1, (96, 97))[:, :-1]  # by one pixel, brighter, and of 16 bits
    write(root / "images/d.png", (100 * moved + 5000).astype(np.uint16))
    data = find_dataset("s", tmp_path)
    train, test = data.samples("train"), data.samples("test")
    assert near_twins(test, train) == {"d": "b"}
    assert near_twins([], train) == near_twins(test, []) == {}


def test_copies_in_both_lists_and_flat_images(tmp_path):
    root = make_set(tmp_path / "s", names=[f"{k}" for k in range(8)], train=4)
    for k in range(8):
        write(root / f"images/{k}.png", np.full((40, 48), 10 + k % 3, np.uint8))
    data = find_dataset("s", tmp_path)
    train, test = data.samples("train"), data.samples("test")
    said = copies_note(*digests_of_equal_sizes(train, test))
    pairs = [f"{root}/images/{k}.png = {root}/images/{o}.png" for k, o in ("41", "52", "60")]
    assert "4 test images" in said and f"{', '.join(pairs)} and 1 more" in said
    assert not near_twins(test, train)
    for k in range(4, 8):
        write(root / f"images/{k}.png", np.full((40, 48), 20 + k, np.uint8))  # of the same size
    assert not copies_note(*digests_of_equal_sizes(train, test))
