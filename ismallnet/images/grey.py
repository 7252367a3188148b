"""An image's values of any depth -> 0-255 units: which values become 0 and 255, and whether few of its
pixels take most of that range."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.images.picture import decode

# The darkest 0.1 % of an image of more than 8 bits become 0: dead pixels. Targets are bright.
PERCENTILES = (0.1, 100.0)
SATURATED = 0.02  # up to this share of the pixels, one brightest value may be that of targets
WHITE = 230  # from here up, of 8 bits
EXTREME = 0.1  # percent of the pixels, at either end, that may be dead or hot


def value_limits(
    pixels: np.ndarray, percentiles: tuple[float, float] = PERCENTILES
) -> tuple[float, float] | None:
    """The values that become 0 and 255: percentiles of the image's own finite ones; None for 8 bits,
    which stay as they are. A darkest value that `stands_alone` counts as no pixels, unless percentile
    0 is asked for."""
    if pixels.dtype == np.uint8:
        return None
    if pixels.dtype.kind == "f":
        pixels = pixels[np.isfinite(pixels)]
    if not pixels.size:
        return 0.0, 0.0
    if tuple(percentiles) == (0, 100):
        return float(pixels.min()), float(pixels.max())
    low = np.percentile(pixels, percentiles[0], method="lower")  # of few pixels the darkest itself
    if percentiles[0] > 0 and low == pixels.min() and stands_alone(pixels):
        pixels = pixels[pixels > low]
        low = np.percentile(pixels, percentiles[0], method="lower")
    return float(low), float(np.percentile(pixels, percentiles[1], method="higher"))


def stands_alone(pixels: np.ndarray) -> bool:
    """Whether the darkest value lies farther from all others than 99 % of these from each other, and at
    most half of the pixels have it: a border without a picture, or dead pixels."""
    edge = pixels.min()
    rest = pixels[pixels != edge]
    if 2 * rest.size < pixels.size or rest.min() == rest.max():
        return False
    near, far = np.percentile(rest, (0, 99))
    return bool(near - float(edge) > far - near)


def few_bright_pixels(pixels: np.ndarray, limits: tuple[float, float] | None) -> bool:
    """Whether the brightest 0.1 % of the pixels take more than half of the grey values: targets, or
    hot pixels that leave the rest too little contrast."""
    if limits is None or not limits[0] < limits[1]:
        return False
    return bool(np.nanpercentile(pixels, 99.9) < sum(limits) / 2)


def no_scene(pixels: np.ndarray, limits: tuple[float, float] | None) -> bool:
    """Whether more than the brightest (or darkest) 0.1 % of the pixels take more than half of the grey
    values, and are no part of the scene: one value alone (a border, burnt-in text, saturated pixels),
    or up to 5 % of the rows and columns (telemetry, broken lines)."""
    if limits is None or not limits[0] < limits[1]:
        return False
    negated = -pixels.astype(np.float64), (-limits[1], -limits[0])
    return bright_edge(pixels, limits, SATURATED) or bright_edge(*negated, 0.0)


def bright_edge(pixels: np.ndarray, limits: tuple[float, float], saturated: float) -> bool:
    """`no_scene` at the bright end. Of rows and columns the outermost two count from one bright pixel
    up, others where more than half of it is bright. One value alone must be that of more than the
    share `saturated` of the pixels."""
    if few_bright_pixels(pixels, limits):
        return False
    bright = (pixels if pixels.ndim == 2 else pixels.max(axis=2)) > sum(limits) / 2
    found = pixels[pixels > sum(limits) / 2]
    alone = saturated < found.size / pixels.size < 0.5
    if alone and found.min() == found.max():
        return True
    if min(bright.shape) < 8:
        return False
    for axis in (1, 0):
        lines = bright.mean(axis) > 0.5
        outer = [0, 1, -2, -1]
        lines[outer] |= bright.any(axis)[outer]
        if lines.mean() > 0.05:
            return False
        bright = bright & ~(lines[:, None] if axis else lines[None])
    return bool(bright.sum() < 0.001 * bright.size)


def to_units(pixels: np.ndarray, limits: tuple[float, float] | None) -> np.ndarray:
    """HxW or HxWx3 pixels of any depth -> HxWx3 in 0-255 units, grey repeated: 8 bits as they are,
    others as float32 with `limits` as 0 and 255. A pixel without a number becomes the median."""
    if pixels.dtype != np.uint8:
        low, high = map(float, limits)
        exact = pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32  # in 24 bits
        pixels = pixels.astype(np.float32 if exact else np.float64)
        if not np.isfinite(pixels).all():
            finite = pixels[np.isfinite(pixels)]
            middle = np.median(finite) if finite.size else low
            pixels = np.nan_to_num(pixels, nan=middle, posinf=middle, neginf=middle)
        pixels = ((pixels - low) * (255 / max(high - low, 1e-12))).clip(0, 255)
        pixels = pixels.astype(np.float32, copy=False)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def unmasked(frame: np.ndarray) -> np.ndarray:
    """A frame without a NumPy mask: pixels that are masked become NaN, in 8 bits the median of the
    others, which is what NaN becomes later."""
    if not isinstance(frame, np.ma.MaskedArray):
        return np.asarray(frame)
    if not np.ma.getmaskarray(frame).any():
        return frame.data
    if frame.dtype == np.uint8:
        return frame.filled(int(np.ma.median(frame)) if frame.count() else 0)
    exact = frame.dtype.itemsize <= 2 or frame.dtype == np.float32
    return frame.astype(np.float32 if exact else np.float64).filled(np.nan)


def read_image(
    path: str | os.PathLike,
    value_range: tuple[float, float] | None = None,
    percentiles: tuple[float, float] = PERCENTILES,
) -> np.ndarray:
    """An image in 0-255 units.

    Args:
        path: 8- or 16-bit PNG, BMP, JPEG or TIFF; grey, RGB, RGBA (alpha ignored) or palette.
        value_range: (min, max) that become 0 and 255 where the file has more than 8 bits; by default
        percentiles: of the image's own values.

    Returns:
        HxWx3: uint8 for 8-bit files, float32 for others; grey repeated.

    Raises:
        DataError: not an image, truncated or damaged.
    """
    pixels = decode(Path(path))
    return to_units(pixels, value_range or value_limits(pixels, percentiles))


def is_flat(pixels: np.ndarray) -> bool:
    """Whether all pixels that are numbers are alike, or there are none."""
    if pixels.dtype.kind == "f":
        pixels = pixels[np.isfinite(pixels)]
    return not pixels.size or bool(pixels.min() == pixels.max())


def is_coloured(pixels: np.ndarray) -> bool:
    """Whether the channels of an 8-bit image differ by more than 40 on average: a palette of a thermal
    camera, not the traces of JPEG."""
    return pixels.ndim == 3 and float(np.ptp(pixels, axis=2).mean()) > 40


def is_dim(pixels: np.ndarray) -> bool:
    """Whether an 8-bit image without its darkest 0.1 % uses fewer than 28 grey values, as none of
    NUAA-SIRST and NUDT-SIRST does."""
    return float(pixels.max()) - float(np.percentile(pixels, EXTREME)) < 28


def has_white_border(pixels: np.ndarray) -> bool:
    """Whether the first and the last row, or column, are white altogether."""
    pixels = pixels if pixels.ndim == 2 else pixels.min(axis=2)
    return any((p[0] == 255).all() and (p[-1] == 255).all() for p in (pixels, pixels.T))


def has_drawings(pixels: np.ndarray) -> bool:
    """Whether an 8-bit image has white lines drawn into it, as of text, a reticle or a box: white
    pixels side by side or up to 6 px apart that reach over 22 px and more, few of them with white all
    around, of whose edges more than half drop by 50 and more from one pixel to the next."""
    grey = pixels if pixels.ndim == 2 else cv2.max(cv2.max(*cv2.split(pixels)[:2]), pixels[..., 2])
    white = (grey >= WHITE).astype(np.uint8)
    if cv2.countNonZero(white) < 30:
        return False
    inner = cv2.erode(white, np.ones((3, 3), np.uint8))
    near = cv2.dilate(white, np.ones((7, 7), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(near)
    labels *= white
    area, filled = (np.bincount(labels[mask > 0], minlength=count) for mask in (white, inner))
    extent = stats[:, 2:4].max(axis=1) - 6
    drawn = (extent >= 22) & (area >= 30) & (4 * filled <= area)
    if not 0 < area[drawn].sum() < 0.05 * grey.size:  # more is noise
        return False
    edges = sharp = 0
    for axis in (0, 1):
        one, other = np.moveaxis(grey, axis, 0)[1:], np.moveaxis(grey, axis, 0)[:-1]
        first, second = np.moveaxis(labels, axis, 0)[1:], np.moveaxis(labels, axis, 0)[:-1]
        edge = ((one >= WHITE) != (other >= WHITE)) & drawn[np.maximum(first, second)]
        edges += int(edge.sum())
        sharp += int((edge & (np.minimum(one, other) < WHITE - 50)).sum())
    return 2 * sharp > edges


def eight_bit_doubts(pixels: np.ndarray) -> tuple[str, ...]:
    """What makes one doubt an image of 8 bits, HxW or HxWx3: keys of ODD."""
    if is_flat(pixels):
        return ("flat",)
    found = {"colours": is_coloured, "dim": is_dim, "white": has_white_border, "drawn": has_drawings}
    return tuple(key for key, test in found.items() if test(pixels))


def darker(image: np.ndarray, mask: np.ndarray) -> bool | None:
    """Whether the targets of an image, HxWx3, are darker than a ring of 2 px around them, 2 px away;
    None without targets, or without a ring.

    Args:
        mask: HxW uint8, 0 on all other pixels.
    """
    x, y, width, height = cv2.boundingRect(mask)
    rows, columns = (slice(max(a - 4, 0), a + n + 4) for a, n in ((y, height), (x, width)))
    if not width:
        return None
    cut, grey = mask[rows, columns], image[rows, columns].mean(axis=2, dtype=np.float32)
    near, far = (cv2.dilate(cut, np.ones((side, side), np.uint8)) > 0 for side in (5, 9))
    target, ring = grey[cut > 0], grey[far & ~near]
    return bool(target.mean() < ring.mean()) if ring.size else None


def inverted(pixels: np.ndarray) -> np.ndarray:
    """Pixels of any type with dark and bright exchanged."""
    if pixels.dtype.itemsize == 8:  # integers too: floats are not exact near 2^64
        pixels = pixels.astype(np.float64)
    return -pixels if pixels.dtype.kind == "f" else ~pixels


def inverted_limits(limits: tuple[float, float], dtype: np.dtype) -> tuple[float, float]:
    """What a lower and an upper value become in `inverted` pixels of a type."""
    negated = dtype.kind == "f" or dtype.itemsize == 8
    total = 0.0 if negated else float(np.iinfo(dtype).max + np.iinfo(dtype).min)
    return total - limits[1], total - limits[0]


def roughness(pixels: np.ndarray, axis: int = 1) -> float:
    """The mean difference of neighbours, in mean differences from the mean, outliers cut off: about 1.4
    for pixels that have nothing to do with each other, less for pictures."""
    values = pixels.astype(np.float64)
    values = values.clip(*np.percentile(values, (1, 99)))
    spread = np.abs(values - values.mean()).mean()
    return float(np.abs(np.diff(values, axis=axis)).mean() / spread) if spread else 0.0


def flag_bit(pixels: np.ndarray) -> int:
    """The highest bit that is set in some of the pixels of an image, HxW uint16, 0.1 to 20 %, if it is
    no part of their value: without it nearly all of them are like their neighbours. 0 without any."""
    bit = int(pixels.max()).bit_length() - 1
    if bit < 12:
        return 0
    flagged = pixels >= 1 << bit
    if not 0.001 < flagged.mean() <= 0.2 or np.unique(pixels[flagged]).size < 4:  # else hot pixels
        return 0
    cleared = np.where(flagged, pixels - (1 << bit), pixels).astype(np.uint16)
    apart = [  # from the neighbours, as they are and without the bit
        np.abs(values.astype(np.int32) - cv2.medianBlur(values, 3))[flagged]
        for values in (pixels, cleared)
    ]
    alone = np.median(apart[0]) > (1 << bit) / 2
    return bit if alone and np.percentile(apart[1], 90) < (1 << bit) / 16 else 0


def misread(pixels: np.ndarray, raw: bool = False) -> tuple[str, ...]:
    """What makes one doubt that the values of an image, HxW, mean what they were read as: keys of ODD.

    Args:
        raw: the file says nothing of its width, which may be wrong.
    """
    deep = pixels.dtype == np.uint16
    if pixels.ndim > 2 or min(pixels.shape) < 8 or not (raw or deep) or not np.isfinite(pixels).all():
        return ()
    across = roughness(pixels)
    if raw and roughness(pixels, 0) > max(0.5, 3 * across):
        return ("rows",)
    if not deep:
        return ()
    low, high = pixels < 1 << 14, pixels >= 3 << 14
    split = min(low.mean(), high.mean()) > 0.005 and low.mean() + high.mean() > 0.999
    if split and np.unique(pixels[high]).size > 16:  # fewer are a border
        return ("signed",)
    if flag_bit(pixels):
        return ("flag",)
    rough = across > 0.3 and roughness(pixels.byteswap()) < across / 2
    return ("bytes",) if rough or bytes_exchanged(pixels) else ()


def bytes_exchanged(pixels: np.ndarray) -> bool:
    """Whether an image, HxW uint16, takes less than a 16th of its range of values when the two bytes of
    each pixel are exchanged, and is no image of 8 bits, moved up by 8 (then the lower bytes are 0)."""
    if (pixels & 255 == 0).mean() > 0.9 or np.unique(pixels).size < 32:
        return False
    exchanged, found = (np.ptp(np.percentile(p, (1, 99))) for p in (pixels.byteswap(), pixels))
    return bool(16 * exchanged < found)


class GreyFacts(NamedTuple):
    """What the grey values of one image of more than 8 bits are.

    Args:
        depth: its type, as "uint16".
        limits: the values that become 0 and 255.
        missing: pixels that are NaN, infinite, or of GDAL's nodata value.
        cut: single pixels far below or above all others are cut off.
        dark, bright: few pixels take more than half of the grey values there.
        edge: a border, rows, columns or one value alone do.
        outside: more than half of the pixels are not between the limits.
        odd: keys of ODD.
    """

    name: str
    depth: str
    limits: tuple[float, float]
    missing: int = 0
    cut: bool = False
    dark: bool = False
    bright: bool = False
    edge: bool = False
    outside: bool = False
    odd: tuple[str, ...] = ()


@dataclass(frozen=True)
class GreyRange:
    """Which values of images of more than 8 bits become 0 and 255.

    Args:
        limits: the same two for all images (--range); by default
        percentiles: of each image's own values; with `dark` counted from the bright end.
        dark: targets are dark: images of any depth are inverted.
    """

    limits: tuple[float, float] | None = None
    percentiles: tuple[float, float] = PERCENTILES
    dark: bool = False

    @classmethod
    def of_training(cls, info: dict) -> "GreyRange":
        """How the images were read that a network was trained on, from what its weights say."""
        args = info.get("args") if isinstance(info.get("args"), dict) else {}
        limits, percentiles = args.get("range"), args.get("percentiles") or PERCENTILES
        dark = args.get("polarity") == "dark"
        return cls(tuple(limits) if limits else None, tuple(percentiles), dark)

    def read(
        self, path: Path, name: str = "", look: bool = True
    ) -> tuple[np.ndarray, GreyFacts | None]:
        """An image in 0-255 units, as `read_image` gives it, and its grey values; None for one of 8
        bits that has nothing odd, and where they are not to be looked at.

        Raises:
            DataError: not a readable image, or no pixel of it is a number.
        """
        stored = decode(path)
        pixels = inverted(stored) if self.dark else stored
        if pixels.dtype == np.uint8:
            odd = eight_bit_doubts(pixels) if look else ()
            facts = GreyFacts(name, "uint8", (0.0, 255.0), odd=odd) if odd else None
            return to_units(pixels, None), facts
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).any():
            raise DataError(f"{path}: no pixel holds a number; all are NaN, infinite or nodata")
        if limits := self.limits:
            limits = inverted_limits(limits, pixels.dtype) if self.dark else limits
        else:
            limits = value_limits(pixels, self.percentiles)
        facts = self.facts(name, pixels, limits) if look else None
        if facts and self.dark:
            odd = tuple(key for key in facts.odd if key == "flat") or misread(stored)
            facts = facts._replace(limits=inverted_limits(limits, pixels.dtype), odd=odd)
        return to_units(pixels, limits), facts

    def facts(self, name: str, pixels: np.ndarray, limits: tuple[float, float]) -> GreyFacts:
        """The grey values of an image; `limits` are those that its values were read with."""
        (low, high), depth, size, image = limits, str(pixels.dtype), pixels.size, pixels
        pixels = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
        missing = size - pixels.size
        if self.limits:
            outside = 2 * int(((pixels < low) | (pixels > high)).sum()) > pixels.size
            return GreyFacts(name, depth, limits, missing, outside=outside)
        least, most = float(pixels.min()), float(pixels.max())
        if least == most:
            return GreyFacts(name, depth, limits, missing, odd=("flat",))
        cut = max(low - least, most - high) > high - low
        dark = bool(np.percentile(pixels, EXTREME) > (low + high) / 2)
        edge, odd = no_scene(image, limits), misread(image)
        return GreyFacts(
            name, depth, limits, missing, cut, dark, few_bright_pixels(pixels, limits), edge, odd=odd
        )

    def report(self, label: str, facts: list[GreyFacts], total: int) -> Iterator[str]:
        """What a run says of a list's grey values: one line, and a note for each kind of image that
        should be looked at.

        Args:
            label: of the list.
            facts: of its images of more than 8 bits, and of odd ones of 8.
            total: all its images.
        """
        for key, text in ODD.items():
            if names := [f.name for f in facts if key in f.odd]:
                yield f"note: {label}: {len(names)} images {text}: {some(names)}"
        facts = [f for f in facts if f.depth != "uint8"]
        if not facts:
            if self.limits or self.percentiles != PERCENTILES:
                yield f"{label}: all images have 8 bits; --range and --percentiles change nothing"
            return
        head = (
            f"{label}: {', '.join(sorted({f.depth for f in facts}))} in {len(facts)} of {total} images"
        )
        low, high = self.percentiles
        ends, which = "0 and 255", f"{low:g} and {high:g}"
        if self.dark:
            ends, which = "255 and 0, inverted", f"{100 - high:g} and {100 - low:g}"
        if self.limits:
            yield f"{head}: {self.limits[0]:g} and {self.limits[1]:g} become {ends} (--range)"
        else:
            low, high = (three_of([f.limits[end] for f in facts]) for end in (0, 1))
            yield (
                f"{head}: percentiles {which} of each become {ends}: {low} and {high} "
                "(smallest / median / largest)"
            )
        if self.dark:
            label = f"{label}, as inverted"
        for key, text in NOTES.items():
            if names := [f.name for f in facts if getattr(f, key)]:
                yield f"note: {label}: {len(names)} images {text}: {some(names)}"


ODD = {
    "flat": "have pixels that are all alike",
    "bytes": "look as if the two bytes of each pixel were exchanged (save them again in the right byte "
    "order; a raw file is read with --raw WIDTHxHEIGHT:>u2)",
    "signed": "hold signed values as unsigned ones, small and near 65535 (save them as signed)",
    "flag": "have their highest bit set in a few pixels that are otherwise like their neighbours: a "
    "flag of the camera, not brightness (clear it: pixels & 0x7fff for bit 15)",
    "rows": "have rows that do not continue each other (another WIDTH in --raw?)",
    "colours": "are in colours (the networks learn grey images: save them as grey, the hottest white)",
    "dim": "of 8 bits use fewer than 28 grey values (stretch them, or save the camera's 16 bits)",
    "drawn": "have white lines with sharp edges: text, a reticle or boxes burnt in, which are found as "
    "targets (switch them off in the camera, or paint over them)",
    "white": "have a white border (cut it off, from the masks too)",
}
NOTES = {
    "missing": "hold pixels without a number (NaN, infinite or nodata), which do not count",
    "cut": "hold pixels far below or above all others (dead, hot or nodata), which are cut off",
    "dark": "have few darkest pixels (dead or nodata) that take more than half of the grey values; "
    f"--percentiles {PERCENTILES[0]:g} {PERCENTILES[1]:g} cuts them off",
    "bright": "have few brightest pixels that take more than half of the grey values: targets, or hot "
    "pixels, which hide dim targets (for hot pixels type --percentiles 0.1 99.9)",
    "edge": "have rows, columns, or one value alone, that take more than half of the grey values: a "
    "border, telemetry, text, broken lines or saturated pixels, which hide dim targets; type --range "
    "MIN MAX with the values of the scene",
    "outside": "have more than half of their pixels outside of --range",
}


def three_of(values: list[float]) -> str:
    return " / ".join(f"{value:g}" for value in (min(values), np.median(values), max(values)))
