"""What became of an image's targets and predictions: computed once, and shown by all figures."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ismallnet.evaluation.metrics import THRESHOLD, Components, components, match, overlap, ratio

COLOURS = {"miss": (255, 70, 70), "false alarm": (255, 215, 0), "hit": (60, 220, 90)}  # RGB
OUTCOMES = tuple(COLOURS)  # the worst first

Window = tuple[slice, slice]  # rows and columns of an image


class Layers(NamedTuple):
    """What there is to show of an image, all uint8."""

    image: np.ndarray  # (H, W, 3)
    mask: np.ndarray  # (H, W), as those below
    interior: np.ndarray
    boundary: np.ndarray
    prediction: np.ndarray


@dataclass(frozen=True)
class Region:
    """A connected component, and what became of it."""

    kind: str  # one of OUTCOMES
    box: Window
    pixels: np.ndarray  # which of the box are its own, bool
    centre: tuple[float, float]  # (y, x) of its centroid


@dataclass(frozen=True)
class Outcome:
    """The targets of a mask and the components of a map, under the standard protocol at p >= 0.5."""

    targets: list[Region]  # each "hit" or "miss", in row-major order
    regions: list[Region]  # misses, false alarms, and the components that hit, in this order
    iou: float  # 1 where both are empty
    centre: tuple[float, float]  # (y, x) of the first of the regions; of the image where there is none

    def count(self, kind: str) -> int:
        return sum(region.kind == kind for region in self.regions)


def outcome(pred: np.ndarray, mask: np.ndarray) -> Outcome:
    """The outcome of a map and a mask, HxW uint8 each."""
    p, g = pred >= THRESHOLD, mask >= THRESHOLD
    true, predicted = components(g), components(p)
    pairs, (tp, fp, fn) = match(true, predicted), overlap(p, g)
    targets = regions_of(true, {t for t, _ in pairs}, "miss")
    regions = [region for region in targets if region.kind == "miss"]
    regions += regions_of(predicted, {p for _, p in pairs}, "false alarm")
    regions.sort(key=lambda region: OUTCOMES.index(region.kind))
    centre = regions[0].centre if regions else tuple(side // 2 for side in mask.shape)
    return Outcome(targets, regions, ratio(tp, tp + fp + fn, empty=1.0), centre)


def regions_of(connected: Components, hits: set[int], otherwise: str) -> list[Region]:
    places = zip(connected.pieces(), connected.centroid.tolist())
    return [
        Region("hit" if k in hits else otherwise, box, pixels, tuple(centre))
        for k, ((box, pixels), centre) in enumerate(places)
    ]


def window_around(centre: tuple[float, float], shape: tuple[int, ...], side: int) -> Window:
    """The window of side x side px around a centre (y, x), moved so that it lies inside an image of a
    shape (H, W, …); smaller where the image is."""
    starts = (int(np.clip(at - side / 2, 0, max(n - side, 0))) for at, n in zip(centre, shape))
    return tuple(slice(start, min(start + side, n)) for start, n in zip(starts, shape))
