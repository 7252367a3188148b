"""Files that Pillow does not read, or reads wrongly: FITS, DICOM, scientific TIFFs; and files
that are not what their name says, recognised by their first bytes."""

import logging
import math
import re
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError, note, optional, some

FITS = (".fits", ".fit", ".fts")
DICOM = (".dcm", ".dicom")
ORIENTATION, NODATA = 274, 42113  # tags of TIFF and EXIF, and GDAL's
MOST_VALUES = 2**28  # in a TIFF page; a damaged header may promise any number
# What NumPy, SciPy and the optional packages raise on damaged files.
ERRORS = (OSError, ValueError, TypeError, LookupError, EOFError, AttributeError, ArithmeticError)
ERRORS += (RuntimeError, MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error, struct.error)
ERRORS += (tokenize.TokenError,)


def read_fits(path: Path) -> np.ndarray:
    """The pictures of a FITS file, (H, W) or (N, H, W), BZERO and BSCALE applied: those of its first
    unit with any, and of all others of its size, depth and name. A note says which are left out.

    FITS counts rows from the bottom, so the file's last row is the picture's first one; not where the
    keyword ROWORDER, which camera programs write, says TOP-DOWN.
    """
    fits = optional("astropy.io.fits", f"{path}: reading it")
    with fits.open(path) as units:
        found = [n for n, unit in enumerate(units) if holds_picture(unit)]
        if not found:
            raise DataError(f"{path}: found no picture in this FITS file")
        same = [n for n in found if kind_of_unit(units[n]) == kind_of_unit(units[found[0]])]
        same = same[: None if len(units[found[0]].shape) == 2 else 1]
        if others := [str(n) for n in found if n not in same]:
            note(
                f"units of {path}",
                f"{path}: of {len(found)} units with pictures {len(same)} are read; left out: "
                f"{some(others)}. Save those that you need as files of their own",
            )
        pictures = [fits_picture(units[n]) for n in same]
    return pictures[0] if len(same) == 1 else np.stack(pictures)


def holds_picture(unit) -> bool:
    """Whether a unit of a FITS file holds an array of two sides or more."""
    return unit.is_image and unit.header.get("NAXIS", 0) >= 2


def kind_of_unit(unit) -> tuple:
    """What frames of one sequence have in common: size, depth, and their name without a number; errors
    and masks of a picture (ERR, DQ) have other ones."""
    name = "" if unit.name == "PRIMARY" else unit.name.rstrip("0123456789")
    return unit.shape, unit.header.get("BITPIX"), name


def fits_picture(unit) -> np.ndarray:
    """The array of a FITS unit, the picture's first row first; pixels that are BLANK as NaN."""
    header = unit.header
    blank = header.get("BLANK")
    if blank is not None:  # before astropy scales, which leaves it as it is in unsigned integers
        blank = header.get("BZERO", 0) + header.get("BSCALE", 1) * blank
    top_down = str(header.get("ROWORDER", "")).strip().upper() == "TOP-DOWN"
    data = np.asarray(unit.data)
    data = data if top_down else np.flip(data, axis=-2)
    data = data.astype(data.dtype.newbyteorder("="))
    if blank is not None and data.dtype.kind in "ui" and (data == blank).any():
        data = np.where(data == blank, np.nan, data).astype(np.float32)
    return data


def read_dicom(path: Path) -> np.ndarray:
    """The pixels of a DICOM file, with its slope and intercept; of those in which low values are white
    (MONOCHROME1) inverted."""
    pydicom = optional("pydicom", f"{path}: reading it")
    try:
        dataset = pydicom.dcmread(path)
        pixels = np.asarray(dataset.pixel_array)
    except DataError:
        raise
    except Exception as error:  # pydicom's own ones have nothing in common
        raise ValueError(str(error)) from error
    slope, intercept = (float(dataset.get(key, value)) for key, value in
                        (("RescaleSlope", 1), ("RescaleIntercept", 0)))  # fmt: skip
    pixels = pixels if (slope, intercept) == (1, 0) else pixels * slope + intercept
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    return pixels.max() - pixels + pixels.min() if inverted else pixels


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
