"""TIFFs that Pillow does not read, or reads wrongly, by tifffile."""

import logging
import math
import re
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError, optional

ORIENTATION, NODATA = 274, 42113  # tags of TIFF and EXIF, and GDAL's
MOST_VALUES = 2**28  # in a TIFF page; a damaged header may promise any number
# What NumPy, SciPy and the optional packages raise on damaged files.
ERRORS = (OSError, ValueError, TypeError, LookupError, EOFError, AttributeError, ArithmeticError)
ERRORS += (RuntimeError, MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error, struct.error)
ERRORS += (tokenize.TokenError,)


def quiet_tifffile(path: Path):
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said in one error
    return optional("tifffile", f"{path}: reading it")


def pictures_behind(description: str, shape: tuple[int, int]) -> int:
    """How many pictures the only page of a TIFF stands for: ImageJ, and tifffile for large stacks,
    write the others behind the first, without a page of their own.

    Args:
        description: the page's tag 270.
        shape: (H, W) of the page.
    """
    if count := re.search(r"^ImageJ=.*?^images=(\d+)", description, re.DOTALL | re.MULTILINE):
        return int(count[1])
    found = re.match(r'{"shape": \[([\d, ]+)\]', description)
    sides = [int(side) for side in found[1].split(",")] if found else []
    return math.prod(sides[:-2]) if tuple(sides[-2:]) == shape else 1


def read_behind(path: Path) -> np.ndarray:
    """All pictures of a TIFF with `pictures_behind` its only page, (N, H, W), left on disk."""
    pixels = quiet_tifffile(path).memmap(path, mode="r")
    return pixels.reshape(-1, *pixels.shape[-2:])


def without_orientation(raw: bytes, page: int) -> bytes:
    """A TIFF's bytes with orientation 1 in a page: as its pixels lie in the file, whoever reads it.

    Raises:
        ValueError, struct.error: the page has no orientation, or is damaged.
    """
    order = "<" if raw[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", raw, 2)[0] == 43
    count, link, entry, start = ("Q", "Q", 20, 8) if big else ("H", "I", 12, 4)
    (at,) = struct.unpack_from(order + link, raw, start)
    for _ in range(page):
        (entries,) = struct.unpack_from(order + count, raw, at)
        (at,) = struct.unpack_from(
            order + link, raw, at + struct.calcsize(f"<{count}") + entries * entry
        )
    (entries,) = struct.unpack_from(order + count, raw, at)
    at += struct.calcsize(f"<{count}")
    found = bytearray(raw)
    for place in range(at, at + entries * entry, entry):
        tag, kind = struct.unpack_from(f"{order}HH", raw, place)
        if tag == ORIENTATION:
            struct.pack_into(order + ("I" if kind == 4 else "H"), found, place + entry // 2 + 2, 1)
    if found == raw:
        raise ValueError("orientation")
    return bytes(found)


def without_nodata(pixels: np.ndarray, text: str) -> np.ndarray:
    """Pixels of GDAL's nodata value as NaN, which no contrast counts."""
    try:
        missing = pixels == float(text.strip("\0 "))
    except ValueError:
        return pixels
    return np.where(missing, np.nan, pixels).astype(np.float32) if missing.any() else pixels


def pages_of_tiff(path: Path) -> list[int]:
    """The numbers of the pictures in a TIFF that Pillow does not open; not of thumbnails, overviews and
    masks. One where it cannot be read either."""
    try:
        with quiet_tifffile(path).TiffFile(path) as file:
            return [n for n, page in enumerate(file.pages) if not int(page.subfiletype) & 0b101] or [0]
    except ERRORS:
        return [0]


def read_tiff(path: Path, page: int = 0) -> tuple[np.ndarray, int]:
    """A TIFF page that Pillow cannot read, as it lies in the file, and its orientation: float16 and
    float64, several bands.

    Raises:
        DataError: unreadable, or of 2, or more than 4 bands.
    """
    tifffile = quiet_tifffile(path)
    with tifffile.TiffFile(path) as file:
        found = file.pages[page]
        if not 0 < found.size <= MOST_VALUES:
            raise ValueError(f"found {found.shape} pixels")
        pixels, bands = found.asarray(), found.samplesperpixel
        colours = found.photometric == tifffile.PHOTOMETRIC.RGB
        white_is_zero = found.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        nodata, turn = (found.tags.get(tag) for tag in (NODATA, ORIENTATION))
        turn = 1 if turn is None else int(turn.value)
    if pixels.size != found.size or pixels.ndim not in (2, 3) or pixels.dtype.kind not in "uif":
        raise ValueError(f"found {pixels.dtype} {pixels.shape}")  # a damaged header
    if bands > 1 and pixels.ndim == 3 and pixels.shape[0] == bands:  # one plane a band
        pixels = np.moveaxis(pixels, 0, -1)
    if bands == 1:
        pixels = pixels.reshape(pixels.shape[:2])
        if white_is_zero and pixels.dtype.kind == "u":
            pixels = ~pixels
        return (pixels if nodata is None else without_nodata(pixels, str(nodata.value))), turn
    if bands == 3 or (bands == 4 and colours):
        return pixels[..., :3], turn
    raise DataError(
        f"{path}: found {bands} bands, expected 1 (grey) or 3 (colours); save the band you need as a "
        f"file of its own, with GDAL: gdal_translate -b 1 {path.name} one.tif"
    )


def oriented(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Stored pixels as EXIF orientation 1 to 8 says they are to be seen."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
