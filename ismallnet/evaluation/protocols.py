"""The protocols that are in use: what each counts of an image, and the metrics from the sums.

`standard` is metrics.py's. The others are those of public programs, with their slips, so that a number
can be set beside a published one. Throughout, `pred` is a probability map as HxW uint8, round(255·p),
and `mask` a ground truth as HxW uint8 grey values.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from ismallnet.evaluation.metrics import (
    MATCH_DISTANCE,
    THRESHOLD,
    Components,
    components,
    count_standard,
    distances,
    metrics_standard,
    overlap,
    ratio,
    total,
)
from ismallnet.evaluation.tables import LOCALISATION, SEGMENTATION

# --- BasicIRSTD, DNANet, SCTransNet, iSmallNet's authors ------------------------------------------


def first_come_matches(targets: Components, predicted: Components) -> list[int]:
    """The public programs' matching: each target in turn gets the first component left that lies
    less than 3 px away. Returns these components."""
    matched: list[int] = []
    for row in distances(targets, predicted):
        near = (int(p) for p in np.flatnonzero(row < MATCH_DISTANCE) if p not in matched)
        if (p := next(near, None)) is not None:
            matched.append(p)
    return matched


def count_basicirstd(pred: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """BasicIRSTD's counts, and the false pixels with DNANet's slip: there a component is false
    only if its area differs from that of every matched one in the image."""
    p, g = pred >= THRESHOLD, mask == 255
    targets, predicted = components(g), components(p)
    matched = first_come_matches(targets, predicted)
    false = np.delete(predicted.area, matched)
    tp, fp, fn = overlap(p, g)
    return {
        "images": 1,
        "intersection": tp,
        "union": fp + int(np.count_nonzero(mask >= 128)),
        "image_niou": tp / (tp + fp + fn + 2.0**-52),  # sctransnet's: 0 where both are empty
        "targets": len(targets),
        "matched": len(matched),
        "false_pixels": int(false.sum()),
        "slip_pixels": int(false[~np.isin(false, predicted.area[matched])].sum()),
        "pixels": p.size,
    }


def count_dnanet(pred: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The same after bringing both to 256x256, where DNANet runs its network."""
    if pred.shape != (256, 256):
        pred = cv2.resize(pred, (256, 256), interpolation=cv2.INTER_LINEAR)
    if mask.shape != (256, 256):
        mask = cv2.resize(mask, (256, 256), interpolation=cv2.INTER_NEAREST)
    return count_basicirstd(pred, mask)


def metrics_basicirstd(n: Mapping[str, float], false: str = "false_pixels") -> dict[str, float | None]:
    return {
        "iou": ratio(n["intersection"], n["union"]),
        "pd": ratio(n["matched"], n["targets"]),
        "fa": ratio(n[false], n["pixels"]),
    }


def metrics_sctransnet(n: Mapping[str, float]) -> dict[str, float | None]:
    return {"niou": ratio(n["image_niou"], n["images"]), **metrics_basicirstd(n, "slip_pixels")}


def count_authors(pred: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """iSmallNet's eval.py: any probability from 1/255 up counts; an empty denominator counts 0."""
    p, g = pred > 0, mask > 0
    tp, fp, fn = overlap(p, g)
    return {
        "images": 1,
        "iou": ratio(tp, tp + fp + fn, empty=0.0),
        "precision": ratio(tp, tp + fp, empty=0.0),
        "recall": ratio(tp, tp + fn, empty=0.0),
        "md": fn / p.size,
        "fa": fp / p.size,
    }


def metrics_authors(n: Mapping[str, float]) -> dict[str, float | None]:
    keys = ("iou", "precision", "recall", "md", "fa")
    iou, p, r, md, fa = (ratio(n[key], n["images"]) for key in keys)
    f1 = None if p is None else ratio(2 * p * r, p + r, empty=0.0)
    return {"iou": iou, "precision": p, "recall": r, "f1": f1, "md": md, "fa": fa}


# --- hIoU: how well targets are detected, times how well these are segmented -----------------------


def match_hiou(
    distance: np.ndarray, well: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The targets and the components of hIoU's pairs: those of the assignment with the smallest total
    distance that overlap well; then, of the assignment of those left, those that are near."""
    left = [np.arange(n) for n in distance.shape]
    pairs = np.empty((2, 0), int)
    for allowed in (well, near):
        chosen = linear_sum_assignment(distance[np.ix_(*left)])
        rows, columns = (side[k] for side, k in zip(left, chosen))
        kept = allowed[rows, columns]
        pairs = np.hstack([pairs, (rows[kept], columns[kept])])
        left = [np.setdiff1d(side, used) for side, used in zip(left, pairs)]
    return pairs[0], pairs[1]


def shared_pixels(targets: Components, predicted: Components) -> np.ndarray:
    """(targets, components) integers: the pixels that each pair shares."""
    shared = np.zeros((len(targets) + 1, len(predicted) + 1), int)
    np.add.at(shared, (targets.labels, predicted.labels), 1)
    return shared[1:, 1:]


def count_hiou(pred: np.ndarray, mask: np.ndarray, threshold: int = THRESHOLD) -> dict[str, float]:
    """What one image adds to hIoU and to the error split.

    Pang et al., "Rethinking Evaluation of Infrared Small Target Detection", NeurIPS 2025. The counts
    `seg_…` are sums over the matched pairs; `loc_…` are numbers of targets and components.
    """
    p, g = pred >= THRESHOLD, mask >= threshold
    targets, predicted = components(g), components(p)
    distance, shared = distances(targets, predicted), shared_pixels(targets, predicted)
    union = targets.area[:, None] + predicted.area[None] - shared
    well, near = 2 * shared >= union, distance < MATCH_DISTANCE  # rounded as in their program
    t, c = match_hiou(distance, well, near)
    own, on_targets, u = shared[t, c], shared.sum(axis=0)[c], union[t, c]
    candidate = well | near
    alone = int(np.count_nonzero(~candidate.any(axis=0)))  # components that no target is near
    unseen = int(np.count_nonzero(~candidate.any(axis=1)))
    return {
        "images": 1,
        "pairs": len(t),
        "seg_iou": math.fsum(own / u),
        "seg_mrg_err": math.fsum((on_targets - own) / u),
        "seg_itf_err": math.fsum((predicted.area[c] - on_targets) / u),
        "seg_pcp_err": math.fsum((targets.area[t] - own) / u),
        "loc_itf_err": alone,
        "loc_pcp_err": unseen,
        "loc_m2s_err": len(predicted) - len(c) - alone,
        "loc_s2m_err": len(targets) - len(t) - unseen,
        "without_components": int(not len(predicted)),
        "without_targets": int(not len(targets)),
        "false_pixels": int(np.delete(predicted.area, c).sum()),
        "pixels": p.size,
    }


def metrics_hiou(n: Mapping[str, float], slip: bool = False) -> dict[str, float]:
    """hIoU, its factors and the error split; a denominator of 0 gives 0.

    Args:
        slip: as pyirstdmetrics 1.0.2: an image without components counts one false component too
            many, an image without targets one missed target.
    """
    loc = {key: n["pairs" if key == "loc_iou" else key] for key in LOCALISATION}
    if slip:
        loc["loc_itf_err"] = loc["loc_itf_err"] + n["without_components"]
        loc["loc_pcp_err"] = loc["loc_pcp_err"] + n["without_targets"]
    every = sum(loc.values())
    seg = {key: ratio(n[key], n["pairs"], 0.0) for key in SEGMENTATION}
    shares = {key: ratio(count, every, 0.0) for key, count in loc.items()}
    targets = n["pairs"] + loc["loc_pcp_err"] + loc["loc_s2m_err"]
    return {
        "hiou": seg["seg_iou"] * shares["loc_iou"],
        **seg,
        **shares,
        "pd": ratio(n["pairs"], targets, 0.0),
        "fa": ratio(n["false_pixels"], n["pixels"], 0.0),
    }


# --- all of them -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Protocol:
    """What is counted of an image, and the metrics from the sums of these counts."""

    count: Callable[..., dict[str, float]]
    metrics: Callable[[Mapping[str, float]], dict[str, float | int | None]]
    threshold: bool = False  # whether `count` can use another threshold of the mask


PROTOCOLS = {
    "standard": Protocol(count_standard, metrics_standard, threshold=True),
    "basicirstd": Protocol(count_basicirstd, metrics_basicirstd),
    "dnanet": Protocol(count_dnanet, partial(metrics_basicirstd, false="slip_pixels")),
    "sctransnet": Protocol(count_basicirstd, metrics_sctransnet),
    "authors": Protocol(count_authors, metrics_authors),
    "hiou": Protocol(count_hiou, metrics_hiou, threshold=True),
    "pyirstdmetrics": Protocol(count_hiou, partial(metrics_hiou, slip=True), threshold=True),
}


def count_image(
    pred: np.ndarray, mask: np.ndarray, names: Iterable[str], threshold: int = THRESHOLD
) -> dict[str, dict[str, float]]:
    """One image's counts, by protocol.

    Args:
        threshold: of the mask, for the protocols that can use another one.
    """
    counts: dict[Callable, dict[str, float]] = {}  # some protocols share what they count
    for protocol in (PROTOCOLS[name] for name in names):
        if protocol.count not in counts:
            options = {"threshold": threshold} if protocol.threshold else {}
            counts[protocol.count] = protocol.count(pred, mask, **options)
    return {name: counts[PROTOCOLS[name].count] for name in names}


def evaluate(pairs, protocol: str = "standard") -> dict[str, float | int | None]:
    """A protocol's metrics for (pred, mask) pairs, HxW uint8 each; fractions, None where undefined.

    Raises:
        ValueError: no such protocol, or a map and its mask differ in shape.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: found {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    counts = []
    for pred, mask in pairs:
        if pred.shape != mask.shape:
            raise ValueError(f"map {pred.shape} and mask {mask.shape} differ in shape")
        counts.append(PROTOCOLS[protocol].count(pred, mask))
    return PROTOCOLS[protocol].metrics(total(counts))
