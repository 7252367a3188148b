"""People's own files: each is read as it is meant, or refused with what it is and what to type."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from conftest import fails, picture, write
from PIL import Image
from scipy.io import savemat
from streaming import deep, frames, results, run

from detect import main
from ismallnet.cli import DataError
from ismallnet.detection.sources import find_sources
from ismallnet.detection.videos import missing_bytes
from ismallnet.images.arrays import RawLayout, as_frames, read_csv
from ismallnet.images.grey import GreyRange, doubts, value_limits
from ismallnet.images.picture import decode

# --- contrast --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", [0, 1])
def test_dead_pixels_do_not_change_the_contrast(dead):
    clean = np.random.default_rng(0).integers(7000, 7400, (60, 60)).astype(np.uint16)
    dead_one = clean.copy()
    dead_one[5, 5] = dead
    assert value_limits(dead_one)[0] >= 7000 and value_limits(dead_one)[1] == clean.max()
    assert value_limits(np.array([[3, 9]], np.uint16)) == (3, 9)  # of two pixels none is cut off


def test_hot_pixels_are_said_to_be_there(capsys, network_file):
    hot = deep()
    assert not doubts(hot, value_limits(hot))
    hot = np.full((80, 80), 7000, np.uint16) + np.arange(80, dtype=np.uint16)
    hot[3, 3] = 60000
    assert doubts(hot, value_limits(hot)) == ("hot",)
    write(Path("f/a.png"), deep())
    write(Path("f/hot.png"), hot)
    run("f")
    assert "note: 1 frames have few pixels" in capsys.readouterr().err
    run("f", "--range", 7000, 7100, "--overwrite")
    assert "few pixels" not in capsys.readouterr().err


def test_nodata_and_nan_are_no_pixels():
    pixels = deep().astype(np.float32)
    border = pixels.copy()
    border[:, :6] = -9999
    tifffile.imwrite("n.tif", border, extratags=[(42113, "s", 0, "-9999", True)])
    found = decode(Path("n.tif"))
    assert np.isnan(found[:, :6]).all() and np.array_equal(found[:, 6:], pixels[:, 6:])
    assert value_limits(found)[0] >= pixels.min()
    assert np.isfinite(GreyRange().read(Path("n.tif"))[0]).all()


# --- arrays and other files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, count",
    [
        ((9, 8), 1),
        ((9, 8, 1), 1),
        ((9, 8, 3), 1),
        ((5, 9, 8), 5),
        ((5, 9, 8, 1), 5),
        ((5, 9, 8, 3), 5),
        ((9, 8, 2), 0),
        ((9, 8, 4), 0),
        ((5, 9, 8, 2), 0),
        ((0, 9, 8), 0),
        ((9,), 0),
    ],
)
def test_shapes_of_arrays(shape, count):
    array = np.zeros(shape, np.float32)
    if count:
        found = as_frames(array, Path("a.npy"))
        assert len(found) == count and found.shape[1:3] == (9, 8)
    else:
        with pytest.raises(DataError, match=r"a.npy: found shape"):
            as_frames(array, Path("a.npy"))


def test_arrays_of_other_programs():
    np.savez("a.npz", frame=deep(1))
    savemat("b.mat", {"img": deep(2), "fps": 25.0, "name": "x"})
    np.savetxt("c.csv", deep(3), delimiter=",", header="camera, 2026", fmt="%d")
    for name, k in (("a.npz", 1), ("b.mat", 2), ("c.csv", 3)):
        (found,) = frames(name)
        assert np.array_equal(found, deep(k)), name
    np.savez("two.npz", a=deep(), b=deep())
    assert "expected one picture in it, found a (40, 48), b (40, 48)" in frames("two.npz")[0]


def test_raw_files_need_their_size():
    Path("f").mkdir()
    Path("f/a.raw").write_bytes(deep(1).tobytes() + deep(2).tobytes())
    found = frames("f", raw=RawLayout("48x40:uint16"))
    assert np.array_equal(found, [deep(1), deep(2)])
    Path("f/a.raw").write_bytes(deep(3).astype(">u2").tobytes())
    assert np.array_equal(frames("f/a.raw", raw=RawLayout("48x40:>u2"))[0], deep(3))
    assert "expected a multiple of 2400" in frames("f/a.raw", raw=RawLayout("40x30:uint16"))[0]
    assert "--raw WIDTHxHEIGHT:TYPE" in frames("f/a.raw")[0]
    for text in ("48", "0x4:u1", "48x40:text", "axb"):
        with pytest.raises(DataError, match="expected WIDTHxHEIGHT:TYPE"):
            RawLayout(text)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.png", POINTER, "git lfs pull"),
        ("a.mp4", POINTER, "git lfs pull"),
        ("a.npy", POINTER, "git lfs pull"),
        ("a.tif", "<!DOCTYPE html><title>404</title>", "a web page"),
        ("a.png", b"", "an empty file"),
        ("a.seq", b"FFF\0\0\0", "a FLIR sequence"),
        ("a.dcm", b"DICM", "pip install pydicom"),
        ("a.fits", b"SIMPLE  =", "pip install astropy"),
    ],
)
def test_files_that_are_not_what_their_name_says(name, content, message):
    for package, suffix in (("astropy", ".fits"), ("pydicom", ".dcm")):
        if name.endswith(suffix):
            try:
                __import__(package)
                pytest.skip(f"{package} is installed")
            except ImportError:
                pass
    write(Path(name), content)
    assert message in str(frames(name)[0])


def test_a_fits_file_with_offset_scale_and_sign():
    fits = pytest.importorskip("astropy.io.fits", reason="astropy is not installed")
    for pixels in (deep() + 31000, deep().astype(np.int16) - 4000, deep() / np.float32(3)):
        fits.PrimaryHDU(pixels).writeto("x.fits", overwrite=True)
        found = decode(Path("x.fits"))
        assert np.array_equal(found, pixels[::-1]) and found.dtype.kind == pixels.dtype.kind


def test_rows_of_a_fits_file_are_counted_from_the_bottom_unless_it_says_otherwise():
    fits = pytest.importorskip("astropy.io.fits", reason="astropy is not installed")
    pixels = deep()
    for order, expected in (("TOP-DOWN", pixels), ("BOTTOM-UP", pixels[::-1])):
        header = fits.Header({"ROWORDER": order})
        fits.PrimaryHDU(pixels, header).writeto("x.fits", overwrite=True)
        assert np.array_equal(decode(Path("x.fits")), expected)


def test_a_fits_file_under_another_name_is_never_read_by_pillow():
    cards = [f"{key:8}= {value:>20}" for key, value in (("SIMPLE", "T"), ("BITPIX", 16), ("NAXIS", 2))]
    cards += [f"{key:8}= {value:>20}" for key, value in (("NAXIS1", 4), ("NAXIS2", 4))]
    head = "".join(f"{card:80}" for card in [*cards, "END"]).ljust(2880)
    write(Path("x.png"), head.encode() + struct.pack(">16h", *range(16)).ljust(2880, b"\0"))
    with pytest.raises(DataError, match=r"a FITS file; rename it to x.fits"):
        decode(Path("x.png"))


def test_a_thermal_cameras_jpeg_says_what_is_not_used(capsys, monkeypatch):
    monkeypatch.setattr("ismallnet.cli._noted", set())
    Image.fromarray(picture()).save("t.jpg")
    raw = Path("t.jpg").read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", 2 + 12) + b"FLIR\0\1\0\0" + b"raw!"
    Path("t.jpg").write_bytes(raw[:2] + segment + raw[2:])
    assert decode(Path("t.jpg")).shape == (40, 48)
    assert "t.jpg: also holds the camera's raw data" in capsys.readouterr().err


# --- videos and folders ----------------------------------------------------------------------------


def test_a_video_of_16_bits_keeps_them():
    size = (48, 40)
    params = [cv2.VIDEOWRITER_PROP_DEPTH, cv2.CV_16U, cv2.VIDEOWRITER_PROP_IS_COLOR, 0]
    writer = cv2.VideoWriter("d.mkv", cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"FFV1"), 10, size, params)
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write 16-bit video")
    for k in range(3):
        writer.write(deep(k))
    writer.release()
    found = frames("d.mkv")
    assert len(found) == 3
    assert all(f.dtype == np.uint16 and np.array_equal(f, deep(k)) for k, f in enumerate(found))


def matroska(size: bytes, contents: int) -> bytes:
    """An EBML header of 4 bytes of contents, and a segment with its size and so many bytes."""
    return b"\x1a\x45\xdf\xa3\x84abcd\x18\x53\x80\x67" + size + bytes(contents)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (matroska(b"\x84", 4), 0),
        (matroska(b"\x84", 1), 3),
        (matroska(b"\x40\x0a", 7), 3),  # sizes of 2 and of 8 bytes
        (matroska(b"\x01" + (2**40).to_bytes(7, "big"), 9), 2**40 - 9),
        (matroska(b"\x01" + b"\xff" * 7, 9), 0),  # unknown
        (matroska(b"\xff", 9), 0),
        (matroska(b"\x84", 4)[:9], 0),
        (b"RIFF" + (20).to_bytes(4, "little") + b"AVI " + bytes(16), 0),
        (b"RIFF" + (20).to_bytes(4, "little") + b"AVI " + bytes(9), 7),
        (bytes((0, 0, 0, 9)) + b"ftyp." + bytes((0, 0, 0, 12)) + b"mdatabcd", 0),
        (bytes((0, 0, 0, 9)) + b"ftyp." + bytes((0, 0, 0, 12)) + b"mdatab", 2),
        (bytes((0, 0, 0, 9)) + b"ftyp." + bytes((0, 0, 0, 1)) + b"mdat" + bytes(7) + b"\x14abc", 1),
        (bytes((0, 0, 0, 9)) + b"ftyp." + bytes((0, 0, 0, 0)) + b"mdatabcd", 0),  # to the end
        (b"\xff\xd8\xff\xe0JFIF and more", 0),
        (b"", 0),
    ],
)
def test_bytes_that_a_matroska_file_lacks(raw, expected):
    Path("v.mkv").write_bytes(raw)
    assert missing_bytes(Path("v.mkv")) == expected


@pytest.mark.parametrize(("name", "code"), [("v.mkv", "FFV1"), ("v.avi", "MJPG"), ("v.mp4", "mp4v")])
def test_a_video_that_was_cut_off_is_said(capsys, monkeypatch, name, code):
    monkeypatch.setattr("ismallnet.cli._noted", set())
    backend = cv2.CAP_FFMPEG
    writer = cv2.VideoWriter(name, backend, cv2.VideoWriter_fourcc(*code), 10, (240, 200))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {code}")
    for k in range(8):
        writer.write(np.dstack([picture(k, (200, 240))] * 3))
    writer.release()
    assert len(frames(name)) == 8 and capsys.readouterr().err == ""
    raw = Path(name).read_bytes()
    Path(f"cut_{name}").write_bytes(raw[: len(raw) * 2 // 3])
    find_sources([f"cut_{name}"])
    said = capsys.readouterr().err
    assert f"cut_{name}: " in said and "missing at its end" in said
    if name != "v.mp4":  # whose index is at its end
        assert 0 < len(frames(f"cut_{name}")) < 8


def test_folders_of_folders(capsys, network_file, monkeypatch):
    monkeypatch.setattr("ismallnet.cli._noted", set())
    for sequence in ("s1", "s2"):
        for k in range(2):
            write(Path("seqs") / sequence / f"{k:05d}.png", picture(k))
    message = fails(main, "--weights", "w.pt", "seqs", capsys=capsys)
    assert "found frames in s1/, s2/ only; type --recursive" in message
    assert run("seqs", "--recursive") == 0 and len(results("seqs")[2]["images"]) == 4
    write(Path("seqs/a.png"), picture(5))
    assert run("seqs", "--name", "top") == 0 and len(results("top")[2]["images"]) == 1
    assert "frames in s1/, s2/ are left out" in capsys.readouterr().err
    write(Path("set/images/a.png"), picture())
    message = fails(main, "--weights", "w.pt", "set", capsys=capsys)
    assert "a data set, not frames; type python detect.py set/images" in message


def test_lists_streams_and_cameras(capsys):
    write(Path("f/a.png"), picture(1))
    write(Path("f/list.txt"), "a.png\n\n")
    assert len(frames("f/list.txt")) == 1
    write(Path("f/list.txt"), "b.png\n")
    assert "f/list.txt: names b.png, which is not there" in fails(main, "f/list.txt", capsys=capsys)
    for text in ("rtsp://camera/1", "0"):
        assert "type python detect.py --watch FOLDER" in fails(main, text, capsys=capsys)


def test_a_table_of_points_is_no_frame():
    write(Path("t.csv"), "x,y,t\n1,2,3\n4,5,6\n")
    with pytest.raises(DataError, match=r"t\.csv: found a table of 3 columns, expected a frame"):
        as_frames(read_csv(Path("t.csv")), Path("t.csv"))


def test_three_planes_say_how_they_are_read(capsys):
    stack = np.arange(3 * 20 * 24).reshape(3, 20, 24)
    assert as_frames(stack, Path("s.npy")).shape == (3, 20, 24)
    assert "s.npy: (3, 20, 24) is read as 3 frames. If it is one picture" in capsys.readouterr().err
    assert as_frames(np.moveaxis(stack, 0, -1), Path("c.mat")).shape == (1, 20, 24, 3)
    assert "is read as a picture in colours. If it is three frames" in capsys.readouterr().err
    grey = np.repeat(stack[0][..., None], 3, axis=2)
    assert as_frames(grey, Path("g.npy")).shape == (1, 20, 24, 3)
    assert capsys.readouterr().err == ""
