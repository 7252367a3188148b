"""An image's values of any depth -> 0-255 units: which values become 0 and 255, and whether few of its
pixels take most of that range."""

import numpy as np

# The darkest 0.1 % of an image of more than 8 bits become 0: dead pixels. Targets are bright.
PERCENTILES = (0.1, 100.0)
SATURATED = 0.02  # up to this share of the pixels, one brightest value may be that of targets


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
