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

import cv2
import numpy as np
from torch.utils.data import Subset

from dataset import Frames, Item
from ismallnet.cli import in_processes, progress
from ismallnet.files import write_json
from ismallnet.metrics import quantise

THRESHOLDS = np.geomspace(0.5, 100, 500)  # standard deviations above an image's mean


# --- the methods: HxW float32 grey values, window in px -> HxW float32 scores -----------------------


def tophat(image: np.ndarray, window: int) -> np.ndarray:
    """White top-hat: what is brighter than its surroundings and smaller than the window."""
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (window, window))
    return cv2.morphologyEx(image, cv2.MORPH_TOPHAT, element)


def maxmedian(image: np.ndarray, window: int) -> np.ndarray:
    """Max-median filter (Deshpande et al., SPIE 1999): the image above its background, which is the
    largest of the medians along the four directions through a pixel, over an odd window."""
    radius = window // 2
    padded = cv2.copyMakeBorder(image, *[radius] * 4, cv2.BORDER_REFLECT)
    height, width = image.shape
    medians = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        steps = range(-radius, radius + 1)
        starts = [(radius + dy * step, radius + dx * step) for step in steps]
        line = np.stack([padded[y : y + height, x : x + width] for y, x in starts], axis=-1)
        medians.append(np.partition(line, radius, axis=-1)[..., radius])
    return np.maximum(image - np.max(medians, axis=0), 0)


def lcm(image: np.ndarray, window: int) -> np.ndarray:
    """Local contrast measure (Chen et al., TGRS 2014), the largest over cells of 3 px up to a third
    of the window: brightest pixel of a cell, squared, over the brightest mean of the eight cells
    around it."""
    height, width = image.shape
    score = np.zeros_like(image)
    for cell in range(3, window // 3 + 1, 2):
        peak = cv2.dilate(image, np.ones((cell, cell), np.uint8))
        means = cv2.copyMakeBorder(cv2.blur(image, (cell, cell)), *[cell] * 4, cv2.BORDER_REFLECT)
        offsets = [(y, x) for y in (0, cell, 2 * cell) for x in (0, cell, 2 * cell)]
        around = [means[y : y + height, x : x + width] for y, x in offsets if (y, x) != (cell, cell)]
        score = np.maximum(score, peak**2 / np.maximum(np.max(around, axis=0), 1))
    return score


def ipi(image: np.ndarray, window: int, stride: int = 10, steps: int = 100) -> np.ndarray:
    """Infrared patch-image model (Gao et al., TIP 2013): the matrix whose columns are the image's
    patches is split into a low-rank background and sparse targets, by robust principal component
    analysis with weight 1/sqrt(its longer side); overlapping patches are joined by their median.

    Solved by inexact augmented Lagrange multipliers (Lin et al., 2010), which reaches the same minimum
    as the paper's accelerated proximal gradient in fewer steps.
    """
    height, width = image.shape
    size = min(window, height, width)
    corners = [
        (y, x)
        for y in [*range(0, height - size, stride), height - size]
        for x in [*range(0, width - size, stride), width - size]
    ]
    columns = [image[y : y + size, x : x + size].ravel() for y, x in corners]
    patches = np.stack(columns, axis=1).astype(np.float64)
    norm = np.linalg.norm(patches)
    weight = 1 / np.sqrt(max(patches.shape))
    largest = np.sqrt(np.linalg.eigvalsh(patches.T @ patches)[-1])
    multiplier = patches / max(largest, np.abs(patches).max() / weight, 1e-9)
    penalty = 1.25 / max(largest, 1e-9)
    sparse = np.zeros_like(patches)
    for _ in range(steps):
        low_rank = shrink_rank(patches - sparse + multiplier / penalty, 1 / penalty)
        rest = patches - low_rank + multiplier / penalty
        sparse = np.sign(rest) * np.maximum(np.abs(rest) - weight / penalty, 0)
        gap = patches - low_rank - sparse
        multiplier += penalty * gap
        penalty *= 1.5
        if np.linalg.norm(gap) <= 1e-6 * norm:
            break
    count = np.zeros((height, width), np.int64)
    layers = np.full(((size // stride + 2) ** 2, height, width), np.inf)
    for (y, x), patch in zip(corners, sparse.T):
        at = tuple(np.mgrid[y : y + size, x : x + size])
        layers[(count[at], *at)] = patch.reshape(size, size)
        count[at] += 1
    layers[: count.max()].sort(axis=0)  # what a pixel has not got sorts last
    middle = [np.take_along_axis(layers, n[None], axis=0) for n in ((count - 1) // 2, count // 2)]
    return np.maximum(np.mean(middle, axis=0)[0], 0).astype(np.float32)


def shrink_rank(matrix: np.ndarray, threshold: float) -> np.ndarray:
    """Singular values less `threshold`, by the eigenvectors of the smaller Gram matrix."""
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    singular = np.sqrt(np.maximum(values, 0))
    kept = singular > threshold
    vectors = vectors[:, kept]
    return matrix @ (vectors * (1 - threshold / singular[kept])) @ vectors.T


@dataclass(frozen=True)
class Method:
    """A method and the windows to choose from, px."""

    score: Callable[[np.ndarray, int], np.ndarray]
    windows: tuple[int, ...]


BASELINES = {
    "tophat": Method(tophat, (5, 7, 9, 13, 17, 25)),
    "maxmedian": Method(maxmedian, (5, 7, 9, 13, 17, 25, 33, 41, 49)),
    "lcm": Method(lcm, (9, 15, 21, 27)),
    "ipi": Method(ipi, (50,)),
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
        settings: all that the maps depend on, as JSON can say it; this file's code is added.
    """

    def __init__(self, path: Path, settings: dict):
        code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        self.path, self.settings = path, json.loads(json.dumps(settings | {"code": code}))
        self.tried = 0  # (window, training image) pairs, window by window
        self.counts: list | None = None  # over them: windows x (background, target) x THRESHOLDS
        self.maps = False  # the maps that lie beside the file are of this
        try:
            kept = json.loads(path.read_text())
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
