"""Dark targets, and both kinds at once."""

from pathlib import Path

import numpy as np
import pytest
from conftest import write
from streaming import results

from detect import Detector, Target, main
from ismallnet.detection.detector import merged
from ismallnet.images.grey import value_limits

Y, X = np.mgrid[:96, :128]


def blob(y: float, x: float) -> np.ndarray:
    """A target of about 1.5 px, HxW in [0, 1]."""
    return np.exp(-((Y - y) ** 2 + (X - x) ** 2) / (2 * 1.5**2))


def scene(dark=60.0, bright=0.0) -> np.ndarray:
    """A sky of about 120, with a dark target at (x 70, y 40) and a bright one at (x 30, y 70)."""
    noise = np.random.default_rng(0).normal(0, 2, X.shape)
    sky = 120 + 15 * np.sin(X / 30) + 10 * np.cos(Y / 25)
    return sky + noise - dark * blob(40, 70) + bright * blob(70, 30)


DEPTHS = {
    "8 bits": lambda frame: frame.clip(0, 255).astype(np.uint8),
    "16 bits": lambda frame: (50 * frame + 3000).astype(np.uint16),
    "floats": lambda frame: (frame / 7).astype(np.float32),
}


@pytest.fixture(scope="module")
def bright() -> Detector:
    return Detector.from_weights(device="cpu")


def of(detector: Detector, polarity: str) -> Detector:
    return Detector(detector.model, detector.settings, polarity=polarity)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_dark_target_is_found_where_it_is_looked_for(bright, depth):
    frame = DEPTHS[depth](scene())
    assert bright.detect(frame) == []
    for polarity in ("dark", "both"):
        (target,) = of(bright, polarity).detect(frame)
        assert (target.x, target.y) == (pytest.approx(70, abs=1), pytest.approx(40, abs=1))
        assert target.polarity == "dark" and target.score > 0.9 and target.snr < -3


def test_both_are_the_bright_and_the_dark_targets_once(bright):
    frame = DEPTHS["16 bits"](scene(bright=60))
    alone = {polarity: of(bright, polarity).detect(frame) for polarity in ("bright", "dark")}
    found = of(bright, "both").detect(frame)
    assert {(t.polarity, t.box) for t in found} == {
        (polarity, t.box) for polarity, targets in alone.items() for t in targets
    }
    assert sorted(t.polarity for t in found) == ["bright", "dark"]
    maps = [of(bright, polarity).probability(frame) for polarity in ("bright", "dark", "both")]
    assert np.array_equal(np.maximum(maps[0], maps[1]), maps[2])


def target(box, score, polarity, mean=0.5, snr=None) -> Target:
    return Target(box[0], box[1], box, 1, score, mean, snr, np.zeros((1, 2), int), polarity)


def test_of_targets_that_touch_the_higher_score_wins():
    a = target((10, 10, 4, 4), 0.9, "dark")
    b = target((13, 13, 4, 4), 0.8, "bright")  # shares the pixel (13, 13)
    c = target((15, 10, 2, 2), 0.7, "bright")  # a column of pixels is between it and a
    e = target((8, 14, 2, 2), 0.5, "bright")  # its corner touches that of a
    d = target((10, 10, 4, 4), 0.6, "dark")  # never compared with its like
    assert merged([e, b, d, c, a]) == [a, c, d]
    right = target((5, 5, 2, 2), 1.0, "dark", mean=0.6, snr=-4.0)
    wrong = target((5, 5, 2, 2), 1.0, "bright", mean=0.9, snr=-4.0)
    assert merged([wrong, right]) == [right]
    higher = target((5, 5, 2, 2), 1.0, "bright", mean=0.9, snr=4.0)  # both agree: the higher mean
    assert merged([right, higher]) == [higher]


def test_the_files_say_which_is_which_and_keep_both_grey_ranges():
    frame = DEPTHS["16 bits"](scene(bright=60))
    write(Path("f/a.png"), frame)
    main(["f", "--device", "cpu", "--polarity", "both"])
    rows, found, companion = results()
    places = {(row["polarity"], round(float(row["x"]) / 10)) for row in rows}
    assert places == {("bright", 3), ("dark", 7)}
    assert [entry["polarity"] for entry in found] == [row["polarity"] for row in rows]
    (image,) = companion["images"]
    assert tuple(image["range"]) == value_limits(frame, (0.1, 100))
    assert tuple(image["dark_range"]) == value_limits(frame, (0, 99.9))
