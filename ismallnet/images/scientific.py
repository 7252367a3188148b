"""Files of other programs, each with an optional package: FITS, DICOM, thermal JPEGs."""

import contextlib
from pathlib import Path

import numpy as np
from PIL import Image

from ismallnet.cli import DataError, note, optional, some
from ismallnet.images.tiff import ERRORS, ORIENTATION, oriented

FITS = (".fits", ".fit", ".fts")
DICOM = (".dcm", ".dicom")
JPEG = (".jpg", ".jpeg")
MAKE = 271  # a tag of EXIF


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


def read_thermal(path: Path) -> np.ndarray | None:
    """The temperatures in a thermal camera's JPEG, °C, HxW float32, turned as its picture is.

    None where there are none, or where they cannot be read, which is said: FLIR's need the package
    flyr, DJI's are read by DJI's own programs alone.
    """
    with contextlib.suppress(*ERRORS, Image.DecompressionBombError), Image.open(path) as picture:
        segments = getattr(picture, "applist", ())
        if any(data[:5] == b"FLIR\0" for _, data in segments):
            return read_flir(path, picture)
        if any(name == "APP3" for name, _ in segments) and is_dji(picture):
            note(
                "DJI",
                f"{path}: its 8-bit picture is used, not the temperatures in it; DJI's Thermal SDK "
                "saves these as raw files, which --raw WIDTHxHEIGHT:float32 reads",
            )
    return None


def is_dji(picture: Image.Image) -> bool:
    return str(picture.getexif().get(MAKE, "")).startswith("DJI")


def read_flir(path: Path, picture: Image.Image) -> np.ndarray | None:
    """`read_thermal` of FLIR's.

    Args:
        picture: the open file.
    """
    try:
        flyr = optional(
            "flyr", f"{path}: its 8-bit picture is used; for the temperatures in it detect.py"
        )
        celsius = np.asarray(flyr.unpack(str(path)).celsius, np.float32)
    except DataError as error:
        note("FLIR", str(error))
    except ERRORS as error:
        note("FLIR", f"{path}: its 8-bit picture is used; flyr cannot read the rest of it ({error!r})")
    else:
        note("temperatures", f"{path}: the temperatures in it are used, °C, not its 8-bit picture")
        return oriented(celsius, picture.getexif().get(ORIENTATION, 1))
    return None
