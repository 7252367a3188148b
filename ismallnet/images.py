"""One image or mask file: its pixels at their own depth, its size, and its values in 0-255 units."""

import os
import struct
import tokenize
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ismallnet.cli import DataError

ASPECT_TOLERANCE = 0.02  # between a mask and its image
# What Pillow and NumPy raise on damaged files.
READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, TypeError, AttributeError, LookupError)
READ_ERRORS += (ArithmeticError, MemoryError, RuntimeError, struct.error, tokenize.TokenError)
READ_ERRORS += (Image.DecompressionBombError,)


def open_picture(path: Path) -> Image.Image:
    """A file as Pillow opens it, for `decode_page`; a context manager."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large ones, odd EXIF: read all the same
        return Image.open(path)


def decode(path: Path) -> np.ndarray:
    """An image file as HxW or HxWxC, at its own depth; palettes expanded, whole or not at all.

    Raises:
        DataError: not an image, truncated or damaged.
    """
    try:
        with open_picture(path) as picture:
            return decode_page(picture, path)
    except READ_ERRORS as error:
        raise DataError(f"{path}: not a readable image ({error})") from error


def decode_page(picture: Image.Image, path: Path, page: int = 0) -> np.ndarray:
    """`decode` of one page of an open file.

    Raises:
        DataError: the page is truncated or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if page:
                picture.seek(page)
            rawmode = str(picture.tile[0][3]) if picture.tile else ""
            picture.load()
        deep = ";16" in rawmode and "BGR;16" not in rawmode  # that one is 5, 6 and 5 bits
        if deep and picture.mode in ("RGB", "RGBA", "LA"):  # Pillow keeps only 8 of the bits
            if page:
                pixels = (*cv2.imreadmulti(str(path), page, 1, flags=cv2.IMREAD_UNCHANGED)[1], None)[0]
            else:
                pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
            if pixels is None:
                raise OSError("damaged")
            return cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2RGB)
        if picture.mode in ("1", "LA", "La"):
            picture = picture.convert("L")
        elif picture.mode in ("P", "PA"):
            picture = picture.convert("RGBA")
        elif picture.mode not in ("L", "RGB", "RGBA", "I", "F") and "I;16" not in picture.mode:
            picture = picture.convert("RGB")
        pixels = np.array(picture)
    except READ_ERRORS as error:
        raise DataError(f"{path}: not a readable image ({error})") from error
    if pixels.ndim == 3:
        pixels = pixels[..., :3]  # alpha is ignored
    return pixels.astype(np.uint16) if pixels.dtype.kind == "u" and pixels.itemsize == 2 else pixels


def read_image(path: str | os.PathLike, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """An image in 0-255 units.

    Args:
        path: 8- or 16-bit PNG, BMP, JPEG or TIFF; grey, RGB, RGBA (alpha ignored) or palette.
        value_range: (min, max) that become 0 and 255 where the file has more than 8 bits; the
            image's own minimum and maximum by default.

    Returns:
        HxWx3: uint8 for 8-bit files, float32 for others; grey repeated.

    Raises:
        DataError: not an image, truncated or damaged.
    """
    pixels = decode(Path(path))
    return to_units(pixels, value_range or value_limits(pixels))


def value_limits(
    pixels: np.ndarray, percentiles: tuple[float, float] = (0, 100)
) -> tuple[float, float] | None:
    """The values that become 0 and 255: percentiles of the image's own finite ones; None for 8 bits,
    which stay as they are."""
    if pixels.dtype == np.uint8:
        return None
    if pixels.dtype.kind == "f":
        pixels = pixels[np.isfinite(pixels)]
    if not pixels.size:
        return 0.0, 0.0
    if tuple(percentiles) == (0, 100):
        return float(pixels.min()), float(pixels.max())
    low, high = np.percentile(pixels, percentiles)
    return float(low), float(high)


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
            pixels = np.nan_to_num(pixels, nan=middle, posinf=high, neginf=low)
        pixels = ((pixels - low) * (255 / max(high - low, 1e-12))).clip(0, 255)
        pixels = pixels.astype(np.float32, copy=False)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def read_mask_values(path: str | os.PathLike, shape: tuple[int, int] | None = None) -> np.ndarray:
    """A mask file's grey values, HxW uint8: colours by their largest channel, 0/1 as 0/255.

    Args:
        shape: the image's (H, W); a mask of another size is brought to it by nearest neighbour.

    Raises:
        DataError: unreadable, or its aspect ratio is more than 2 % off the image's.
    """
    pixels = decode(Path(path))
    if pixels.ndim == 3:
        pixels = pixels.max(axis=2)
    if shape is not None and pixels.shape != shape:  # before anything is made of the values
        (h, w), (height, width) = pixels.shape, shape
        aspect = (w * height) / (h * width)
        if max(aspect, 1 / aspect) > 1 + ASPECT_TOLERANCE:
            raise DataError(
                f"{path}: the mask is {w}x{h}, its image {width}x{height} (width x height): expected "
                f"the same size, or the same shape within {ASPECT_TOLERANCE:.0%}"
            )
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST)
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels).clip(0, 65535)
    if pixels.max() <= 1:
        pixels = (pixels * 255).astype(np.uint8)
    elif pixels.dtype.kind == "f" and pixels.max() <= 255:
        pixels = pixels.astype(np.uint8)
    elif pixels.dtype != np.uint8:  # 16 bits: 65535 becomes 255, and no target pixel becomes 0
        pixels = np.maximum(pixels.clip(0, 65535) // 257, pixels > 0).astype(np.uint8)
    return pixels


def image_shape(path: str | os.PathLike) -> tuple[int, int]:
    """(H, W) of an image file, from its header alone."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except READ_ERRORS as error:
        raise DataError(f"{path}: not a readable image ({error})") from error
