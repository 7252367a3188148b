"""Which values of an image become 0 and 255, for data sets and frames, bright and dark targets; and
what makes one doubt the result."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ismallnet.cli import DataError, counted, some
from ismallnet.images.picture import decode

Limits = tuple[float, float]  # the values that become 0 and 255

# The darkest 0.1 % of an image of more than 8 bits become 0: dead pixels. Targets are bright. Where
# they are dark, percentiles count from the bright end: the brightest 0.1 % are cut off.
PERCENTILES = (0.1, 100.0)
FEW = 0.1  # percent of the pixels that targets and hot pixels may have

DOUBTS = {
    "flat": "pixels that are all alike, or no numbers: nothing can be detected in them",
    "hot": f"few pixels, at most {FEW:g} %, that take more than half of the grey values: targets, "
    "or hot or dead pixels, which hide faint targets; for these type --percentiles 0.1 99.9",
    "outside": "more than half of their pixels outside the grey limits, so that they become black "
    "or white, and targets there are lost; type another --range MIN MAX",
}


# --- which values become 0 and 255 -----------------------------------------------------------------


def value_limits(
    pixels: np.ndarray, percentiles: tuple[float, float] = PERCENTILES, dark: bool = False
) -> Limits | None:
    """The values that become 0 and 255: percentiles of the image's own finite ones; None for 8 bits,
    which stay as they are.

    A lowest value that `stands_alone` does not count, unless percentile 0 is asked for.

    Args:
        dark: targets are dark. The limits are those of the `inverted` image, inverted back: percentiles
            count from the bright end, and it is a highest value that may stand alone.
    """
    if pixels.dtype == np.uint8:
        return None
    if dark:
        return inverted_limits(value_limits(inverted(pixels), percentiles), pixels.dtype)
    pixels = finite(pixels)
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
    """Whether the lowest value lies farther from all others than 99 % of these from each other, and at
    most half of the pixels have it: a border without a picture, or dead pixels."""
    edge = pixels.min()
    rest = pixels[pixels != edge]
    if 2 * rest.size < pixels.size or rest.min() == rest.max():
        return False
    near, far = np.percentile(rest, (0, 99))
    return bool(near - float(edge) > far - near)


def finite(pixels: np.ndarray) -> np.ndarray:
    """The pixels that are numbers; those of integers as they are."""
    return pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels


def inverted(pixels: np.ndarray) -> np.ndarray:
    """Pixels of any type with dark and bright exchanged."""
    if pixels.dtype.itemsize == 8:  # integers too: floats are not exact near 2^64
        pixels = pixels.astype(np.float64)
    return -pixels if pixels.dtype.kind == "f" else ~pixels


def inverted_limits(limits: Limits, dtype: np.dtype) -> Limits:
    """What a lower and an upper value become in `inverted` pixels of a type; and back again."""
    negated = dtype.kind == "f" or dtype.itemsize == 8
    total = 0.0 if negated else float(np.iinfo(dtype).max + np.iinfo(dtype).min)
    return total - limits[1], total - limits[0]


def to_units(pixels: np.ndarray, limits: Limits | None) -> np.ndarray:
    """HxW or HxWx3 pixels of any depth -> HxWx3 in 0-255 units, grey repeated: 8 bits as they are,
    others as float32 with `limits` as 0 and 255. A pixel without a number becomes the median."""
    if pixels.dtype != np.uint8:
        low, high = map(float, limits)
        exact = pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32  # in 24 bits
        pixels = pixels.astype(np.float32 if exact else np.float64)
        if not np.isfinite(pixels).all():
            numbers = finite(pixels)
            middle = np.median(numbers) if numbers.size else low
            pixels = np.nan_to_num(pixels, nan=middle, posinf=middle, neginf=middle)
        pixels = ((pixels - low) * (255 / max(high - low, 1e-12))).clip(0, 255)
        pixels = pixels.astype(np.float32, copy=False)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


# --- what makes one doubt them ---------------------------------------------------------------------


def doubts(
    pixels: np.ndarray, limits: Limits | None, fixed: bool = False, dark: bool = False
) -> tuple[str, ...]:
    """What makes one doubt the grey values of an image of any depth, read with these limits: keys of
    DOUBTS. Limits are `fixed` where they are not percentiles of the image's own values."""
    pixels = finite(pixels)
    if not pixels.size or pixels.min() == pixels.max():
        return ("flat",)
    if limits is None or not limits[0] < limits[1]:
        return ()
    low, high = limits
    if fixed:
        outside = np.count_nonzero((pixels < low) | (pixels > high))
        return ("outside",) if 2 * outside > pixels.size else ()
    middle, most = (low + high) / 2, np.percentile(pixels, FEW if dark else 100 - FEW)
    return ("hot",) if (most > middle if dark else most < middle) else ()


def said_of(found: Iterable[tuple[str, str]], noun: str) -> Iterator[str]:
    """A sentence for each doubt in pairs (name of an image, key of DOUBTS); `noun`: "image", say."""
    found = list(found)
    for key, text in DOUBTS.items():
        if names := [name for name, doubt in found if doubt == key]:
            have = "has" if len(names) == 1 else "have"
            yield f"{counted(len(names), noun)} {have} {text}: {some(names)}"


def darker(image: np.ndarray, mask: np.ndarray) -> bool | None:
    """Whether the targets of an image, HxWx3, are darker than a ring of 2 px around them, 2 px away;
    None without targets (mask HxW uint8, above 0), or without a ring."""
    near, far = (cv2.dilate(mask, np.ones((side, side), np.uint8)) > 0 for side in (5, 9))
    target, ring = image[mask > 0], image[far & ~near]
    return bool(target.mean() < ring.mean()) if target.size and ring.size else None


# --- the images of a data set ----------------------------------------------------------------------


class GreyFacts(NamedTuple):
    """What the grey values of one image are: its pixels' type as "uint16", the values that become 0 and
    255 (with dark targets 255 and 0), None for 8 bits, and keys of DOUBTS."""

    name: str
    depth: str
    limits: Limits | None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class GreyRange:
    """Which values of images of more than 8 bits become 0 and 255.

    Args:
        limits: the same two for all images (--range); by default
        percentiles: of each image's own values; with `dark` counted from the bright end.
        dark: targets are dark: images of any depth are inverted.
    """

    limits: Limits | None = None
    percentiles: tuple[float, float] = PERCENTILES
    dark: bool = False

    @classmethod
    def of_training(cls, info: dict) -> "GreyRange":
        """How the images were read that a network was trained on, from what its weights say."""
        args = info.get("args") if isinstance(info.get("args"), dict) else {}
        limits, percentiles = args.get("range"), args.get("percentiles") or PERCENTILES
        dark = args.get("polarity") == "dark"
        return cls(tuple(limits) if limits else None, tuple(percentiles), dark)

    def limits_of(self, pixels: np.ndarray) -> Limits | None:
        """The values of an image that become 0 and 255; None for 8 bits."""
        if pixels.dtype == np.uint8:
            return None
        return self.limits or value_limits(pixels, self.percentiles, self.dark)

    def units(self, pixels: np.ndarray, limits: Limits | None) -> np.ndarray:
        """HxW or HxWx3 pixels of any depth -> HxWx3 in 0-255 units, with bright targets."""
        if self.dark:
            limits = limits and inverted_limits(limits, pixels.dtype)
            pixels = inverted(pixels)
        return to_units(pixels, limits)

    def read(
        self, path: Path, name: str = "", look: bool = True, raw: bytes | None = None
    ) -> tuple[np.ndarray, GreyFacts | None]:
        """An image file in 0-255 units, HxWx3: uint8 for 8 bits, float32 for others; and what is to be
        said of its grey values: None for one of 8 bits without a doubt, and without `look`. `raw` is
        what is in the file, where that was read already.

        Raises:
            DataError: not a readable image, or no pixel of it is a number.
        """
        pixels = decode(path, raw)
        if not finite(pixels).size:
            raise DataError(f"{path}: no pixel holds a number; all are NaN, infinite or nodata")
        limits = self.limits_of(pixels)
        found = doubts(pixels, limits, bool(self.limits), self.dark) if look else ()
        said = look and (limits or found)
        facts = GreyFacts(name, str(pixels.dtype), limits, found) if said else None
        return self.units(pixels, limits), facts

    def report(self, label: str, facts: list[GreyFacts], total: int) -> Iterator[str]:
        """What a run says of a list's grey values, by the facts that `read` gives for some of its
        `total` images: one line, and a note for each doubt."""
        deep = [f for f in facts if f.limits]
        if deep:
            types = ", ".join(sorted({f.depth for f in deep}))
            yield f"{label}: {types} in {len(deep)} of {total} images: {self.described(deep)}"
        elif self.limits or self.percentiles != PERCENTILES:
            yield f"{label}: all images have 8 bits; --range and --percentiles change nothing"
        for line in said_of([(f.name, doubt) for f in facts for doubt in f.doubts], "image"):
            yield f"note: {label}: {line}"

    def described(self, facts: list[GreyFacts]) -> str:
        """Which values of images of more than 8 bits become 0 and 255, in words."""
        ends = "255 and 0, inverted" if self.dark else "0 and 255"
        if self.limits:
            return f"{self.limits[0]:g} and {self.limits[1]:g} become {ends} (--range)"
        low, high = self.percentiles if not self.dark else (100 - p for p in self.percentiles[::-1])
        lows, highs = zip(*(f.limits for f in facts))
        values = " and ".join(f"{min(v):g} / {np.median(v):g} / {max(v):g}" for v in (lows, highs))
        which = f"percentiles {low:g} and {high:g} of each become {ends}"
        return f"{which}: {values} (smallest / median / largest)"
