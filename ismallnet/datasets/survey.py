"""A look at all masks of a data set: how they are read, and what one should know of them."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

from ismallnet.cli import DataError, some
from ismallnet.datasets.masks import TARGET, decide, mask_pixels
from ismallnet.datasets.sample import MaskRule
from ismallnet.files import READ_ERRORS
from ismallnet.images.picture import open_picture
from ismallnet.parallel import read_ahead

MANY_NUMBERS = 12  # different ones in a mask; more look like soft edges
FAINT = 48  # of 255: JPEG's traces beside a target stay below


@dataclass
class MaskReport:
    """What a look at all masks of a data set found.

    Args:
        rule: how they are read.
        notes: for people.
        targets: target pixels, by mask file.
        inverted: mask files of which more than half is target.
        pictures: mask files that look like pictures.
    """

    rule: MaskRule
    notes: list[str]
    targets: dict[Path, int]
    inverted: set[Path]
    pictures: set[Path] = field(default_factory=set)


def survey(paths: list[Path], threshold: int = TARGET) -> MaskReport:
    """Looks at all mask files; those that cannot be read are left to whoever needs them."""

    def look(path: Path) -> tuple[Path, np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        try:
            pixels = mask_pixels(path)
        except DataError:
            return None
        values, counts = values_of(pixels)
        least = 1 if len(values) <= MANY_NUMBERS else 2
        peaks = peaks_in(pixels, least) if (values > 0).sum() > 1 else values[:0]
        return path, values, counts, boxes_in(pixels), peaks

    looked = [entry for entry in read_ahead(look, paths) if entry is not None]
    found = [entry[:3] for entry in looked]
    rule = decide((values for _, values, _ in found), threshold)
    targets, inverted, faint = {}, set(), []
    for path, values, counts in found:
        passed = rule(values) >= threshold
        targets[path] = int(counts[passed].sum())
        if 2 * targets[path] > counts.sum():
            inverted.add(path)
        elif not targets[path] and (values > 0).any():
            faint.append(f"{path.name} (at most {values.max():g})")
    notes, pictures = [], {path for path, values, counts in found if is_picture(rule(values), counts)}
    if found:
        kind = f"target from {threshold} up"
        if rule.numbers:
            kind = "class or instance numbers: target above 0"
        if not any((values > 0).any() for _, values, _ in found):
            kind = "no mask holds a target"
        notes.append(f"mask values {rule.values or 'none'}; {kind}")
    half = "" if rule.numbers else half_lost(rule, found, threshold)
    if half:
        notes.append(half)
    groups = "" if half else lost_groups(rule, [(e[0], e[4]) for e in looked], threshold)
    if groups:
        notes.append(groups)
    if faint:
        hint = "" if half else ". Where does target begin? --mask-threshold 1 takes all values above 0"
        notes.append(
            f"note: {len(faint)} masks hold values above 0, but no target: {some(faint)}{hint}"
        )
    if rule.numbers and (text := soft_edges(found)):
        notes.append(text)
    if not rule.numbers and not groups and (text := lost_numbers(rule, found, threshold)):
        notes.append(text)
    if several := [path.name for path in read_ahead(several_colours, paths) if path]:
        notes.append(
            f"note: {len(several)} masks have several colours of a palette: {some(several)}. All but "
            "black are target, VOC's border of pixels that do not count too"
        )
    if text := drawn_boxes(sum((entry[3] for entry in looked), np.zeros(3, int))):
        notes.append(text)
    if pictures:
        names = some(sorted(path.name for path in pictures))
        notes.append(f"note: {len(pictures)} masks look like pictures, not like masks: {names}")
    if inverted:
        names = some(sorted(path.name for path in inverted))
        notes.append(f"note: more than half of the pixels are target in {len(inverted)} masks: {names}")
    return MaskReport(rule, notes, targets, inverted, pictures)


def soft_edges(found: list[tuple[Path, np.ndarray, np.ndarray]]) -> str:
    """A note on masks whose values are taken for numbers, but are too many to be; empty without any."""
    soft = [(path, values) for path, values, _ in found if (values > 0).sum() > MANY_NUMBERS]
    if not soft:
        return ""
    names = some([f"{path.name} ({(values > 0).sum()})" for path, values in soft])
    half = max(1, int(max(values.max() for _, values in soft) / 2))
    return (
        f"note: {len(soft)} masks hold more than {MANY_NUMBERS} different values above 0: {names}. If "
        "these are soft edges or JPEG's traces, say where target begins: "
        f"--mask-threshold {min(half, 255)}"
    )


def values_of(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values of a mask, rising, and how many pixels have each."""
    if pixels.dtype != np.uint8:
        return np.unique(pixels, return_counts=True)
    counts = np.bincount(pixels.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    return values.astype(np.uint8), counts[values]


def boxes_in(pixels: np.ndarray) -> np.ndarray:
    """Of a mask's targets of 4x4 px and more: how many there are, how many fill their box, and how many
    are its outline alone."""
    target = (pixels > 0).astype(np.uint8)
    x, y, w, h = cv2.boundingRect(target)
    if not w:
        return np.zeros(3, int)
    _, _, stats, _ = cv2.connectedComponentsWithStats(target[y : y + h, x : x + w])
    width, height, area = stats[1:, 2], stats[1:, 3], stats[1:, 4]
    large = (width >= 4) & (height >= 4)
    full, hollow = area == width * height, area == 2 * (width + height) - 4
    return np.array([large.sum(), (large & full).sum(), (large & hollow).sum()])


def peaks_in(pixels: np.ndarray, least: int) -> np.ndarray:
    """The largest value of each group of pixels above 0 that touch, also at corners, of those where it
    is the value of at least half of the pixels, and of `least`: an area, no soft spot."""
    target = (pixels > 0).astype(np.uint8)
    x, y, w, h = cv2.boundingRect(target)
    place = slice(y, y + h), slice(x, x + w)
    count, groups = cv2.connectedComponents(target[place])
    peaks = np.asarray(ndimage.maximum(pixels[place], groups, range(count)))
    at_peak = np.bincount(groups[pixels[place] == peaks[groups]], minlength=count)
    flat = (2 * at_peak >= np.bincount(groups.ravel())) & (at_peak >= least)
    return peaks[1:][flat[1:]].astype(pixels.dtype)


def lost_groups(rule: MaskRule, found: list[tuple[Path, np.ndarray]], threshold: int) -> str:
    """A note where whole groups of pixels lie below the usual threshold in masks that hold targets
    above it: classes or instances on either side. Fainter ones may be JPEG's traces.

    Args:
        found: mask files and their `peaks_in`.
    """
    if threshold != TARGET or rule.numbers:
        return ""
    grey = [(path, rule(peaks)) for path, peaks in found if len(peaks)]
    lost = [(path, peaks[(peaks >= FAINT) & (peaks < threshold)]) for path, peaks in grey]
    lost = [(path, peaks) for path, peaks in lost if len(peaks)]
    if not lost:
        return ""
    peaks = np.concatenate([peaks for _, peaks in lost])
    values = some([f"{value:g}" for value in np.unique(peaks)])
    return (
        f"note: {len(peaks)} groups of pixels in {len(lost)} masks stay below {threshold} (at most "
        f"{values} of 255) and are not target: {some([path.name for path, _ in lost])}. If they are "
        "classes or instances, type --mask-threshold 1"
    )


def drawn_boxes(counts: np.ndarray) -> str:
    """A note where all larger targets of a set are boxes; empty where they are not.

    Args:
        counts: the sum of `boxes_in` over the masks.
    """
    large, full, hollow = map(int, counts)
    if large < 3 or large not in (full, hollow):
        return ""
    what = "fill their boxes" if large == full else "are outlines of boxes, hollow inside"
    return (
        f"note: all {large} targets of 4x4 px and more {what}: these are drawn boxes, not masks, and "
        "IoU and nIoU with them mean little. Draw the targets' pixels"
    )


def palette_colours(path: Path) -> int:
    """How many colours other than black a mask with a palette that is not grey holds; 0 for others."""
    try:
        with open_picture(path) as picture:
            if picture.mode not in ("P", "PA"):
                return 0
            colours = np.unique(np.array(picture.convert("RGB")).reshape(-1, 3), axis=0)
    except READ_ERRORS:
        return 0
    grey = (colours == colours[:, :1]).all()
    return 0 if grey else int(colours.any(axis=1).sum())


def several_colours(path: Path) -> Path | None:
    return path if palette_colours(path) > 1 else None


def is_picture(grey: np.ndarray, counts: np.ndarray) -> bool:
    """Whether more than a fifth of a mask's pixels are neither nearly black nor nearly white.

    Args:
        grey, counts: its grey values, and how many pixels have each.
    """
    between = (grey > 16) & (grey < 239)
    return bool(5 * counts[between].sum() > counts.sum())


def half_lost(rule: MaskRule, found: list, threshold: int) -> str:
    """A note where no mask holds much more than the usual threshold, and many pixels lie little below
    it: dark colours whose values JPEG has changed."""
    if threshold != TARGET:
        return ""
    counted = [(rule(values), counts) for _, values, counts in found]
    largest = max((int(grey.max()) for grey, _ in counted if len(grey)), default=0)
    half = max(largest // 2, 1)
    below = sum(int(counts[(grey >= half) & (grey < threshold)].sum()) for grey, counts in counted)
    above = sum(int(counts[grey >= threshold].sum()) for grey, counts in counted)
    if not above or largest > 1.5 * threshold or 4 * below < above:
        return ""
    return (
        f"note: the masks' largest value is {largest}, and {below} pixels from {half} to "
        f"{threshold - 1} are not target, beside {above} that are. If they belong to the targets, type "
        f"--mask-threshold {half}"
    )


def lost_numbers(rule: MaskRule, found: list, threshold: int) -> str:
    """A note where small numbers stand beside large values: classes, and 255 for pixels that do not
    count. They are below 32 and few, or one value alone is target, which soft edges do not leave."""
    values = np.unique(np.concatenate([np.unique(rule(v)) for _, v, _ in found] or [np.zeros(0)]))
    alone = (values >= threshold).sum() == 1
    most = threshold if alone else min(threshold, 32)
    small = values[(values > 0) & (values < most)]
    if not len(small) or len(values) > (64 if alone else 8):
        return ""
    totals = [
        sum(int(counts[test(rule(v))].sum()) for _, v, counts in found)
        for test in (lambda v: (v > 0) & (v < most), lambda v: v >= threshold)
    ]
    if 10 * totals[0] < totals[1]:
        return ""
    return (
        f"note: values {some([f'{v:g}' for v in small])} are not target, though {totals[0]} pixels "
        "have them. If they are classes, and 255 means that a pixel does not count, make masks of 0 "
        f"and 255; if they are targets too, type --mask-threshold {small[0]:g}"
    )
