"""Files of other programs, each with an optional package: FITS, thermal JPEGs."""

import contextlib
from pathlib import Path

import numpy as np
from PIL import Image

from ismallnet.cli import DataError, note, optional
from ismallnet.files import READ_ERRORS
from ismallnet.images.tiff import ORIENTATION, oriented

FITS = (".fits", ".fit", ".fts")
JPEG = (".jpg", ".jpeg")


def read_fits(path: Path) -> np.ndarray:
    """The picture or pictures of a FITS file, (H, W) or (N, H, W), BZERO and BSCALE applied; NaN where
    they are BLANK.

    FITS counts rows from the bottom, so the file's last row is the picture's first one; not where the
    keyword ROWORDER, which camera programs write, says TOP-DOWN.
    """
    fits = optional("astropy.io.fits", f"{path}: reading it")
    with fits.open(path) as units:
        pictures = [unit for unit in units if unit.is_image and unit.header.get("NAXIS", 0) >= 2]
        if len(pictures) != 1:
            names = ", ".join(f"{unit.name} {unit.shape}" for unit in pictures) or "none"
            raise DataError(f"{path}: expected one unit with a picture, found {names}; save it alone")
        header = pictures[0].header.copy()  # before astropy scales, and removes what it has applied
        pixels = np.asarray(pictures[0].data)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if (blank := header.get("BLANK")) is not None and pixels.dtype.kind in "ui":
        blank = header.get("BZERO", 0) + header.get("BSCALE", 1) * blank
        pixels = np.where(pixels == blank, np.nan, pixels).astype(np.float32)
    top_down = str(header.get("ROWORDER", "")).strip().upper() == "TOP-DOWN"
    return pixels if top_down else np.flip(pixels, axis=-2)


def read_thermal(path: Path) -> np.ndarray | None:
    """The temperatures in a FLIR camera's JPEG, °C, HxW float32, turned as its picture is. None where
    there are none, or where they cannot be read, which is said."""
    with contextlib.suppress(*READ_ERRORS), Image.open(path) as picture:
        if not any(data[:5] == b"FLIR\0" for _, data in getattr(picture, "applist", ())):
            return None
        turn = picture.getexif().get(ORIENTATION, 1)
        try:
            flyr = optional("flyr", f"{path}: reading the temperatures in it")
            celsius = np.asarray(flyr.unpack(str(path)).celsius, np.float32)
        except (DataError, *READ_ERRORS) as error:
            note("FLIR", f"{path}: its 8-bit picture is used, not the temperatures in it ({error})")
            return None
        note("temperatures", f"{path}: the temperatures in it are used, °C, not its 8-bit picture")
        return oriented(celsius, turn)
    return None
