"""What the pixels of mask files mean: decided once for a data set, from all masks of its lists."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ismallnet.cli import DataError, read_ahead, some
from ismallnet.images import READ_ERRORS, decode, open_picture

ASPECT_TOLERANCE = 0.02  # between a mask and its image
MANY_NUMBERS = 12  # different ones in a mask; more look like soft edges
TARGET = 128  # grey values from here up are target, unless --mask-threshold says otherwise


@dataclass(frozen=True)
class MaskRule:
    """How all masks of a data set are read.

    Args:
        numbers: the values are class or instance numbers: any above 0 is target, 255.
        deep: the largest value that files of more than 8 bits may hold: 255, 65535, or 1 for floats;
            it becomes 255. 0 where there are no such files.
        values: all grey values of the set, for people.
    """

    numbers: bool = False
    deep: float = 0
    values: str = field(default="", compare=False)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """A mask's values as they lie in the file, HxW -> HxW uint8 grey."""
        if self.numbers:
            return np.where(pixels > 0, 255, 0).astype(np.uint8)
        if pixels.dtype == np.uint8:
            return pixels
        scaled = np.floor(pixels.astype(np.float64) * (255 / (self.deep or 255)) + 1e-9)
        return np.maximum(scaled.clip(0, 255), pixels > 0).astype(np.uint8)  # no target becomes 0


def mask_pixels(path: str | os.PathLike) -> np.ndarray:
    """A mask file's values at their own depth, HxW. Colours count by their largest channel; of a
    palette that is not grey every pixel that is not black is 255; alpha is the mask where the colours
    are constant and alpha is not. Where a palette is black altogether its numbers count.

    Raises:
        DataError: not a readable image.
    """
    path, mode = Path(path), ""
    try:
        with open_picture(path) as picture:
            mode = picture.mode
            rgba = np.array(picture.convert("RGBA")) if mode in ("P", "PA", "RGBA", "LA") else None
    except READ_ERRORS:
        rgba = None  # `decode` says what is wrong
    pixels = decode(path)
    if mode == "P" and not pixels.any() and (numbers := palette_numbers(path)).any():
        return numbers
    if rgba is not None and rgba.shape[:2] == pixels.shape[:2]:
        colours, alpha = rgba[..., :3], rgba[..., 3]
        if np.ptp(alpha) and not np.ptp(colours.reshape(-1, 3), axis=0).any():
            return alpha
        if mode in ("P", "PA") and (colours != colours[..., :1]).any():
            return np.where(colours.any(axis=2), 255, 0).astype(np.uint8)
    pixels = pixels.max(axis=2) if pixels.ndim == 3 else pixels
    return np.nan_to_num(pixels).clip(0, 65535) if pixels.dtype.kind in "fi" else pixels


def palette_numbers(path: Path) -> np.ndarray:
    """The numbers of a mask's pixels in its palette, HxW uint8."""
    with open_picture(path) as picture:
        return np.array(picture)


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


def read_mask_values(
    path: str | os.PathLike, shape: tuple[int, int] | None = None, rule: MaskRule | None = None
) -> np.ndarray:
    """A mask file's grey values, HxW uint8.

    Args:
        shape: the image's (H, W); a mask of another size is brought to it by nearest neighbour.
        rule: of its data set; without one the file is judged by itself.

    Raises:
        DataError: unreadable, or its aspect ratio is more than 2 % off the image's.
    """
    pixels = mask_pixels(path)
    if shape is not None and pixels.shape != shape:  # before anything is made of the values
        check_aspect(path, pixels.shape, shape)
        if pixels.dtype not in (np.uint8, np.uint16, np.float32):
            pixels = pixels.astype(np.float32)
        pixels = cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_NEAREST)
    rule = rule or decide([np.unique(pixels)])
    return rule(pixels)


def check_aspect(path: str | os.PathLike, found: tuple[int, int], shape: tuple[int, int]) -> None:
    """
    Raises:
        DataError: a mask's shape is more than 2 % off its image's.
    """
    (h, w), (height, width) = found, shape
    aspect = (w * height) / (h * width)
    if max(aspect, 1 / aspect) <= 1 + ASPECT_TOLERANCE:
        return
    turned = (w * width) / (h * height)
    hint = ""
    if max(turned, 1 / turned) <= 1 + ASPECT_TOLERANCE:
        hint = ". Height and width are swapped: one has lost its EXIF orientation; save both upright"
    raise DataError(
        f"{path}: the mask is {w}x{h}, its image {width}x{height} (width x height): expected the same "
        f"size, or the same shape within {ASPECT_TOLERANCE:.0%}{hint}"
    )


def decide(uniques: Iterable[np.ndarray], threshold: int = TARGET) -> MaskRule:
    """The rule of a set, from the different values of each of its masks."""
    uniques = [values for values in uniques if len(values)]
    deep = [values for values in uniques if values.dtype != np.uint8]
    largest = max((float(values.max()) for values in deep), default=0.0)
    whole = not any((values % 1).any() for values in deep)
    if not deep or (largest <= 255 and (whole and largest > 1)):
        top = 255.0
    elif largest <= 1 and not whole:
        top = 1.0
    else:
        top = 255.0 if largest <= 255 else 65535.0
    rule = MaskRule(deep=top if deep else 0)
    grey = np.unique(np.concatenate([np.unique(rule(values)) for values in uniques] or [np.zeros(0)]))
    raw = np.unique(np.concatenate([values.astype(np.float64) for values in uniques] or [np.zeros(0)]))
    few = [f"{value:g}" for value in raw]
    text = ", ".join(few) if len(few) <= 6 else f"{', '.join(few[:3])} … {few[-1]}"
    text = " and ".join(few) if len(few) <= 2 else text
    reached = len(grey) and grey.max() >= min(threshold, TARGET)
    return MaskRule(numbers=not reached, deep=rule.deep, values=text)


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

    def look(path: Path) -> tuple[Path, np.ndarray, np.ndarray, np.ndarray] | None:
        try:
            pixels = mask_pixels(path)
        except DataError:
            return None
        return path, *values_of(pixels), boxes_in(pixels)

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
    if faint:
        hint = "" if half else ". Where does target begin? --mask-threshold 1 takes all values above 0"
        notes.append(
            f"note: {len(faint)} masks hold values above 0, but no target: {some(faint)}{hint}"
        )
    if rule.numbers and (text := soft_edges(found)):
        notes.append(text)
    if not rule.numbers and (text := lost_numbers(rule, found, threshold)):
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
    count."""
    values = np.unique(np.concatenate([np.unique(rule(v)) for _, v, _ in found] or [np.zeros(0)]))
    small = values[(values > 0) & (values < min(threshold, 32))]
    if not len(small) or len(values) > 8:
        return ""
    totals = [
        sum(int(counts[test(rule(v))].sum()) for _, v, counts in found)
        for test in (lambda v: (v > 0) & (v < 32), lambda v: v >= threshold)
    ]
    if 10 * totals[0] < totals[1]:
        return ""
    return (
        f"note: values {some([f'{v:g}' for v in small])} are not target, though {totals[0]} pixels "
        "have them. If they are classes, and 255 means that a pixel does not count, make masks of 0 "
        f"and 255; if they are targets too, type --mask-threshold {small[0]:g}"
    )
