import json
from pathlib import Path

import numpy as np
import pytest

from dataset import Frames
from eval import main as evaluate_main
from ismallnet.baselines.choose import BASELINES, THRESHOLDS, choose, probability, scores
from ismallnet.baselines.filters import maxmedian, mpcm
from ismallnet.baselines.ipi import cut, ipi, join, shrink
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.sample import Item
from test import main


def scene(shape=(60, 70)) -> np.ndarray:
    """A smooth background with a 3x3 target at (30, 40)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = (80 + 0.5 * y + 0.3 * x).astype(np.float32)
    image[29:32, 39:42] += 60
    return image


@pytest.mark.parametrize("method", BASELINES)
def test_every_method_is_highest_on_the_target_and_low_elsewhere(method):
    image = scene()
    score = BASELINES[method].score(image, BASELINES[method].windows[-1])
    assert score.shape == image.shape and score.dtype == np.float32 and np.isfinite(score).all()
    y, x = np.unravel_index(score.argmax(), score.shape)
    assert abs(y - 30) <= 1 and abs(x - 40) <= 1
    score = (score - score.mean()) / score.std()
    score[20:41, 30:51] = 0
    assert score.max() < 5


def test_maxmedian_by_hand():
    """A single bright pixel is above all its medians; a bright line is its own median."""
    image = np.zeros((11, 11), np.float32)
    image[5, 5], image[8, :] = 7, 3
    expected = np.zeros((11, 11), np.float32)
    expected[5, 5] = 7
    assert np.array_equal(maxmedian(image, 5), expected)


def spot(value: float) -> np.ndarray:
    """A pixel of another value at (15, 15) in 31x31 pixels of 30."""
    image = np.full((31, 31), 30, np.float32)
    image[15, 15] = value
    return image


def test_mpcm_by_hand():
    """Cells of 3 px: a pixel of 90 makes its cell's mean 60 / 9 higher than all eight neighbours', so
    every product is (60 / 9)²; cells of 5 px give (60 / 25)². A dark pixel is no target, and a bright
    line has a neighbour as bright as itself."""
    score = mpcm(spot(90), 15)
    assert score[15, 15] == pytest.approx((60 / 9) ** 2)
    assert score[15, 17] == pytest.approx((60 / 25) ** 2, rel=1e-5)  # in the cell of 5 px alone
    assert score[15, 19] == 0
    assert not mpcm(spot(0), 15).any()
    line = np.full((31, 31), 30, np.float32)
    line[15] = 90
    assert not mpcm(line, 15).any()


def test_ipi_splits_rank_one_and_sparse():
    """The patches of a background whose rows are all the same have a low rank: it must vanish, and the
    target must not."""
    background = np.tile(50 + 40 * np.sin(np.arange(120) / 9), (120, 1)).astype(np.float32)
    image = background.copy()
    image[40:42, 40:43] += 50
    score = ipi(image, 30)
    assert score[40:42, 40:43].min() > 20
    score[40:42, 40:43] = 0
    assert score.max() < 3


@pytest.mark.parametrize("shape", [(50, 70), (20, 64), (64, 20), (7, 5)])
def test_patches_that_are_cut_and_joined_give_the_image(shape):
    image = np.random.default_rng(0).random(shape, np.float32)
    patches = cut(image, 30)
    assert patches.shape[:2] == 2 * (min(30, *shape),)
    assert np.array_equal(join(patches, shape), image)


def test_joined_patches_are_their_median_and_not_negative():
    patches = np.broadcast_to([1.0, 5.0, -9.0], (30, 30, 3))  # at columns 0, 10 and 20
    assert join(patches, (30, 50))[0, ::10].tolist() == [1, 3, 1, 0, 0]


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
def test_the_nuclear_norm_is_singular_value_thresholding(shape):
    matrix = np.random.default_rng(0).normal(size=shape)
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    expected = u @ np.diag(np.maximum(s - 4.5, 0)) @ v
    assert np.abs(shrink(matrix, 4.5) - expected).max() < 1e-10


def test_a_constant_image_has_no_targets():
    image = np.full((40, 50, 3), 77.0, np.float32)
    for method, found in BASELINES.items():
        assert not probability(Item(image, None), method, found.windows[0], 3.0).any()


def test_threshold_is_the_best_of_the_training_list(data):
    frames = Frames(find_dataset("tiny"), "train")
    window, threshold, iou = choose(frames, "tophat", 1)
    best = -1.0
    for w in BASELINES["tophat"].windows:
        found = [(scores(item.image, "tophat", w), item.mask > 0) for item in frames]
        for t in THRESHOLDS:
            both = sum(((s >= t) & m).sum() for s, m in found)
            either = sum(((s >= t) | m).sum() for s, m in found)
            best = max(best, both / either)
    assert iou == pytest.approx(best) and iou > 0.9
    pred = probability(frames[0], "tophat", window, threshold)
    assert np.array_equal(pred >= 128, scores(frames[0].image, "tophat", window) >= threshold)


def test_a_baseline_runs_like_a_network(data, capsys):
    main(["--dataset", "tiny", "--workers", "1", "--baseline", "tophat", "--results", "r"])
    assert "tophat: window" in capsys.readouterr().out
    about = json.loads(Path("r/tiny/about.json").read_text())
    assert about["baseline"] == "tophat" and about["selected_on"] == "the training list"
    evaluate_main(["--dataset", "tiny", "--results", "r", "--workers", "1"])
    figures = json.loads(Path("r/tiny/metrics.json").read_text())["standard"]
    assert figures["pd"] == 1.0
