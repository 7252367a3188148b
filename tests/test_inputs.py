"""What people have beside their frames, and in them: files that are no frames, temperatures."""

import importlib.util
import io
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import picture, write
from PIL import Image

from ismallnet.detection.frames import find_sources, read_frames


@pytest.fixture(autouse=True)
def _first_notes(monkeypatch):
    monkeypatch.setattr("ismallnet.cli._noted", set())


def frame(path: str):
    (source,) = find_sources([path])
    return next(read_frames([(source, [0])]))


# --- files that are left out -----------------------------------------------------------------------


def test_files_that_are_no_frames_are_counted_and_named(capsys):
    for name in ("a.png", "sub/b.png"):
        write(Path("f") / name, picture())
    for name in ("notes.txt", "Thumbs.db", "clip.h264", "z.json", ".DS_Store", "._a.png", "sub/c.doc"):
        write(Path("f") / name, "x")
    assert [source.path.name for source in find_sources(["f"])] == ["a.png"]
    said = capsys.readouterr().err
    assert "f: 4 files are left out, which are no frames: Thumbs.db, clip.h264, notes.txt …" in said
    find_sources(["f"])
    assert capsys.readouterr().err == ""  # once a run
    write(Path("g/a.png"), picture())
    find_sources(["g"])
    assert capsys.readouterr().err == ""


def test_with_sub_folders_their_files_count_too(capsys):
    write(Path("f/sub/b.png"), picture())
    write(Path("f/sub/c.doc"), "x")
    find_sources(["f"], recursive=True)
    assert "f: 1 files are left out, which are no frames: c.doc" in capsys.readouterr().err


# --- temperatures ----------------------------------------------------------------------------------

CAMERA = {0x20: 1, 0x24: 1, 0x28: 293.15, 0x2C: 293.15, 0x30: 293.15, 0x34: 1, 0x3C: 0.5}
CAMERA |= {0x58: 16528.178, 0x5C: 1427.5, 0x60: 1, 0x30C: 0.012258}  # Planck's R1, B, F, R2
CAMERA |= {0x70: 0.006569, 0x74: 0.01262, 0x78: -0.002276, 0x7C: -0.00667, 0x80: 1.9}  # the air


def radiometric(raw: np.ndarray, turn: int = 1) -> bytes:
    """A JPEG of 77 with a camera's raw values, as FLIR's tags are described for ExifTool: emissivity 1,
    Planck's O -1307."""
    values = struct.pack("<HHH", 2, raw.shape[1], raw.shape[0]).ljust(32, b"\0")
    values += raw.astype("<u2").tobytes()
    camera = bytearray(0x400)
    camera[0] = 2
    for at, value in CAMERA.items():
        struct.pack_into("<f", camera, at, value)
    struct.pack_into("<i", camera, 0x308, -1307)
    head = b"FFF\0".ljust(20, b"\0") + struct.pack(">III", 100, 64, 4)
    content, at = head.ljust(64, b"\0"), 64 + 4 * 32
    for kind, data in ((1, values), (0x20, bytes(camera))):
        content += struct.pack(">HHIIII", kind, 0, 100, 0, at, len(data)).ljust(32, b"\0")
        at += len(data)
    content = content.ljust(64 + 4 * 32, b"\0") + values + camera
    segment = b"FLIR\0\1\0\0" + content
    file, image = io.BytesIO(), Image.fromarray(np.full(raw.shape, 77, np.uint8))
    exif = image.getexif()
    exif[274] = turn
    image.save(file, "JPEG", exif=exif)
    jpeg = file.getvalue()
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + jpeg[2:]


RAW = np.full((40, 48), 15000, np.uint16)
RAW[10:13, 12:16] = 17000


def planck(value: float) -> float:
    return 1427.5 / np.log(16528.178 / (0.012258 * (value - 1307)) + 1) - 273.15


@pytest.mark.skipif(not importlib.util.find_spec("flyr"), reason="flyr is not installed")
def test_temperatures_by_planck_s_law(capsys):
    write(Path("t.jpg"), radiometric(RAW))
    pixels = frame("t.jpg").pixels
    assert pixels.dtype == np.float32 and pixels.shape == RAW.shape
    for at, value in (((0, 0), 15000), ((11, 13), 17000)):
        assert pixels[at] == pytest.approx(planck(value), abs=0.3)  # the air between takes the rest
    assert "t.jpg: the temperatures in it are used" in capsys.readouterr().err


@pytest.fixture
def flyr(monkeypatch):
    """In place of the package: temperatures are the raw values / 100."""
    module = SimpleNamespace(unpack=lambda path: SimpleNamespace(celsius=RAW / 100.0))
    monkeypatch.setitem(sys.modules, "flyr", module)
    return module


def test_temperatures_are_turned_as_the_picture_is(flyr, capsys):
    write(Path("t.jpg"), radiometric(RAW, turn=6))
    pixels = frame("t.jpg").pixels
    assert np.array_equal(pixels, np.rot90(RAW / 100.0, -1).astype(np.float32))
    write(Path("plain.jpg"), picture())
    assert frame("plain.jpg").pixels.dtype == np.uint8
    assert "plain.jpg" not in capsys.readouterr().err


def test_what_flyr_cannot_read_is_said(flyr, capsys, monkeypatch):
    def damaged(path):
        raise KeyError(1)

    monkeypatch.setattr(flyr, "unpack", damaged)
    write(Path("t.jpg"), radiometric(RAW))
    assert (frame("t.jpg").pixels == 77).all()
    assert "t.jpg: its 8-bit picture is used; flyr cannot read" in capsys.readouterr().err


def test_without_flyr_the_temperatures_are_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "flyr", None)  # import fails
    write(Path("t.jpg"), radiometric(RAW))
    assert (frame("t.jpg").pixels == 77).all()
    said = capsys.readouterr().err
    assert "t.jpg: its 8-bit picture is used" in said and "pip install flyr" in said
    assert said.count("note:") == 1
