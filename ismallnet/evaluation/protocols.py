"""The protocols that are in use: what each counts of an image, and the figures of the sums.

`standard` is metrics.py's. The others are those of public programs, with their slips, so that a number
can be set beside a published one. Throughout, `pred` is a probability map as HxW uint8, round(255·p),
and `mask` a ground truth as HxW uint8 grey values.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from ismallnet.evaluation.metrics import (
    MATCH_DISTANCE,
    THRESHOLD,
    UNIT,
    Components,
    components,
    count_standard,
    distances,
    figures_standard,
    fixed,
    ratio,
)
from ismallnet.evaluation.tables import LOCALISATION, SEGMENTATION

EPSILON = 2.0**-52

# --- BasicIRSTD, DNANet, SCTransNet, iSmallNet's authors ------------------------------------------


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


def figures_peer(n: Mapping[str, int], false: str) -> dict[str, float | None]:
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
        "iou": ratio(tp, tp + fp + fn, empty=0.0),
        "precision": ratio(tp, tp + fp, empty=0.0),
        "recall": ratio(tp, tp + fn, empty=0.0),
        "md": fn / p.size,
        "fa": fp / p.size,
    }
    return {"images": 1} | {key: fixed(value) for key, value in means.items()}


def figures_authors(n: Mapping[str, int]) -> dict[str, float | None]:
    keys = ("iou", "precision", "recall", "md", "fa")
    mean = {key: ratio(n[key], n["images"] * UNIT) for key in keys}
    p, r = mean["precision"], mean["recall"]
    f1 = None if p is None else ratio(2 * p * r, p + r, empty=0.0)
    return {**{key: mean[key] for key in keys[:3]}, "f1": f1, "md": mean["md"], "fa": mean["fa"]}


# --- hIoU: found times segmented, and where the rest is lost ---------------------------------------


def nearest_pairs(distance: np.ndarray, allowed: np.ndarray) -> list[tuple[int, int]]:
    """Of the assignment of all rows to all columns with the smallest total, the pairs that are
    allowed."""
    return [(int(t), int(p)) for t, p in zip(*linear_sum_assignment(distance)) if allowed[t, p]]


def match_hiou(
    distance: np.ndarray, well: np.ndarray, near: np.ndarray
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """The matching in two steps: pairs that overlap well first, then, among those left, near ones.

    Args:
        distance, well, near: (targets, components): centroid distance, whether the IoU is at least
            0.5, whether the distance is less than 3 px.

    Returns:
        The pairs; the targets left; the components left.
    """

    def left() -> tuple[list[int], list[int]]:
        return tuple(
            [k for k in range(count) if k not in taken]
            for count, taken in zip(distance.shape, map(set, zip(*pairs) if pairs else ((), ())))
        )

    pairs = nearest_pairs(distance, well)
    targets, predicted = left()
    free = np.ix_(targets, predicted)
    pairs += [(targets[t], predicted[p]) for t, p in nearest_pairs(distance[free], near[free])]
    return pairs, *left()


def overlaps(targets: Components, predicted: Components, both: np.ndarray) -> np.ndarray:
    """(targets, components) integers: the pixels that each pair shares.

    Args:
        both: HxW, the pixels that lie in a target and in a component.
    """
    place = np.nonzero(both)
    pair = targets.at(*place) * len(predicted) + predicted.at(*place)
    shape = len(targets), len(predicted)
    return np.bincount(pair, minlength=shape[0] * shape[1]).reshape(shape)


def count_hiou(pred: np.ndarray, mask: np.ndarray, threshold: int = THRESHOLD) -> dict[str, int]:
    """What one image adds to hIoU and to the error split.

    Pang et al., "Rethinking Evaluation of Infrared Small Target Detection", NeurIPS 2025. The counts
    `seg_…` are sums over the matched pairs, in fixed point; `loc_…` are numbers of targets and
    components.
    """
    p, g = pred >= THRESHOLD, mask >= threshold
    targets, predicted = components(g), components(p)
    distance, shared = distances(targets, predicted), overlaps(targets, predicted, p & g)
    union = targets.area[:, None] + predicted.area[None] - shared
    well, near = 2 * shared >= union, distance < MATCH_DISTANCE  # rounded as in their program
    pairs, missed, false = match_hiou(distance, well, near)
    lost = Counter()
    for t, c in pairs:
        on_targets, own, u = int(shared[:, c].sum()), int(shared[t, c]), int(union[t, c])
        lost["seg_iou"] += fixed(own / u)
        lost["seg_mrg_err"] += fixed((on_targets - own) / u)
        lost["seg_itf_err"] += fixed((int(predicted.area[c]) - on_targets) / u)
        lost["seg_pcp_err"] += fixed((int(targets.area[t]) - own) / u)
    candidate = well | near
    alone = int(np.count_nonzero(~candidate.any(axis=0)))  # components that no target is near
    unseen = int(np.count_nonzero(~candidate.any(axis=1)))
    return {
        "images": 1,
        "pairs": len(pairs),
        **{key: lost[key] for key in SEGMENTATION},
        "loc_itf_err": alone,
        "loc_pcp_err": unseen,
        "loc_m2s_err": len(false) - alone,
        "loc_s2m_err": len(missed) - unseen,
        "without_components": int(not len(predicted)),
        "without_targets": int(not len(targets)),
        "false_pixels": int(predicted.area[false].sum()),
        "pixels": p.size,
    }


def figures_hiou(n: Mapping[str, int], slip: bool = False) -> dict[str, float]:
    """hIoU, its factors and the error split; a denominator of 0 gives 0.

    Args:
        slip: as pyirstdmetrics 1.0.2: an image without components counts one false component too
            many, an image without targets one missed target.
    """
    loc = {"loc_iou": n["pairs"], **{key: n[key] for key in LOCALISATION if key != "loc_iou"}}
    if slip:
        loc["loc_itf_err"] = loc["loc_itf_err"] + n["without_components"]
        loc["loc_pcp_err"] = loc["loc_pcp_err"] + n["without_targets"]
    every = sum(loc.values())
    seg = {key: ratio(n[key], n["pairs"] * UNIT, 0.0) for key in SEGMENTATION}
    found = {key: ratio(count, every, 0.0) for key, count in loc.items()}
    targets = n["pairs"] + loc["loc_pcp_err"] + loc["loc_s2m_err"]
    return {
        "hiou": seg["seg_iou"] * found["loc_iou"],
        **seg,
        **found,
        "pd": ratio(n["pairs"], targets, 0.0),
        "fa": ratio(n["false_pixels"], n["pixels"], 0.0),
    }


# --- all of them -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Protocol:
    count: Callable[..., dict[str, int]]
    figures: Callable[[Mapping[str, int]], dict[str, float | int | None]]
    threshold: bool = False  # whether `count` can take another threshold of the mask


PROTOCOLS = {
    "standard": Protocol(count_standard, figures_standard, threshold=True),
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
    "hiou": Protocol(count_hiou, figures_hiou, threshold=True),
    "pyirstdmetrics": Protocol(count_hiou, lambda n: figures_hiou(n, slip=True), threshold=True),
}


def count_image(
    pred: np.ndarray, mask: np.ndarray, names: Iterable[str], threshold: int = THRESHOLD
) -> dict[str, dict[str, int]]:
    """One image's counts, by protocol.

    Args:
        threshold: of the mask, for the protocols that can take another one.
    """
    done: dict[Callable, dict[str, int]] = {}  # some protocols share what they count
    found = {}
    for name in names:
        protocol = PROTOCOLS[name]
        if protocol.count not in done:
            options = {"threshold": threshold} if protocol.threshold else {}
            done[protocol.count] = protocol.count(pred, mask, **options)
        found[name] = done[protocol.count]
    return found


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
