"""Temperatures in the JPEGs of thermal cameras, with the optional package flyr."""

import contextlib
from pathlib import Path

import numpy as np
from PIL import Image

from ismallnet.cli import DataError, note, optional
from ismallnet.images.picture import READ_ERRORS, open_picture, orientation, oriented
from ismallnet.images.scientific import ERRORS

JPEG = (".jpg", ".jpeg")
MAKE = 271  # a tag of EXIF


def read_thermal(path: Path) -> np.ndarray | None:
    """The temperatures in a thermal camera's JPEG, °C, HxW float32, turned as its picture is.

    None where there are none, or where they cannot be read, which is said: FLIR's need the package
    flyr, DJI's are read by DJI's own programs alone.
    """
    with contextlib.suppress(*READ_ERRORS), open_picture(path) as picture:
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
        return oriented(celsius, orientation(picture, path))
    return None
