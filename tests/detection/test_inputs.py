"""What people name as frames: files, folders, lists and videos; and what is no frame in them."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import fails, picture, write
from streaming import deep, frames, results, run

from detect import main
from ismallnet.cli import DataError
from ismallnet.detection.run import written_rate
from ismallnet.detection.sources import find_sources, read_frames
from ismallnet.detection.videos import in_fragments, missing_bytes
from ismallnet.images.arrays import RawLayout

VIDEOS = Path(__file__).parents[1] / "videos"


def stack(count: int, shape=(40, 48)) -> np.ndarray:
    """(N, H, W), 16 bits."""
    return np.stack([picture(k, shape).astype(np.uint16) * 30 for k in range(count)])


@pytest.fixture(autouse=True)
def _first_notes(monkeypatch):
    monkeypatch.setattr("ismallnet.cli._noted", set())


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


@pytest.mark.parametrize("suffix, code", [(".ts", "MPG2"), (".flv", "FLV1"), (".y4m", "I420")])
def test_videos_of_recorders(suffix, code):
    writer = cv2.VideoWriter(f"v{suffix}", cv2.VideoWriter_fourcc(*code), 25, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {suffix}")
    for k in range(5):
        writer.write(np.dstack([picture(k, (48, 64))] * 3))
    writer.release()
    assert len(frames(f"v{suffix}")) == 5


def test_a_run_of_raw_files_is_resumed_with_the_same_layout_alone(network_file, capsys):
    Path("r.raw").write_bytes(stack(2).tobytes())
    assert run("r.raw", "--raw", "48x40:uint16") == 0
    argv = ["--weights", "w.pt", "--device", "cpu", "r.raw", "--resume", "--raw", "48x40:>u2"]
    assert "this run has raw 48x40:uint16, found 48x40:>u2" in fails(main, *argv, capsys=capsys)


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


def test_a_table_beside_frames_is_no_frame(capsys):
    write(Path("f/a.png"), picture())
    write(Path("f/log.csv"), "time,temperature\n12:00,21.5\n12:01,21.6\n")
    assert [source.path.name for source in find_sources(["f"])] == ["a.png"]
    assert "log.csv" in capsys.readouterr().err
    Path("f/a.png").unlink()  # alone it may be meant as one
    assert len(find_sources(["f"])) == 1
