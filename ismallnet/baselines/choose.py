"""Classical baselines: what one would try before a network, under the same metrics.

    python test.py --dataset NUAA-SIRST --baseline tophat --results results/tophat

Each gives an image of scores, brought to zero mean and unit variance image by image; the number of
standard deviations that makes a target, and the window, are chosen on the training list (largest
IoU over the set).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ismallnet.baselines.filters import maxmedian, mpcm, tophat
from ismallnet.baselines.ipi import ipi
from ismallnet.cli import progress
from ismallnet.datasets.sample import Item
from ismallnet.evaluation.metrics import quantise
from ismallnet.parallel import in_processes

# Standard deviations above an image's mean. The lowest are for sparse scores, 0 nearly everywhere.
THRESHOLDS = np.concatenate([np.geomspace(0.01, 0.5, 100, endpoint=False), np.geomspace(0.5, 100, 500)])


@dataclass(frozen=True)
class Method:
    """A method and the windows to choose from, px."""

    score: Callable[[np.ndarray, int], np.ndarray]
    windows: tuple[int, ...]


BASELINES = {
    "tophat": Method(tophat, (5, 7, 9, 13, 17, 25)),
    "maxmedian": Method(maxmedian, (5, 7, 9, 13, 17, 25, 33, 41, 49)),
    "mpcm": Method(mpcm, (9, 15, 21, 27)),
    "ipi": Method(ipi, (50,)),
}


def scores(image: np.ndarray, method: str, window: int) -> np.ndarray:
    """HxWx3 image -> HxW float32 scores in standard deviations above their mean."""
    values = BASELINES[method].score(np.ascontiguousarray(image.mean(axis=2), np.float32), window)
    return (values - values.mean()) / max(float(values.std()), 1e-6)


def histograms(item: Item, method: str, window: int) -> np.ndarray:
    """(2, len(THRESHOLDS)) counts of background and target pixels with a score at or above each."""
    score, mask = scores(item.image, method, window), item.mask > 0
    passed = np.searchsorted(THRESHOLDS, score, side="right")  # how many thresholds each one passes
    levels = [np.bincount(passed[where], minlength=len(THRESHOLDS) + 1) for where in (~mask, mask)]
    return np.array([level[::-1].cumsum()[::-1][1:] for level in levels])


def choose(train: Sequence[Item], method: str, workers: int) -> tuple[int, float, float]:
    """The window and threshold with the largest IoU over a training list, and that IoU."""
    windows = BASELINES[method].windows
    counts = np.zeros((len(windows), 2, len(THRESHOLDS)), np.int64)
    for number, window in enumerate(windows):
        count = partial(histograms, method=method, window=window)
        label = f"{method} {window} px"
        for levels in progress(in_processes(count, train, workers), label, len(train)):
            counts[number] += levels
    targets = sum(int((train[i].mask > 0).sum()) for i in range(len(train)))
    background, target = counts.swapaxes(0, 1)
    iou = target / np.maximum(targets + background, 1)
    number, level = np.unravel_index(iou.argmax(), iou.shape)
    return windows[number], float(THRESHOLDS[level]), float(iou.max())


def probability(item: Item, method: str, window: int, threshold: float) -> np.ndarray:
    """Scores as a probability map, HxW uint8: 0.5 at the threshold, 1 at twice the threshold."""
    score = scores(item.image, method, window) / (2 * threshold)
    return quantise(np.clip(score, 0, 1))


def baseline_maps(
    frames: Sequence[Item], method: str, window: int, threshold: float, workers: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields (i, pred, mask) of each frame, as `predict.infer` does."""
    make = partial(probability, method=method, window=window, threshold=threshold)
    for i, pred in enumerate(in_processes(make, frames, workers)):
        yield i, pred, frames[i].mask
