"""Classical baselines: what one would try before a network, under the same metrics.

    python test.py --dataset NUAA-SIRST --baseline tophat --results results/tophat

Each gives an image of scores, brought to zero mean and unit variance image by image; the number of
standard deviations that makes a target, and the window, are chosen on the training list (largest
IoU over the set). The same command continues where it was interrupted.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch.utils.data import Subset

from ismallnet.baselines import contrast, filters, lowrank
from ismallnet.cli import progress
from ismallnet.datasets.sample import Item
from ismallnet.evaluation.metrics import quantise
from ismallnet.files import read_json, write_json
from ismallnet.parallel import in_processes

# Standard deviations above an image's mean. The lowest are for sparse scores, 0 nearly everywhere.
THRESHOLDS = np.concatenate([np.geomspace(0.01, 0.5, 100, endpoint=False), np.geomspace(0.5, 100, 500)])

WRITE_SECONDS = 20  # between two states that an interrupted call continues from


@dataclass(frozen=True)
class Method:
    """A method and the windows to choose from, px."""

    score: Callable[[np.ndarray, int], np.ndarray]
    windows: tuple[int, ...]


BASELINES = {
    "tophat": Method(filters.tophat, (5, 7, 9, 13, 17, 25)),
    "maxmedian": Method(filters.maxmedian, (5, 7, 9, 13, 17, 25, 33, 41, 49)),
    "lcm": Method(contrast.lcm, (9, 15, 21, 27)),
    "mpcm": Method(contrast.mpcm, (9, 15, 21, 27)),
    "tllcm": Method(contrast.tllcm, (9, 15, 21, 27)),
    "ipi": Method(lowrank.ipi, (50,)),
    "nram": Method(lowrank.nram, (50,)),
    "ript": Method(lowrank.ript, (30,)),
    "pstnn": Method(lowrank.pstnn, (40,)),
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


class Unfinished:
    """How far a call has come, in a file that the next one with the same settings continues from.

    Args:
        path: of the file.
        settings: all that the maps depend on, as JSON can say it; the code of the methods is added.

    Attributes:
        new: no call with these settings has begun.
        tried: (window, training image) pairs, window by window.
        counts: over them, windows x (background, target) x THRESHOLDS.
    """

    def __init__(self, path: Path, settings: dict):
        files = sorted(Path(__file__).parent.glob("*.py"))
        code = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        self.path, self.settings = path, json.loads(json.dumps(settings | {"code": code}))
        kept = read_json(path)
        self.new = kept.get("settings") != self.settings
        self.tried = 0 if self.new else kept["tried"]
        self.counts: list | None = None if self.new else kept["counts"]

    def write(self) -> None:
        kept = ("settings", "tried", "counts")
        write_json(self.path, {key: getattr(self, key) for key in kept}, indent=None)


def choose(
    train: Sequence[Item], method: str, workers: int, unfinished: Unfinished | None = None
) -> tuple[int, float, float]:
    """The window and threshold with the largest IoU over a training list, and that IoU."""
    windows = BASELINES[method].windows
    tried, counts = 0, np.zeros((len(windows), 2, len(THRESHOLDS)), np.int64)
    if unfinished and unfinished.tried:
        tried, counts = unfinished.tried, np.array(unfinished.counts)

    def keep() -> float:
        if unfinished:
            unfinished.tried, unfinished.counts = tried, counts.tolist()
            unfinished.write()
        return time.monotonic()

    written = keep()
    try:
        for number in range(tried // len(train), len(windows)):
            count = partial(histograms, method=method, window=windows[number])
            rest = Subset(train, range(tried % len(train), len(train)))
            label = f"{method} {windows[number]} px"
            for levels in progress(in_processes(count, rest, workers), label, len(rest)):
                counts[number] += levels
                tried += 1
                if time.monotonic() - written > WRITE_SECONDS:
                    written = keep()
    finally:
        keep()
    targets = sum(int((train[i].mask > 0).sum()) for i in range(len(train)))
    background, target = counts.swapaxes(0, 1)
    iou = target / np.maximum(targets + background, 1)
    number, level = np.unravel_index(iou.argmax(), iou.shape)
    return windows[number], float(THRESHOLDS[level]), float(iou.max())


def probability(item: Item, method: str, window: int, threshold: float) -> np.ndarray:
    """Scores as a probability map, HxW uint8: 0.5 at the threshold, 1 at twice the threshold."""
    score = scores(item.image, method, window) / (2 * threshold)
    return quantise(np.clip(score, 0, 1))


def run(
    frames: Sequence[Item],
    method: str,
    window: int,
    threshold: float,
    workers: int,
    done: dict[int, np.ndarray],
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields (i, pred, mask) of each frame, as `predict.infer` does; those that are done first."""
    for i, pred in done.items():
        yield i, pred, frames[i].mask
    rest = [i for i in range(len(frames)) if i not in done]
    make = partial(probability, method=method, window=window, threshold=threshold)
    for i, pred in zip(rest, in_processes(make, Subset(frames, rest), workers)):
        yield i, pred, frames[i].mask
