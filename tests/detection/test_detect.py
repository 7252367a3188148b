import json
import re

import numpy as np
import pytest
import torch
from conftest import picture

from detect import Detector
from ismallnet.detection.detector import find_targets
from ismallnet.detection.records import write_tables
from ismallnet.evaluation.metrics import local_snr
from ismallnet.inference.predict import predict_frame
from net import Outputs, iSmallNet


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return iSmallNet(4).eval()


# --- targets ---------------------------------------------------------------------------------------


def test_targets_by_hand():
    probability = np.zeros((30, 40), np.float32)
    probability[10, 20:23] = 0.6, 0.9, 0.75
    probability[11, 23] = 0.5  # diagonal: the same component; 127.5 rounds to 128, which is above
    probability[20, 5] = 0.95
    frame = np.full((30, 40), 100, np.uint8)
    first, second = find_targets(probability, frame)
    assert (first.x, first.y, first.box, first.area) == (5, 20, (5, 20, 1, 1), 1)
    assert first.score == pytest.approx(0.95) and first.mean == pytest.approx(0.95)
    assert second.box == (20, 10, 4, 2) and second.area == 4
    assert second.score == pytest.approx(0.9) and second.mean == pytest.approx(2.75 / 4)
    assert second.x == pytest.approx((20 * 0.6 + 21 * 0.9 + 22 * 0.75 + 23 * 0.5) / 2.75)
    assert second.y == pytest.approx((10 * 2.25 + 11 * 0.5) / 2.75)
    assert [t.area for t in find_targets(probability, frame, min_area=2)] == [4]
    assert [t.area for t in find_targets(probability, frame, max_area=3)] == [1]
    assert [t.area for t in find_targets(probability, frame, max_targets=1)] == [1]
    assert [t.area for t in find_targets(probability, frame, threshold=0.7)] == [1, 2]
    assert find_targets(np.zeros((3, 3), np.float32), frame) == []


def test_equal_scores_stand_from_the_top_left():
    probability = np.zeros((20, 20), np.float32)
    for y, x in ((9, 3), (2, 15), (2, 4)):
        probability[y, x] = 0.8
    found = find_targets(probability, np.zeros((20, 20)))
    assert [(t.y, t.x) for t in found] == [(2, 4), (2, 15), (9, 3)]


@pytest.mark.parametrize("y, x", [(30, 30), (0, 0), (59, 59), (1, 40)])
def test_snr_is_the_whole_frame_s(y, x):
    rng = np.random.default_rng(0)
    frame = rng.integers(1000, 1100, (60, 60)).astype(np.uint16)
    frame[y, x] = 1500
    probability = np.zeros((60, 60), np.float32)
    probability[y, x] = 1
    mask = (probability > 0).astype(np.uint8)
    assert find_targets(probability, frame)[0].snr == pytest.approx(local_snr(frame, mask))


def test_a_frame_without_surroundings_has_no_snr():
    assert find_targets(np.ones((3, 3), np.float32), np.zeros((3, 3)))[0].snr is None


# --- tiles -----------------------------------------------------------------------------------------


def test_tiles_join_without_seams():
    """A network that looks at single pixels gives the same map in tiles as in one piece."""

    class Bright(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.std, self.multiple = torch.zeros(3), torch.ones(3), 16

        def normalise(self, x):
            return (x.float() - 128) / 20

        def forward(self, x):
            return Outputs(None, None, x[:, :1])

    frame = np.random.default_rng(0).uniform(0, 255, (150, 170, 3)).astype(np.float32)
    whole = predict_frame(Bright(), frame, tile=512)
    assert np.abs(predict_frame(Bright(), frame, tile=64, overlap=16) - whole).max() < 1e-5


# --- the detector ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, gain", [(np.uint16, 257), (np.float32, 3.5), (np.int32, 1000)])
def test_depth_does_not_matter(model, dtype, gain):
    frame = picture(1, (64, 64))
    limits = (0, 255 * gain)
    detector = Detector(model, limits=limits)
    expected = Detector(model).probability(frame)
    assert np.abs(detector.probability((frame * float(gain)).astype(dtype)) - expected).max() < 1e-4
    colour = np.repeat(frame[..., None], 3, 2)
    assert np.array_equal(Detector(model).probability(colour), expected)


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (np.zeros((0, 5)), r"shape \(0, 5\)"),
        (np.zeros((4, 4, 2)), r"shape \(4, 4, 2\)"),
        (np.zeros(7), r"shape \(7,\)"),
        (np.array([["a"]]), "<U1"),
        (np.ma.masked_equal(np.eye(4), 1), "a masked array"),
    ],
)
def test_what_is_no_image_is_refused(model, frame, found):
    with pytest.raises(ValueError, match=f"frame: found {found}"):
        Detector(model).detect(frame)


@pytest.mark.parametrize(
    "name, value",
    [
        ("threshold", 50),
        ("threshold", float("nan")),
        ("tile", 0),
        ("overlap", 512),
        ("min_area", 0),
        ("max_area", 0),
        ("max_targets", 0),
        ("percentiles", (50, 10)),
        ("limits", (9000, 5000)),
        ("limits", (0, float("inf"))),
        ("polarity", ["dark"]),
        ("polarity", "up"),
        ("amp", "int8"),
        ("flips", "no"),
        ("scale", 0),
        ("scale", float("nan")),
    ],
)
def test_settings_that_cannot_be_used_are_refused(model, name, value):
    with pytest.raises(ValueError, match=f"^{name} .*: found {re.escape(repr(value))}, expected"):
        Detector(model, **{name: value})


def test_settings_of_numpy_s_types_can_be_used(model):
    numbers = {"threshold": np.float32(0.5), "tile": np.int64(64), "overlap": np.int64(32)}
    detector = Detector(model, limits=np.array([0.0, 9.0]), percentiles=[0, 100], **numbers)
    assert detector.limits_of(np.zeros((9, 9), np.uint16)) == (0, 9)


@pytest.mark.parametrize("scale", [2, 0.5, 1.5])
def test_the_network_sees_frames_rescaled_and_targets_stay_where_they_are(scale):
    """A network that finds what is bright gives the place and the area of a spot at any scale."""
    sides = []

    class Bright(iSmallNet):
        def forward(self, x):
            sides.append(tuple(x.shape[2:]))
            return Outputs(*[12 * x[:, :1] - 6] * 3)

    frames = np.zeros((2, 64, 96), np.uint8)
    frames[0, 20:28, 40:52], frames[1, 40:48, 8:20] = 255, 255
    tiles = {"tile": 64, "overlap": 32} if scale == 1.5 else {}
    detector = Detector(Bright(4).eval(), scale=scale, **tiles)
    detector.model.mean.zero_(), detector.model.std.fill_(255)
    maps = detector.maps(list(frames), [None, None])
    assert {p.shape for p in maps} == {(64, 96)} and all(0 <= p.min() <= p.max() <= 1 for p in maps)
    for (x, y), frame, probability in zip(((45.5, 23.5), (13.5, 43.5)), frames, maps):
        (target,) = detector.targets(probability, frame)
        assert (target.x, target.y) == pytest.approx((x, y), abs=0.1) and 96 <= target.area <= 140
    assert max(sides) >= ((64, 64) if scale == 1.5 else (64 * scale, 96 * scale))


def test_boxes_as_coco_s_results(tmp_path):
    target = dict.fromkeys(("x", "y", "area", "mean", "snr"), 1) | {"box": [3, 4, 2, 1], "score": 0.9}
    frame = {"frame": "f", "file": "a/f.png", "index": 0, "seconds": None, "range": None}
    frame |= {"height": 20, "width": 30}
    entries = [frame | {"targets": []}, frame | {"targets": [target]}]
    assert write_tables(tmp_path, entries) == 1
    texts = ((tmp_path / name).read_text() for name in ("detections.json", "frames.json"))
    results, frames = map(json.loads, texts)
    assert results == [{"image_id": 2, "category_id": 1, "bbox": [3, 4, 2, 1], "score": 0.9}]
    assert [image["id"] for image in frames["images"]] == [1, 2]
    assert frames["categories"] == [{"id": 1, "name": "target"}]
