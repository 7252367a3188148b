"""What the pixels of mask files mean: decided once for a data set, from all masks of its lists."""

import hashlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.datasets.sample import MaskRule, Sample
from ismallnet.files import READ_ERRORS
from ismallnet.images.picture import decode, image_shape, open_picture
from ismallnet.parallel import read_ahead

ASPECT_TOLERANCE = 0.02  # between a mask and its image
TARGET = 128  # grey values from here up are target, unless --mask-threshold says otherwise


def mask_pixels(path: str | os.PathLike) -> np.ndarray:
    """A mask file's values at their own depth, HxW. Colours count by their largest channel; of a
    palette that is not grey every pixel that is not black is 255; alpha is the mask where the colours
    are constant, and alpha is not or is 0, and in cut-outs. Where a palette is black altogether its
    numbers count.
    Signed integers of 8 bits are taken for unsigned ones: 255 in them is -1.

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
        if (np.ptp(alpha) or not alpha.any()) and not np.ptp(colours.reshape(-1, 3), axis=0).any():
            return alpha
        if mode in ("RGBA", "LA", "PA") and is_cut_out(colours, alpha):
            return np.where(alpha > 0, np.maximum(alpha, colours.max(axis=2)), 0)
        if mode in ("P", "PA") and (colours != colours[..., :1]).any():
            return np.where(colours.any(axis=2), 255, 0).astype(np.uint8)
    pixels = pixels.max(axis=2) if pixels.ndim == 3 else pixels
    pixels = pixels.view(np.uint8) if pixels.dtype == np.int8 else pixels
    return np.nan_to_num(pixels).clip(0, 65535) if pixels.dtype.kind in "fi" else pixels


def is_cut_out(colours: np.ndarray, alpha: np.ndarray) -> bool:
    """Whether a mask is its targets' own pixels before a transparent background: all transparent pixels
    have one colour, and none of the others is black."""
    clear = alpha == 0
    if clear.all() or not clear.any() or np.ptp(colours[clear], axis=0).any():
        return False
    return bool(colours[~clear].any(axis=1).all())


def palette_numbers(path: Path) -> np.ndarray:
    """The numbers of a mask's pixels in its palette, HxW uint8."""
    with open_picture(path) as picture:
        return np.array(picture)


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


def read_mask(sample: Sample, shape: tuple[int, int], threshold: int = TARGET) -> np.ndarray:
    """The ground truth of a sample at its image's size (H, W): HxW uint8, 0 or 255."""
    if sample.mask is None:
        return np.zeros(shape, np.uint8)
    values = read_mask_values(sample.mask, shape, sample.rule)
    return np.where(values >= threshold, 255, 0).astype(np.uint8)


def is_resized(sample: Sample, shape: tuple[int, int]) -> bool:
    """Whether a sample's mask file has another size than its image."""
    return sample.mask is not None and image_shape(sample.mask) != shape


def resized_note(names: list[str]) -> str:
    """What a run says, once, of the masks that it resized."""
    which = f" ({some(names)})" if names else ""
    return f"{len(names)} masks resized to their images{which}"


def nearly(sample: Sample, shape: tuple[int, int]) -> bool:
    """Whether a sample's mask lacks, or has, up to 4 rows or columns of its image: it was cut or padded
    rather than made smaller."""
    return all(abs(one - other) <= 4 for one, other in zip(image_shape(sample.mask), shape))


def masks_digest(samples: list[Sample]) -> str:
    """A digest of the names of samples and of their masks' contents, of which figures are."""
    whole = hashlib.sha256()
    for sample, raw in zip(samples, read_ahead(mask_bytes, samples)):
        whole.update(f"{sample.name} {zlib.crc32(raw)}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def mask_bytes(sample: Sample) -> bytes:
    return sample.mask.read_bytes() if sample.mask else b""
