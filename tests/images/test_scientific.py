"""FITS, with and without its optional package, and thermal JPEGs."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import write
from PIL import Image
from streaming import deep, frames

from ismallnet.images.picture import decode
from ismallnet.images.scientific import note_thermal


@pytest.fixture(autouse=True)
def _first_notes(monkeypatch):
    monkeypatch.setattr("ismallnet.cli._noted", set())


@pytest.fixture
def fits():
    return pytest.importorskip("astropy.io.fits", reason="astropy is not installed")


def test_a_fits_file_with_offset_scale_and_sign(fits):
    for pixels in (deep() + 31000, deep().astype(np.int16) - 4000, deep() / np.float32(3)):
        fits.PrimaryHDU(pixels).writeto("x.fits", overwrite=True)
        found = decode(Path("x.fits"))
        assert np.array_equal(found, pixels[::-1]) and found.dtype.kind == pixels.dtype.kind


def test_rows_of_a_fits_file_are_counted_from_the_bottom_unless_it_says_otherwise(fits):
    for order, expected in (("TOP-DOWN", deep()), ("BOTTOM-UP", deep()[::-1])):
        header = fits.Header({"ROWORDER": order})
        fits.PrimaryHDU(deep(), header).writeto("x.fits", overwrite=True)
        assert np.array_equal(decode(Path("x.fits")), expected)


def test_blank_pixels_are_none_and_several_units_are_refused(fits):
    stored = (deep().astype(int) - 32768 + 5000).astype(np.int16)
    stored[3, 4] = 32767
    unit = fits.PrimaryHDU(stored)
    unit.header.update({"BZERO": 32768, "BSCALE": 1, "BLANK": 32767})
    unit.writeto("b.fits")
    (found,) = frames("b.fits")
    assert np.isnan(found[-4, 4]) and np.isnan(found).sum() == 1
    fits.HDUList([fits.PrimaryHDU(deep()), fits.ImageHDU(deep(), name="ERR")]).writeto("u.fits")
    (problem,) = frames("u.fits")
    assert "u.fits" in problem and "ERR" in problem


def test_without_its_package_a_file_says_what_to_type(monkeypatch):
    for module in ("astropy", "astropy.io.fits"):
        monkeypatch.setitem(sys.modules, module, None)  # import fails
    (problem,) = frames(write(Path("a.fits"), b"x"))
    assert "a.fits" in problem and "pip install astropy" in problem


def radiometric() -> Path:
    """t.jpg, a JPEG of 77 with a FLIR segment."""
    file = io.BytesIO()
    Image.fromarray(np.full((40, 48), 77, np.uint8)).save(file, "JPEG")
    jpeg, segment = file.getvalue(), b"FLIR\0\1\0\0raw!"
    start = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment
    return write(Path("t.jpg"), start + jpeg[2:])


def test_of_a_thermal_jpeg_the_picture_is_used_and_it_is_said(capsys):
    (pixels,) = frames(radiometric())
    said = capsys.readouterr().err
    assert (pixels == 77).all() and "t.jpg: its 8-bit picture is used" in said and "flyr" in said
    Image.fromarray(np.zeros((40, 48), np.uint8)).save("plain.jpg")
    note_thermal(Path("plain.jpg"))
    assert capsys.readouterr().err == ""
