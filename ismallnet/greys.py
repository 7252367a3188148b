"""Grey range of a data set's images of more than 8 bits: which values become 0 and 255, and what a run
says of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.images import (
    PERCENTILES,
    decode,
    few_bright_pixels,
    no_scene,
    to_units,
    value_limits,
)

EXTREME = 0.1  # percent of the pixels, at either end, that may be dead or hot

SATURATED = 0.02  # up to this share of the pixels, one brightest value may be that of targets


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


@dataclass(frozen=True)
class GreyRange:
    """Which values of images of more than 8 bits become 0 and 255.

    Args:
        limits: the same two for all images (--range); by default
        percentiles: of each image's own values.
    """

    limits: tuple[float, float] | None = None
    percentiles: tuple[float, float] = PERCENTILES

    def read(self, path: Path, name: str = "") -> tuple[np.ndarray, GreyFacts | None]:
        """An image in 0-255 units, as `read_image` gives it, and its grey values; None for 8 bits.

        Raises:
            DataError: not a readable image, or no pixel of it is a number.
        """
        pixels = decode(path)
        if pixels.dtype == np.uint8:
            return to_units(pixels, None), None
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).any():
            raise DataError(f"{path}: no pixel holds a number; all are NaN, infinite or nodata")
        limits = tuple(self.limits or value_limits(pixels, self.percentiles))
        return to_units(pixels, limits), self.facts(name, pixels, limits)

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
            return GreyFacts(name, depth, limits, missing)
        cut = max(low - least, most - high) > high - low
        dark = bool(np.percentile(pixels, EXTREME) > (low + high) / 2)
        edge = no_scene(image, limits, SATURATED)
        return GreyFacts(
            name, depth, limits, missing, cut, dark, few_bright_pixels(pixels, limits), edge
        )

    def report(self, label: str, facts: list[GreyFacts], total: int) -> Iterator[str]:
        """What a run says of a list's grey values: one line, and a note for each kind of image that
        should be looked at.

        Args:
            label: of the list.
            facts: of its images of more than 8 bits.
            total: all its images.
        """
        if not facts:
            if self != GreyRange():
                yield f"{label}: all images have 8 bits; --range and --percentiles change nothing"
            return
        head = (
            f"{label}: {', '.join(sorted({f.depth for f in facts}))} in {len(facts)} of {total} images"
        )
        if self.limits:
            yield f"{head}: {self.limits[0]:g} and {self.limits[1]:g} become 0 and 255 (--range)"
        else:
            low, high = (three_of([f.limits[end] for f in facts]) for end in (0, 1))
            which = " and ".join(f"{p:g}" for p in self.percentiles)
            yield (
                f"{head}: percentiles {which} of each become 0 and 255: {low} and {high} "
                "(smallest / median / largest)"
            )
        for key, text in NOTES.items():
            if names := [f.name for f in facts if getattr(f, key)]:
                yield f"note: {label}: {len(names)} images {text}: {some(names)}"


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
