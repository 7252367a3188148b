"""Components, matching, IoU, nIoU, Pd, Fa and their relatives (protocol `standard`), curves, local SNR.

Each image is counted once (`count_standard`); the sums of the counts (`total`) become the metrics of a
set (`metrics_standard`), the same whatever the order of the images.

Throughout, `pred` is a probability map as HxW uint8, round(255·p), and `mask` a ground truth as HxW
uint8 grey values. Components are 8-connected, labelled in row-major order of their first pixel.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

THRESHOLD = 128  # of maps and masks: p >= 0.5
MATCH_DISTANCE = 3.0  # px between centroids, exclusive
DISTANCE_ROUNDING = 1e-11  # px; 3 px up to rounding are not less than 3 px
TIE = 1e-9  # px; total distances that differ by less are equal
PD_FA_THRESHOLDS = (1, *range(8, 249, 8), 255)


def quantise(probability: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1] -> uint8 round(255·p), half to even: what is saved and evaluated."""
    exact = probability.astype(np.float64) * 255  # float32 would round before rint does
    return np.rint(exact).astype(np.uint8)


def ratio(a, b, empty: float | None = None):
    """a / b, or `empty` where there is nothing to divide by; numbers, or arrays in which an `empty` of
    None becomes NaN."""
    if isinstance(b, np.ndarray):
        otherwise = np.full(b.shape, np.nan if empty is None else empty)
        return np.divide(a, b, out=otherwise, where=b != 0)
    return a / b if b else empty


def overlap(p: np.ndarray, g: np.ndarray) -> tuple[int, int, int]:
    """The numbers of true positives, false positives and false negatives of two boolean arrays."""
    tp = int(np.count_nonzero(p & g))
    return tp, int(np.count_nonzero(p)) - tp, int(np.count_nonzero(g)) - tp


def total(counts: Iterable[Mapping[str, float]]) -> Counter:
    """The sums of images' counts by key, exact before they are rounded; 0 for any key of no images."""
    rows = list(counts)
    sums = Counter()
    for key, value in rows[0].items() if rows else ():
        add = sum if isinstance(value, int) else math.fsum
        sums[key] = add(row[key] for row in rows)
    return sums


@dataclass(frozen=True)
class Components:
    """Connected components: areas (n,) in px, centroids (n, 2) as y, x, and their array of labels, HxW:
    1...n, and 0 between them."""

    area: np.ndarray
    centroid: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.area)

    def pieces(self) -> list[tuple[tuple[slice, slice], np.ndarray]]:
        """Of each its bounding box in the array, and its pixels in there (bool)."""
        boxes = ndimage.find_objects(self.labels)
        return [(box, self.labels[box] == k) for k, box in enumerate(boxes, start=1)]


def components(binary: np.ndarray) -> Components:
    """The 8-connected components of an HxW boolean array, in row-major order."""
    y, x = np.nonzero(binary)
    labels = np.zeros(binary.shape, np.int32)
    if len(y):  # labels the bounding box of all only: targets are small
        window = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
        ndimage.label(binary[window], np.ones((3, 3)), output=labels[window])
    index = labels[y, x] - 1
    area = np.bincount(index)
    centroid = np.stack([np.bincount(index, y), np.bincount(index, x)], axis=1) / area[:, None]
    return Components(area, centroid, labels)


def distances(targets: Components, predicted: Components) -> np.ndarray:
    """Centroid distances, (targets, predicted), in px."""
    offset = targets.centroid[:, None] - predicted.centroid[None]
    return np.sqrt(np.square(offset).sum(axis=2))


# --- matching targets and predictions, standard protocol ------------------------------------------


def match(targets: Components, predicted: Components) -> list[tuple[int, int]]:
    """One-to-one pairs (target, predicted) whose centroids are less than 3 px apart.

    The most pairs; among those the smallest total distance; among those that are equal in that (TIE)
    the largest total area of the matched predictions.
    """
    distance = distances(targets, predicted)
    near = distance < MATCH_DISTANCE - DISTANCE_ROUNDING
    t, p = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    if len(t) == len(p) == near.sum():  # nothing to choose
        return [(int(k), int(near[k].argmax())) for k in t]
    within = np.ix_(t, p)
    chosen = assign(distance[within], near[within], predicted.area[p])
    return [(int(t[row]), int(p[column])) for row, column in chosen]


def assign(distance: np.ndarray, near: np.ndarray, area: np.ndarray) -> list[tuple[int, int]]:
    """The rows and columns of the largest matching of near pairs that costs least, as in `match`."""
    side = max(near.shape)
    allowed, gain = np.zeros((2, side, side))  # square: rows or columns that stay free are added
    allowed[: near.shape[0], : near.shape[1]] = near
    gain[: near.shape[0], : near.shape[1]] = near * area
    cost = np.full((side, side), MATCH_DISTANCE * (side + 1))  # more than all near pairs together
    cost[allowed > 0] = distance[near]
    best = np.where(lossless(cost), -gain, gain.sum() + 1)
    return [(t, p) for t, p in zip(*linear_sum_assignment(best)) if allowed[t, p]]


def lossless(cost: np.ndarray) -> np.ndarray:
    """The entries of a square cost matrix, bool, that assignments with the smallest total consist of.

    Source: complementary slackness. With the potentials u, v of an optimal assignment every entry has
    cost[i, j] - u[i] - v[j] >= 0; an assignment is optimal where all of its entries have 0.
    """
    rows, columns = linear_sum_assignment(cost)
    detour = cost[:, columns] - cost[rows, columns][:, None]  # of giving row i the column of row j
    potential = np.zeros(len(cost))
    for _ in rows:  # shortest paths (Bellman and Ford)
        shorter = np.minimum(potential, (potential[:, None] + detour).min(axis=0))
        if (shorter > potential - TIE / 1000).all():
            break
        potential = shorter
    slack = np.empty_like(cost)
    slack[:, columns] = detour + potential[:, None] - potential[None]
    return slack < TIE


# --- the standard protocol ------------------------------------------------------------------------


def count_targets(binary: np.ndarray, targets: Components) -> dict[str, int]:
    """Targets, matched ones, predicted components and false pixels of one image, standard."""
    predicted = components(binary)
    pairs = match(targets, predicted)
    matched_area = sum(int(predicted.area[p]) for _, p in pairs)
    return {
        "targets": len(targets),
        "matched": len(pairs),
        "components": len(predicted),
        "false_pixels": int(predicted.area.sum()) - matched_area,
        "pixels": binary.size,
    }


def count_standard(pred: np.ndarray, mask: np.ndarray, threshold: int = THRESHOLD) -> dict[str, float]:
    """What one image adds to the standard metrics: numbers of pixels and components, and its IoU."""
    p, g = pred >= THRESHOLD, mask >= threshold
    tp, fp, fn = overlap(p, g)
    counts = {"images": 1, "tp": tp, "fp": fp, "fn": fn}
    counts["image_iou"] = ratio(tp, tp + fp + fn, empty=1.0)
    return counts | count_targets(p, components(g))


def metrics_standard(n: Mapping[str, float]) -> dict[str, float | int | None]:
    """Metrics from the sums of `count_standard`; arrays of sums give arrays (intervals.py)."""
    return {
        "iou": ratio(n["tp"], n["tp"] + n["fp"] + n["fn"], empty=1.0),
        "niou": ratio(n["image_iou"], n["images"]),
        "pd": ratio(n["matched"], n["targets"]),
        "fa": ratio(n["false_pixels"], n["pixels"]),
        "precision": ratio(n["tp"], n["tp"] + n["fp"]),
        "recall": ratio(n["tp"], n["tp"] + n["fn"]),
        "f1": ratio(2 * n["tp"], 2 * n["tp"] + n["fp"] + n["fn"]),
        "target_precision": ratio(n["matched"], n["components"]),
        "target_f1": ratio(2 * n["matched"], n["targets"] + n["components"]),
        **{key: n[key] for key in ("images", "targets", "matched", "components")},
    }


# --- curves ---------------------------------------------------------------------------------------


def count_levels(pred: np.ndarray, mask: np.ndarray, threshold: int = THRESHOLD) -> np.ndarray:
    """(2, 256) counts of the map's values on background and on target pixels; add them up over a
    set for `pixel_curves`."""
    g = mask >= threshold
    on_target = np.bincount(pred[g], minlength=256)
    return np.stack([np.bincount(pred.ravel(), minlength=256) - on_target, on_target])


def pixel_curves(levels: np.ndarray) -> list[dict[str, float | int | None]]:
    """ROC and precision-recall, pixels pooled over the set: one point for each t = 1...255."""
    negatives, positives = (int(n) for n in levels.sum(axis=1))
    points = []
    for t in range(1, 256):
        fp, tp = (int(n) for n in levels[:, t:].sum(axis=1))
        recall = ratio(tp, positives)
        point = {"threshold": t, "tp": tp, "fp": fp, "fpr": ratio(fp, negatives), "tpr": recall}
        points.append({**point, "precision": ratio(tp, tp + fp), "recall": recall})
    return points


def auc(points: list[dict]) -> float | None:
    """Area under the ROC by trapezoids, with (0, 0) and (1, 1) added."""
    curve = [(0.0, 0.0), *((p["fpr"], p["tpr"]) for p in reversed(points)), (1.0, 1.0)]
    if any(value is None for point in curve for value in point):
        return None
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(curve))


def count_pd_fa(pred: np.ndarray, mask: np.ndarray, threshold: int = THRESHOLD) -> np.ndarray:
    """(33, 4) integers: targets, matched, false pixels and pixels at each of PD_FA_THRESHOLDS."""
    targets = components(mask >= threshold)
    counts = [count_targets(pred >= t, targets) for t in PD_FA_THRESHOLDS]
    keys = ("targets", "matched", "false_pixels", "pixels")
    return np.array([[n[key] for key in keys] for n in counts], np.int64)


def pd_fa_curve(counts: np.ndarray) -> list[dict[str, float | int | None]]:
    """Pd and Fa at the 33 thresholds, from the sum of `count_pd_fa` over a set."""
    return [
        {"threshold": t, "pd": ratio(matched, targets), "fa": ratio(false, pixels)}
        for t, (targets, matched, false, pixels) in zip(PD_FA_THRESHOLDS, counts.tolist())
    ]


# --- a target and its surroundings --------------------------------------------------------------------


def ring(mask: np.ndarray) -> np.ndarray:
    """The pixels 3 to 7 px (chessboard distance) from a mask: HxW bool."""
    near, far = (cv2.dilate(mask.astype(np.uint8), np.ones((k, k), np.uint8)) for k in (5, 15))
    return (far > 0) & (near == 0)


def local_snr(image: np.ndarray, mask: np.ndarray) -> float:
    """Mean target minus mean of the ring around it, over the ring's standard deviation.

    Args:
        image: HxW grey values.
        mask: HxW, non-zero on one target.
    """
    around = image[ring(mask > 0)].astype(np.float64)
    return (float(image[mask > 0].mean()) - around.mean()) / max(around.std(), 1e-6)
