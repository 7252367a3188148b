"""Dark targets."""

from pathlib import Path

import numpy as np
import pytest
from conftest import write
from streaming import results

from detect import Detector, main
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


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_dark_target_is_found_where_it_is_looked_for(bright, depth):
    frame = DEPTHS[depth](scene())
    assert bright.detect(frame) == []
    (target,) = Detector(bright.model, bright.settings, polarity="dark").detect(frame)
    assert (target.x, target.y) == (pytest.approx(70, abs=1), pytest.approx(40, abs=1))
    assert target.polarity == "dark" and target.score > 0.9 and target.snr < -3


def test_the_files_of_dark_targets_say_so():
    frame = DEPTHS["16 bits"](scene(bright=60))
    write(Path("f/a.png"), frame)
    main(["f", "--device", "cpu", "--polarity", "dark"])
    (row,), companion = results()
    assert row["polarity"] == "dark" and abs(float(row["x"]) - 70) < 1
    (image,) = companion["images"]
    assert tuple(image["range"]) == value_limits(frame, (0, 99.9))
