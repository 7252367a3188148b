"""Files that cameras and other programs write and that libraries read wrongly: read as they are meant,
or refused with what to do."""

import os
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from conftest import picture, write
from scipy.io import savemat

from ismallnet.cli import DataError
from ismallnet.detection.run import written_rate
from ismallnet.detection.sources import find_sources, read_frames
from ismallnet.detection.videos import in_fragments
from ismallnet.images.arrays import RawLayout, as_frames, read_array, read_csv
from ismallnet.images.picture import decode

VIDEOS = Path(__file__).parents[1] / "videos"


def deep(seed: int = 0) -> np.ndarray:
    return picture(seed).astype(np.uint16) * 30 + 2000


def frames(path: str | Path) -> list[np.ndarray | str]:
    """The pixels of all frames of a file, or what is wrong with them."""
    (source,) = find_sources([str(path)])
    found = read_frames([(source, list(range(source.count)))])
    return [frame.pixels if frame.pixels is not None else frame.problem for frame in found]


@pytest.fixture(autouse=True)
def _first_notes(monkeypatch):
    monkeypatch.setattr("ismallnet.cli._noted", set())


# --- videos ----------------------------------------------------------------------------------------


def test_an_interlaced_video_is_read_or_refused():
    """OpenCV 5.0 gives memory that nobody has filled, and says that all is well."""
    for found in frames(VIDEOS / "interlaced.mpg"):
        if isinstance(found, str):
            assert "interlaced.mpg, frame" in found and "ffmpeg -i interlaced.mpg -vf yadif" in found
        else:
            assert 100 < found.mean() < 130 and found.std() > 5


def test_a_video_in_fragments_has_more_frames_than_its_header_says():
    path = VIDEOS / "fragmented.mp4"
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) < 24
    assert in_fragments(path) and len(frames(path)) == 24


def test_frames_beyond_a_header_s_number_are_said(monkeypatch, capfd):
    monkeypatch.setattr("ismallnet.detection.videos.in_fragments", lambda path: False)
    assert len(frames(VIDEOS / "fragmented.mp4")) == 6
    assert "its header promises 6 frames, but others follow" in capfd.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_video_whose_name_is_no_text_is_an_error():
    name = os.fsdecode(b"cam\xe9ra.mp4")
    try:
        shutil.copy(VIDEOS / "fragmented.mp4", name)
    except OSError:
        pytest.skip("this file system has no such names")
    (problem,) = frames(name)
    assert "a name that is not UTF-8" in problem and "rename" in problem


@pytest.mark.parametrize(
    ("fps", "written"),
    [(25, 25), (29.97, 29.97), (66.6667, 66.67), (142.857, 142.86), (1000, 1000), (1e6, 65535)],
)
def test_the_rate_of_an_annotated_video_is_one_that_can_be_written(fps, written):
    assert written_rate(fps) == written
    writer = cv2.VideoWriter("v.mp4", cv2.VideoWriter_fourcc(*"mp4v"), written_rate(fps), (48, 40))
    assert writer.isOpened()
    writer.release()


def test_without_a_place_for_temporary_files_videos_are_read(monkeypatch):
    def refuse() -> None:
        raise FileNotFoundError("no temporary folder")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert len(frames(VIDEOS / "fragmented.mp4")) == 24


# --- TIFF ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float64", "float16", "uint64", ">u4", ">f4"])
def test_all_pages_of_a_tiff_that_pillow_does_not_open(kind):
    stack = np.stack([deep(k) for k in range(3)]).astype(kind)
    order = ">" if kind[0] == ">" else "<"
    tifffile.imwrite("s.tif", stack, photometric="minisblack", byteorder=order, bigtiff=order == ">")
    found = frames("s.tif")
    assert len(found) == 3 and all(np.array_equal(a, b) for a, b in zip(found, stack))
    with pytest.raises(DataError, match="found 3 pictures in it, expected one"):
        decode(Path("s.tif"))


@pytest.mark.parametrize("kind", ["int16", "int32", "float32", "uint16", "uint32"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_compressed_tiffs_with_the_high_byte_first(kind, tile):
    pixels = (deep().astype(np.int64) - (2500 if kind[0] == "i" else 0)).astype(kind)
    tifffile.imwrite("b.tif", pixels, byteorder=">", compression="zlib", tile=tile)
    found = decode(Path("b.tif"))
    assert found.dtype == kind and np.array_equal(found, pixels)


def sparse(path: str, tiles: list[np.ndarray | None], side=16, nodata: str = "") -> None:
    """A TIFF of two by two 16-bit tiles, of which some are left out, as GDAL writes it."""
    entries = 9 + bool(nodata)
    at = 8 + 2 + 12 * entries + 4
    places = [at + 32, at + 48]  # of the tiles' places and bytes
    data, starts, counts = b"", [], []
    for tile in tiles:
        raw = b"" if tile is None else tile.astype("<u2").tobytes()
        starts.append(0 if tile is None else at + 64 + len(data))
        counts.append(len(raw))
        data += raw
    tags = [(256, 3, 1, 2 * side), (257, 3, 1, 2 * side), (258, 3, 1, 16), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 1), (322, 3, 1, side), (323, 3, 1, side)]
    tags += [(324, 4, 4, places[0]), (325, 4, 4, places[1])]
    raw = b"II*\0" + struct.pack("<IH", 8, entries)
    raw += b"".join(struct.pack("<HHII", *tag) for tag in tags)
    if nodata:
        raw += struct.pack("<HHI4s", 42113, 2, len(nodata) + 1, nodata.encode())
    raw += struct.pack("<I", 0) + bytes(32) + struct.pack("<8I", *starts, *counts)
    write(Path(path), raw + data)


def test_tiles_that_a_tiff_leaves_out_are_no_pixels_of_its_header():
    tile = np.arange(256, dtype=np.uint16).reshape(16, 16) + 7000
    sparse("s.tif", [tile, None, None, tile])
    found = decode(Path("s.tif"))
    assert np.array_equal(found[:16, :16], tile) and np.array_equal(found[16:, 16:], tile)
    assert not found[:16, 16:].any() and not found[16:, :16].any()
    sparse("s.tif", [tile, None, None, tile], nodata="0")
    found = decode(Path("s.tif"))
    assert np.array_equal(found[:16, :16], tile) and np.isnan(found[:16, 16:]).all()


def test_a_tiff_that_does_not_say_how_long_its_strips_are_is_read():
    pixels = deep()
    tifffile.imwrite("c.tif", pixels, rowsperstrip=10)
    with tifffile.TiffFile("c.tif") as file:
        tag = file.pages[0].tags["StripByteCounts"]
        at, size = tag.valueoffset, tag.count * (4 if tag.dtype == 4 else 2)
    raw = bytearray(Path("c.tif").read_bytes())
    raw[at : at + size] = bytes(size)
    write(Path("c.tif"), bytes(raw))
    assert np.array_equal(decode(Path("c.tif")), pixels)


def test_planes_of_16_bits_are_refused_in_any_page():
    with tifffile.TiffWriter("p.tif") as file:
        for k in range(2):
            planes = np.stack([deep(k)] * 3)
            file.write(planes, photometric="rgb", planarconfig="separate", contiguous=False)
    assert all("Are they frames or colours?" in found for found in frames("p.tif"))


def test_three_planes_of_8_bits_are_said_to_be_colours(capsys):
    tifffile.imwrite("three.tif", np.stack([picture(k) for k in range(3)]))
    assert decode(Path("three.tif")).shape == (40, 48, 3)
    assert "three.tif: 3 planes are read as the colours of one picture" in capsys.readouterr().err


# --- others ----------------------------------------------------------------------------------------


def fits_card(text: str) -> bytes:
    return text.ljust(80).encode()


def fits_unit(pixels: np.ndarray, first: bool, *cards: str) -> bytes:
    """A unit of a FITS file with big-endian 16-bit integers, as the standard describes it."""
    head = ["SIMPLE  =                    T" if first else "XTENSION= 'IMAGE   '"]
    head += [f"BITPIX  = {16:20}", f"NAXIS   = {pixels.ndim:20}"]
    head += [f"NAXIS{k}  = {side:20}" for k, side in enumerate(pixels.shape[::-1], start=1)]
    head += [] if first else [f"PCOUNT  = {0:20}", f"GCOUNT  = {1:20}"]
    raw = b"".join(map(fits_card, [*head, *cards, "END"]))
    data = pixels.astype(">i2").tobytes()
    return raw + b" " * (-len(raw) % 2880) + data + b"\0" * (-len(data) % 2880)


def test_units_of_a_fits_file_are_frames(capsys):
    pytest.importorskip("astropy.io.fits")
    pixels = [deep(k).astype(np.int16) for k in range(3)]
    units = [fits_unit(p, not k) for k, p in enumerate(pixels)]
    other = fits_unit(pixels[0], False, "EXTNAME = 'ERR     '")
    write(Path("u.fits"), b"".join([*units, fits_unit(pixels[0][:9], False), other]))
    found = frames("u.fits")
    assert all(np.array_equal(a, b[::-1]) for a, b in zip(found, pixels)) and len(found) == 3
    assert "of 5 units with pictures 3 are read; left out: 3, 4" in capsys.readouterr().err


def test_blank_pixels_of_unsigned_fits_files_do_not_count():
    pytest.importorskip("astropy.io.fits")
    stored = (deep().astype(int) - 32768 + 5000).astype(np.int16)
    stored[3, 4] = 32767
    cards = (f"BZERO   = {32768:20}", f"BSCALE  = {1:20}", f"BLANK   = {32767:20}")
    write(Path("b.fits"), fits_unit(stored, True, *cards))
    (found,) = frames("b.fits")
    assert np.isnan(found[-4, 4]) and np.isnan(found).sum() == 1
    assert np.nanmax(found) == (stored[stored < 32767].astype(int) + 32768).max()


@pytest.mark.parametrize("raw", [b"version https://git-lfs.github.com/spec/v1\n", b"abc" * 300])
def test_a_file_that_is_no_dicom_is_a_problem_of_its_own(raw):
    pytest.importorskip("pydicom")
    write(Path("x.dcm"), raw)
    (problem,) = frames("x.dcm")
    assert problem.startswith("x.dcm: not a readable image (")
    assert ("git lfs pull" in problem) == (raw[:3] == b"ver")


def test_several_tables_in_one_file_are_no_frame():
    table = "\n".join(",".join(map(str, row)) for row in deep())
    write(Path("two.csv"), f"{table}\n\n{table}\n")
    with pytest.raises(
        DataError, match=r"two.csv: found 2 tables of 40 rows, with empty lines between"
    ):
        read_csv(Path("two.csv"))
    write(Path("wide.csv"), table.replace("\n", "\n\n"))  # every second line is empty
    assert read_csv(Path("wide.csv")).shape == (40, 48)


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_of_matlab_s_video_reader(channels):
    stack = np.stack([np.stack([deep(k)] * channels, -1) for k in range(3)], -1)
    savemat("v.mat", {"frames": stack})  # (H, W, C, N)
    found = as_frames(read_array(Path("v.mat")), Path("v.mat"))
    assert found.shape[:3] == (3, 40, 48)
    assert all(np.array_equal(found[k].reshape(40, 48, -1)[..., 0], deep(k)) for k in range(3))


def test_colours_of_16_bits_in_a_ppm_keep_them():
    pixels = np.stack([deep(k) for k in range(3)], -1)
    write(Path("c.ppm"), b"P6\n48 40\n65535\n" + pixels.astype(">u2").tobytes())
    assert np.array_equal(decode(Path("c.ppm")), pixels)


def test_a_file_that_changes_while_it_is_read_is_a_problem():
    np.save("s.npy", np.stack([deep(k) for k in range(4)]))
    (source,) = find_sources(["s.npy"])
    found = read_frames([(source, [0, 1, 2, 3])])
    assert next(found).pixels is not None
    os.truncate("s.npy", 2000)
    others = list(found)
    assert [frame.index for frame in others] == [1, 2, 3]
    assert all("became shorter while it was read" in frame.problem for frame in others)


def test_a_recording_that_grows_is_read():
    pixels = np.stack([deep(k) for k in range(4)])
    pixels.tofile("s.raw")
    layout = RawLayout("48x40:uint16")
    (source,) = find_sources(["s.raw"], raw=layout)
    found = read_frames([(source, [0, 1, 2, 3])])
    next(found)
    with open("s.raw", "ab") as file:
        file.write(b"more")
    assert all(np.array_equal(frame.pixels, pixels[frame.index]) for frame in found)
