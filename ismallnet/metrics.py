"""IoU, nIoU, Pd, Fa and their relatives, under the protocols in use; pure functions on arrays.

A protocol counts each image once (`count`) and turns the sums of the counts into figures
(`figures`). All counts are integers: sums need no memory that grows with the set, and come out the
same whatever the order of the images or the number of processes.

Throughout, `pred` is a probability map as HxW uint8, round(255·p), and `mask` a ground truth as HxW
uint8 grey values. Components are 8-connected, labelled in row-major order of their first pixel.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, stdev

import cv2
import numpy as np
from scipy import ndimage, sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csgraph
from skimage.measure import label

THRESHOLD = 128  # of maps and masks: p >= 0.5
MATCH_DISTANCE = 3.0  # px between centroids, exclusive
PD_FA_THRESHOLDS = (1, *range(8, 249, 8), 255)
EPSILON = 2.0**-52
TIE = 1e-6  # px; distances are compared in steps of it
UNIT = 1 << 60  # fixed point for means over images: integer sums do not depend on the order


def quantise(probability: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1] -> uint8 round(255·p), half to even: what is saved and evaluated."""
    exact = probability.astype(np.float64) * 255  # float32 would round before rint does
    return np.rint(exact).astype(np.uint8)


def ratio(a: float, b: float) -> float | None:
    """a / b, or None where there is nothing to divide by."""
    return a / b if b else None


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
    near = distance < MATCH_DISTANCE - 1e-11  # 3 px up to rounding are not less than 3 px
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


# --- the protocols --------------------------------------------------------------------------------


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
    image_iou = tp / (tp + fp + fn) if tp + fp + fn else 1.0
    counts = {"images": 1, "tp": tp, "fp": fp, "fn": fn, "image_iou": fixed(image_iou)}
    return counts | count_targets(p, components(g))


def figures_standard(n: dict[str, int]) -> dict[str, float | int | None]:
    union = n["tp"] + n["fp"] + n["fn"]
    return {
        "iou": n["tp"] / union if union else 1.0,
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


def first_come_matches(targets: Components, predicted: Components) -> list[int]:
    """The public programs' matching: each target in turn takes the first component left that lies
    less than 3 px away. Returns the components taken."""
    taken: list[int] = []
    for row in distances(targets, predicted):
        near = (int(p) for p in np.flatnonzero(row < MATCH_DISTANCE) if p not in taken)
        if (p := next(near, None)) is not None:
            taken.append(p)
    return taken


def count_basicirstd(pred: np.ndarray, mask: np.ndarray) -> dict[str, int]:
    """BasicIRSTD's counts, and the false pixels with DNANet's slip: there a component is false
    only if its area differs from that of every matched one in the image."""
    p, g = pred >= THRESHOLD, mask == 255
    targets, predicted = components(g), components(p)
    taken = first_come_matches(targets, predicted)
    false = np.delete(predicted.area, taken)
    tp, fp, fn = (int(np.count_nonzero(x)) for x in (p & g, p & ~g, ~p & g))
    image_niou = tp / (tp + fp + fn + EPSILON)  # sctransnet's: 0 where both are empty
    return {
        "images": 1,
        "intersection": tp,
        "union": int(np.count_nonzero(p)) + int(np.count_nonzero(mask >= 128)) - tp,
        "image_niou": fixed(image_niou),
        "targets": len(targets),
        "matched": len(taken),
        "false_pixels": int(false.sum()),
        "slip_pixels": int(false[~np.isin(false, predicted.area[taken])].sum()),
        "pixels": p.size,
    }


def count_dnanet(pred: np.ndarray, mask: np.ndarray) -> dict[str, int]:
    """The same after bringing both to 256x256, where DNANet runs its network."""
    if pred.shape != (256, 256):
        pred = cv2.resize(pred, (256, 256), interpolation=cv2.INTER_LINEAR)
    if mask.shape != (256, 256):
        mask = cv2.resize(mask, (256, 256), interpolation=cv2.INTER_NEAREST)
    return count_basicirstd(pred, mask)


def figures_peer(n: dict[str, int], false: str) -> dict[str, float | None]:
    return {
        "iou": ratio(n["intersection"], n["union"]),
        "pd": ratio(n["matched"], n["targets"]),
        "fa": ratio(n[false], n["pixels"]),
    }


def count_authors(pred: np.ndarray, mask: np.ndarray) -> dict[str, int]:
    """iSmallNet's eval.py: any probability from 1/255 up counts; an empty denominator counts 0."""
    p, g = pred > 0, mask > 0
    tp, fp, fn = (int(np.count_nonzero(x)) for x in (p & g, p & ~g, ~p & g))
    means = {
        "iou": ratio(tp, tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "md": fn / p.size,
        "fa": fp / p.size,
    }
    return {"images": 1} | {key: fixed(value or 0.0) for key, value in means.items()}


def figures_authors(n: dict[str, int]) -> dict[str, float | None]:
    keys = ("iou", "precision", "recall", "md", "fa")
    mean = {key: ratio(n[key], n["images"] * UNIT) for key in keys}
    f1 = None
    if mean["precision"] is not None:
        f1 = ratio(2 * mean["precision"] * mean["recall"], mean["precision"] + mean["recall"]) or 0.0
    return {**{key: mean[key] for key in keys[:3]}, "f1": f1, "md": mean["md"], "fa": mean["fa"]}


@dataclass(frozen=True)
class Protocol:
    count: Callable[[np.ndarray, np.ndarray], dict[str, int]]
    figures: Callable[[dict[str, int]], dict[str, float | int | None]]


PROTOCOLS = {
    "standard": Protocol(count_standard, figures_standard),
    "basicirstd": Protocol(count_basicirstd, lambda n: figures_peer(n, "false_pixels")),
    "dnanet": Protocol(count_dnanet, lambda n: figures_peer(n, "slip_pixels")),
    "sctransnet": Protocol(
        count_basicirstd,
        lambda n: {
            "niou": ratio(n["image_niou"], n["images"] * UNIT),
            **figures_peer(n, "slip_pixels"),
        },
    ),
    "authors": Protocol(count_authors, figures_authors),
}


def evaluate(pairs, protocol: str = "standard") -> dict[str, float | int | None]:
    """A protocol's figures for (pred, mask) pairs, HxW uint8 each; fractions, None where undefined.

    Raises:
        ValueError: no such protocol, or a map and its mask differ in shape.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: found {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    total: Counter = Counter()
    for pred, mask in pairs:
        if pred.shape != mask.shape:
            raise ValueError(f"map {pred.shape} and mask {mask.shape} differ in shape")
        total.update(PROTOCOLS[protocol].count(pred, mask))
    return PROTOCOLS[protocol].figures(total)


NAMES = {  # for people
    **{"iou": "IoU", "niou": "nIoU", "pd": "Pd", "fa": "Fa·1e6", "precision": "precision"},
    **{"recall": "recall", "f1": "F1", "target_precision": "target P", "target_f1": "target F1"},
    **{"md": "MD·1e6", "auc": "AUC"},
}


def spread(runs: list[dict]) -> dict[str, tuple[float, float] | None]:
    """Mean and standard deviation (of a sample, n - 1) of each figure over two or more runs; None
    where a run has none."""
    values = {key: [figures[key] for figures in runs] for key in runs[0]}
    return {
        key: None if None in found else (mean(found), stdev(found)) for key, found in values.items()
    }


def shown(key: str, value: float | tuple[float, float] | None) -> str:
    """A figure as people read it: fractions in %, Fa and MD in 1e-6, undefined ones n/a; a pair is
    mean ± standard deviation."""
    if value is None:
        return "n/a"
    if isinstance(value, tuple):
        return " ± ".join(shown(key, part) for part in value)
    return f"{1e6 * value:.2f}" if key in ("fa", "md") else f"{100 * value:.2f}"


def summary(figures: dict) -> str:
    """IoU 71.23 nIoU 70.10 Pd 95.06 Fa·1e6 12.10, as people read it."""
    return " ".join(f"{NAMES[k]} {shown(k, figures[k])}" for k in ("iou", "niou", "pd", "fa"))


def table(rows: dict[str, dict]) -> str:
    """Figures of several protocols or sets side by side, as text; "-" where one does not define it."""
    keys = [key for key in NAMES if any(key in figures for figures in rows.values())]
    cells = [["", *(NAMES[key] for key in keys)]]
    for name, figures in rows.items():
        cells.append([name, *(shown(k, figures[k]) if k in figures else "-" for k in keys)])
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, widths)) for row in cells)


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
