"""Components, matching, IoU, nIoU, Pd, Fa and their relatives (protocol `standard`), curves, local SNR;
pure functions on arrays.

Each image is counted once (`count_standard`), and the sums of the counts become figures
(`figures_standard`). All counts are integers: sums need no memory that grows with the set, and come
out the same whatever the order of the images or the number of processes. Protocols of others:
protocols.py. Confidence intervals: intervals.py.

Throughout, `pred` is a probability map as HxW uint8, round(255·p), and `mask` a ground truth as HxW
uint8 grey values. Components are 8-connected, labelled in row-major order of their first pixel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from scipy import ndimage, sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csgraph
from skimage.measure import label

THRESHOLD = 128  # of maps and masks: p >= 0.5
MATCH_DISTANCE = 3.0  # px between centroids, exclusive
ROUNDING = 1e-11  # px; 3 px up to rounding are not less than 3 px
PD_FA_THRESHOLDS = (1, *range(8, 249, 8), 255)
TIE = 1e-6  # px; distances are compared in steps of it
UNIT = 1 << 60  # fixed point for means over images: integer sums do not depend on the order


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


def fixed(value: float) -> int:
    return round(value * UNIT)


@dataclass(frozen=True)
class Components:
    """Connected components: areas (n,) in px and centroids (n, 2) as y, x; and, of an array, the
    window that holds them all: its labels 1...n, and its top left corner (y, x)."""

    area: np.ndarray
    centroid: np.ndarray
    labels: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.area)

    def at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Which component (0...n - 1) each of these pixels belongs to; all must lie in one."""
        if not len(y):
            return np.zeros(0, np.int64)
        return self.labels[y - self.corner[0], x - self.corner[1]].astype(np.int64) - 1

    def pieces(self) -> list[tuple[tuple[slice, slice], np.ndarray]]:
        """Of each its bounding box in the array, and its pixels in there (bool)."""
        if not len(self):
            return []
        found = []
        for k, box in enumerate(ndimage.find_objects(self.labels), start=1):
            place = tuple(slice(s.start + c, s.stop + c) for s, c in zip(box, self.corner))
            found.append((place, self.labels[box] == k))
        return found


def components(binary: np.ndarray) -> Components:
    """The 8-connected components of an HxW boolean array, in row-major order."""
    y, x = np.nonzero(binary)
    if not len(y):
        return Components(np.zeros(0, np.int64), np.zeros((0, 2)))
    top, left = y.min(), x.min()  # labels the bounding box only: targets are small
    window = binary[top : y.max() + 1, left : x.max() + 1]
    labels = label(window, connectivity=2)
    index = labels[y - top, x - left] - 1
    area = np.bincount(index)
    centroid = np.stack([np.bincount(index, y), np.bincount(index, x)], axis=1) / area[:, None]
    return Components(area, centroid, labels, (int(top), int(left)))


def distances(targets: Components, predicted: Components) -> np.ndarray:
    """Centroid distances, (targets, predicted), in px."""
    offset = targets.centroid[:, None] - predicted.centroid[None]
    return np.sqrt(np.square(offset).sum(axis=2))


# --- matching targets and predictions, standard protocol ------------------------------------------


def match(targets: Components, predicted: Components) -> list[tuple[int, int]]:
    """One-to-one pairs (target, predicted) whose centroids are less than 3 px apart.

    The most pairs; among those the smallest total distance, each distance in steps of TIE; among
    those the largest total area of the matched predictions. So totals that differ by less than TIE a
    pair may count as equal; what rounding does to distances (1e-15 px) decides nothing.
    """
    distance = distances(targets, predicted)
    near = distance < MATCH_DISTANCE - ROUNDING
    if not near.any():
        return []
    if near.sum(0).max() == 1 and near.sum(1).max() == 1:  # nothing to choose
        return [(int(t), int(p)) for t, p in zip(*np.nonzero(near))]
    pairs = []
    for t, p in clusters(near):
        within = np.ix_(t, p)
        chosen = assign(distance[within], near[within], predicted.area[p])
        pairs += [(int(t[row]), int(p[column])) for row, column in chosen]
    return sorted(pairs)


def clusters(near: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The targets and predictions (rows and columns) that chains of near pairs hold together."""
    t, p = np.nonzero(near)
    links = sparse.coo_array((np.ones(len(t)), (t, len(near) + p)), [sum(near.shape)] * 2)
    _, of_all = csgraph.connected_components(links, directed=False)
    of_targets, of_predicted = np.split(of_all, [len(near)])
    return [
        (np.flatnonzero(of_targets == k), np.flatnonzero(of_predicted == k))
        for k in np.unique(of_targets[t])
    ]


def assign(distance: np.ndarray, near: np.ndarray, area: np.ndarray) -> list[tuple[int, int]]:
    """The rows and columns of the largest matching of near pairs that costs least, as in `match`.

    One number holds the three criteria: a step of distance weighs more than all areas together, and
    a pair that is too far apart more than all steps together.
    """
    step = int(area.sum()) + 1
    far = (min(near.shape) + 1) * round(MATCH_DISTANCE / TIE) * step
    cost = np.where(near, np.rint(distance / TIE) * step - area, far)
    return [(t, p) for t, p in zip(*linear_sum_assignment(cost)) if near[t, p]]


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


def count_standard(pred: np.ndarray, mask: np.ndarray, threshold: int = THRESHOLD) -> dict[str, int]:
    p, g = pred >= THRESHOLD, mask >= threshold
    tp, fp, fn = (int(np.count_nonzero(x)) for x in (p & g, p & ~g, ~p & g))
    image_iou = fixed(ratio(tp, tp + fp + fn, empty=1.0))
    counts = {"images": 1, "tp": tp, "fp": fp, "fn": fn, "image_iou": image_iou}
    return counts | count_targets(p, components(g))


def figures_standard(n: Mapping[str, int]) -> dict[str, float | int | None]:
    """Figures from sums of `count_standard`; arrays of sums give arrays (intervals.py)."""
    return {
        "iou": ratio(n["tp"], n["tp"] + n["fp"] + n["fn"], empty=1.0),
        "niou": ratio(n["image_iou"], n["images"] * UNIT),
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
    rows, last = [], (-1, None)
    for t in PD_FA_THRESHOLDS:
        binary = pred >= t
        size = int(np.count_nonzero(binary))
        if size != last[0]:  # as many pixels above a higher threshold are the same pixels
            last = size, count_targets(binary, targets)
        rows.append([last[1][key] for key in ("targets", "matched", "false_pixels", "pixels")])
    return np.array(rows, np.int64)


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
