"""FITS, with an optional package; thermal JPEGs, of which the picture alone is read."""

import contextlib
from pathlib import Path

import numpy as np
from PIL import Image

from ismallnet.cli import DataError, note, optional
from ismallnet.files import READ_ERRORS

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


def note_thermal(path: Path) -> None:
    """Says where the temperatures in a FLIR camera's JPEG are not used, and how to use them."""
    with contextlib.suppress(*READ_ERRORS), Image.open(path) as picture:
        if any(data[:5] == b"FLIR\0" for _, data in getattr(picture, "applist", ())):
            note(
                "temperatures",
                f"{path}: its 8-bit picture is used, not the temperatures in it; to use these: pip "
                f"install flyr, then numpy.save('{path.stem}.npy', flyr.unpack('{path.name}').celsius)",
            )
