"""What people have beside their frames, and in them: files that are no frames, temperatures."""

import importlib.util
import io
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile
from conftest import fails, picture, write
from PIL import Image
from scipy.io import savemat
from streaming import run

from detect import main
from ismallnet.cli import DataError
from ismallnet.detection.sources import find_sources, read_frames
from ismallnet.images.arrays import as_frames
from ismallnet.images.scientific import read_dicom


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
    for name in ("notes.txt", "Thumbs.db", "clip.xyz", "z.json", ".DS_Store", "._a.png", "sub/c.doc"):
        write(Path("f") / name, "x")
    assert [source.path.name for source in find_sources(["f"])] == ["a.png"]
    said = capsys.readouterr().err
    assert "f: 4 files are left out, which are no frames: Thumbs.db, clip.xyz, notes.txt …" in said
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


def test_linked_folders_are_named(capsys):
    write(Path("real/a.png"), picture())
    write(Path("f/sub/b.png"), picture())
    Path("f/link").symlink_to(Path("real").resolve())
    assert [source.path.name for source in find_sources(["f"], recursive=True)] == ["b.png"]
    assert "f: linked folders are left out: link/; name them" in capsys.readouterr().err
    assert len(find_sources(["f", "f/link"], recursive=True)) == 2


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


def test_temperatures_of_dji_are_named(capsys):
    image = Image.fromarray(picture())
    exif = image.getexif()
    exif[271] = "DJI"
    image.save("d.jpg", exif=exif)
    assert frame("d.jpg").pixels.dtype == np.uint8
    assert capsys.readouterr().err == ""
    raw = Path("d.jpg").read_bytes()
    Path("d.jpg").write_bytes(raw[:2] + b"\xff\xe3" + struct.pack(">H", 2 + 8) + bytes(8) + raw[2:])
    assert frame("d.jpg").pixels.dtype == np.uint8
    assert "d.jpg: its 8-bit picture is used" in capsys.readouterr().err


# --- several frames in a file ----------------------------------------------------------------------


def stack(count: int, shape=(40, 48)) -> np.ndarray:
    """(N, H, W), 16 bits."""
    return np.stack([picture(k, shape).astype(np.uint16) * 30 for k in range(count)])


def everything(path: str) -> list[np.ndarray]:
    (source,) = find_sources([path])
    return [found.pixels for found in read_frames([(source, list(range(source.count)))])]


def test_the_frames_of_matlab_are_along_the_last_axis(capsys):
    savemat("m.mat", {"frames": np.moveaxis(stack(9), 0, -1)})
    assert np.array_equal(everything("m.mat"), stack(9))
    said = capsys.readouterr().err
    assert "m.mat: (40, 48, 9) is read as 9 frames of 48x40 (width x height)" in said
    savemat("n.mat", {"frames": stack(9)})
    assert np.array_equal(everything("n.mat"), stack(9))
    np.save("s.npy", np.moveaxis(stack(9), 0, -1))  # as it is documented, and said
    assert len(everything("s.npy")) == 40
    assert "s.npy: (40, 48, 9) is read as 40 frames of 9x48" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "count", "last"),
    [
        ((96, 96, 60), 60, True),  # square frames, more of them than half of a side
        ((60, 96, 96), 60, False),
        ((40, 48, 25), 25, True),
        ((100, 480, 640), 100, False),  # 480x100 would be an odd frame
        ((480, 640, 500), 500, True),
    ],
)
def test_how_a_stack_of_matlab_was_read_is_always_said(shape, count, last, capsys):
    """Only the sides tell frames from rows, and a wrong guess looks like frames without targets."""
    array = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), shape, (0, 0, 0))
    found = as_frames(array, Path("m.mat"))
    assert found.shape == ((shape[2], *shape[:2]) if last else shape) and len(found) == count
    height, width = found.shape[1:]
    said = capsys.readouterr().err
    assert f"m.mat: {shape} is read as {count} frames of {width}x{height} (width x height)" in said
    assert ("save it as .npy as it is" if last else "numpy.moveaxis(array, -1, 0)") in said


def test_big_endian_arrays_are_looked_at_too():
    """A type of the other byte order is not equal to uint16, so no check of 16 bits was made."""
    np.save("a.npy", np.arange(40 * 48).reshape(40, 48).astype(">u2"))
    assert frame("a.npy").pixels.dtype == np.uint16 and frame("a.npy").pixels[39, 47] == 1919


def test_pictures_behind_the_only_page_of_a_tiff():
    """ImageJ writes stacks of more than 4 GB so, and tifffile truncated ones."""
    frames, text = stack(5), "ImageJ=1.53\nimages=5\nslices=5\n"
    tifffile.imwrite("i.tif", frames[0], description=text, metadata=None)
    assert len(everything("i.tif")) == 1  # the others are not there
    Path("i.tif").write_bytes(Path("i.tif").read_bytes() + frames[1:].tobytes())
    assert np.array_equal(everything("i.tif"), frames)
    tifffile.imwrite("t.tif", frames, photometric="minisblack", truncate=True)
    assert np.array_equal(everything("t.tif"), frames)
    tifffile.imwrite("p.tif", frames, photometric="minisblack")
    assert np.array_equal(everything("p.tif"), frames)


def test_one_frame_in_a_stack_of_arrays():
    np.savez("a.npz", frames=stack(1), times=np.zeros((1, 1)))
    assert np.array_equal(everything("a.npz"), stack(1))


@pytest.mark.parametrize("suffix, code", [(".ts", "MPG2"), (".flv", "FLV1"), (".y4m", "I420")])
def test_videos_of_recorders(suffix, code):
    writer = cv2.VideoWriter(f"v{suffix}", cv2.VideoWriter_fourcc(*code), 25, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {suffix}")
    for k in range(5):
        writer.write(np.dstack([picture(k, (48, 64))] * 3))
    writer.release()
    assert len(everything(f"v{suffix}")) == 5


def test_a_run_of_raw_files_is_resumed_with_the_same_layout_alone(network_file, capsys):
    Path("r.raw").write_bytes(stack(2).tobytes())
    assert run("r.raw", "--raw", "48x40:uint16") == 0
    argv = ["--weights", "w.pt", "--device", "cpu", "r.raw", "--resume", "--raw", "48x40:>u2"]
    assert "this run has raw 48x40:uint16, found 48x40:>u2" in fails(main, *argv, capsys=capsys)


# --- values ----------------------------------------------------------------------------------------


def test_the_values_of_a_12_bit_pgm_are_not_scaled():
    pixels = stack(1)[0] // 4
    write(Path("p.pgm"), b"P5\n48 40\n4095\n" + pixels.astype(">u2").tobytes())
    found = frame("p.pgm").pixels
    assert found.dtype == np.uint16 and np.array_equal(found, pixels)


@pytest.mark.parametrize("kind", [np.uint32, np.int32])
def test_integers_of_32_bits_keep_their_sign(kind):
    pixels = np.array([[np.iinfo(kind).max, 5], [np.iinfo(kind).min, 9]], kind)
    tifffile.imwrite("i.tif", pixels)
    assert np.array_equal(frame("i.tif").pixels, pixels)


def test_dicom_whose_low_values_are_white(monkeypatch):
    class Dataset(dict):
        pixel_array = np.array([[100, 300], [250, 101]], np.uint16)

    module = SimpleNamespace(dcmread=lambda path: Dataset(PhotometricInterpretation="MONOCHROME1"))
    monkeypatch.setitem(sys.modules, "pydicom", module)
    assert read_dicom(Path("x.dcm")).tolist() == [[300, 100], [150, 299]]
    Dataset.get = lambda self, key, value=None: value
    assert read_dicom(Path("x.dcm")).tolist() == [[100, 300], [250, 101]]


def test_a_link_that_leads_nowhere_is_an_error_that_names_it():
    write(Path("f/a.png"), picture())
    Path("f/b.png").symlink_to("gone.png")
    sources = find_sources(["f"])
    problems = [found.problem for found in read_frames([(source, [0]) for source in sources])]
    assert problems[0] == "" and "f/b.png: not a readable image ([Errno 2]" in problems[1]


def test_a_text_file_of_numbers_is_no_list_of_frames():
    Path("t.txt").write_text(" ".join(map(str, range(1000))))
    with pytest.raises(DataError, match=r"t\.txt: names 0 1 2 .{80,100} …, which is not there; .*csv$"):
        find_sources(["t.txt"])
    Path("t.txt").write_text("2" * 90 + "_7.png")  # at once, and no table
    with pytest.raises(DataError, match=r"_7\.png, which is not there; expected a file a line$"):
        find_sources(["t.txt"])


def test_lists_of_frames_may_be_utf16_and_hold_comments():
    write(Path("a.png"), picture())
    write(Path("#b.png"), picture())
    Path("l.txt").write_text("# frames of camera 2\na.png\n#b.png\n", encoding="utf-16")
    assert [source.path.name for source in find_sources(["l.txt"])] == ["a.png", "#b.png"]


def test_a_log_beside_frames_is_no_frame(capsys):
    write(Path("f/a.png"), picture())
    write(Path("f/log.csv"), "time,temperature\n12:00,21.5\n12:01,21.6\n")
    names = "time,lat,lon,alt,roll,pitch,yaw,temp 2,volt"
    write(Path("f/flight.csv"), "\n".join([names, *[",".join("123456789")] * 20]))
    write(Path("f/table.csv"), "\n".join(",".join("5" * 9) for _ in range(9)))
    assert [source.path.name for source in find_sources(["f"])] == ["a.png", "table.csv"]
    assert "2 files are left out, which are no frames: flight.csv, log.csv" in capsys.readouterr().err
    write(Path("f/empty.csv"), "")  # a frame that was not written is an error
    assert "empty.csv" in [source.path.name for source in find_sources(["f"])]
    (Path("f/a.png")).unlink()  # alone it may be meant as one
    assert len(find_sources(["f"])) == 4
