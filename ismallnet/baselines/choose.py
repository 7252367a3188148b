"""Classical baselines: what one would try before a network, under the same metrics.

    python test.py --dataset NUAA-SIRST --baseline tophat --results results/tophat

Each gives an image of scores, brought to zero mean and unit variance image by image; the number of
standard deviations that makes a target, and the window, are chosen on the training list (largest
IoU over the set). The same command continues where it was interrupted.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch.utils.data import Subset

from dataset import Frames
from ismallnet.baselines import contrast, filters, lowrank
from ismallnet.cli import progress
from ismallnet.datasets.sample import Item
from ismallnet.evaluation.metrics import quantise
from ismallnet.files import write_json
from ismallnet.parallel import in_processes

# Standard deviations above an image's mean. The lowest are for sparse scores, 0 nearly everywhere.
THRESHOLDS = np.concatenate([np.geomspace(0.01, 0.5, 100, endpoint=False), np.geomspace(0.5, 100, 500)])


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


# --- on a list of frames ----------------------------------------------------------------------------


def scores(image: np.ndarray, method: str, window: int) -> np.ndarray:
    """HxWx3 image -> HxW float32 scores in standard deviations above their mean."""
    found = BASELINES[method].score(np.ascontiguousarray(image.mean(axis=2), np.float32), window)
    return (found - found.mean()) / max(float(found.std()), 1e-6)


def histograms(item: Item, method: str, window: int) -> np.ndarray:
    """(2, len(THRESHOLDS)) counts of background and target pixels with a score at or above each."""
    score, mask = scores(item.image, method, window), item.mask > 0
    passed = np.searchsorted(THRESHOLDS, score, side="right")  # how many thresholds each one passes
    levels = [np.bincount(passed[part], minlength=len(THRESHOLDS) + 1) for part in (~mask, mask)]
    return np.array([level[::-1].cumsum()[::-1][1:] for level in levels])


class Unfinished:
    """How far a call has come, in a file that the next one with the same settings continues from.

    Args:
        path: of the file.
        settings: all that the maps depend on, as JSON can say it; the code of the methods is added.
    """

    def __init__(self, path: Path, settings: dict):
        files = sorted(Path(__file__).parent.glob("*.py"))
        code = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        self.path, self.settings = path, json.loads(json.dumps(settings | {"code": code}))
        self.tried = 0  # (window, training image) pairs, window by window
        self.counts: list | None = None  # over them: windows x (background, target) x THRESHOLDS
        self.maps = False  # the maps that lie beside the file are of this
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if kept.pop("settings", None) == self.settings:
            vars(self).update(kept)

    def write(self) -> None:
        kept = ("settings", "tried", "counts", "maps")
        write_json(self.path, {key: getattr(self, key) for key in kept}, indent=None)


def choose(
    train: Frames, method: str, workers: int, unfinished: Unfinished | None = None
) -> tuple[int, float, float]:
    """The window and threshold with the largest IoU over a training list, and that IoU."""
    windows = BASELINES[method].windows
    tried, counts = 0, np.zeros((len(windows), 2, len(THRESHOLDS)), np.int64)
    if unfinished and unfinished.tried:
        tried, counts = unfinished.tried, np.array(unfinished.counts)

    def keep() -> None:
        if unfinished:
            unfinished.tried, unfinished.counts = tried, counts.tolist()
            unfinished.write()

    written = time.monotonic()
    try:
        for number in range(tried // len(train), len(windows)):
            first = tried % len(train)
            one = partial(histograms, method=method, window=windows[number])
            bar = progress((), f"{method} {windows[number]} px", len(train))
            bar.update(first)
            for levels in in_processes(one, Subset(train, range(first, len(train))), workers):
                counts[number] += levels
                tried += 1
                bar.update()
                if time.monotonic() - written > 20:
                    keep()
                    written = time.monotonic()
            bar.close()
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
    frames: Frames,
    method: str,
    window: int,
    threshold: float,
    workers: int,
    done: dict[int, np.ndarray],
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields (i, pred, mask) of each frame, as `inference.infer` does; those that are done first."""
    for i, pred in done.items():
        yield i, pred, frames[i].mask
    rest = [i for i in range(len(frames)) if i not in done]
    one = partial(probability, method=method, window=window, threshold=threshold)
    for i, pred in zip(rest, in_processes(one, Subset(frames, rest), workers)):
        yield i, pred, frames[i].mask
