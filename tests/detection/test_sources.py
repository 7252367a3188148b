"""What people name as frames: files, folders, lists and videos; what is no frame in them, and how the
frames are read."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import picture, write
from PIL import Image
from streaming import deep, frames, video

from ismallnet.cli import DataError
from ismallnet.detection.sources import find_sources, read_frames

VIDEOS = Path(__file__).parents[1] / "videos"


@pytest.fixture(autouse=True)
def _first_notes(monkeypatch):
    monkeypatch.setattr("ismallnet.cli._noted", set())


def names(*paths: str) -> list[str]:
    return [str(source.path) for source in find_sources([*paths])]


# --- which files -----------------------------------------------------------------------------------


def test_folders_patterns_and_files_each_once_in_the_order_of_their_names():
    for name in ("f/a10.png", "f/a2.png", "g/b.png", "g/a.tif"):
        write(Path(name), picture(1))
    write(Path("f/notes.txt"), "no frame")
    typed = ["f/a10.png", "g/b.png", "f/a2.png", "g/a.tif"]
    ordered = ["f/a2.png", "f/a10.png", "g/a.tif", "g/b.png"]
    assert names(*typed) == names("g", "f", "f/?2.png") == ordered


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("none", "none"),
        ("*.gif", "*.gif"),
        ("", "PATH"),
        ("f", ".png"),
        ("rtsp://camera/1", "--camera"),
        ("0", "--camera"),
        ("seqs", "'seqs/**/*.png'"),
        ("f/notes.txt", "$(cat f/notes.txt)"),
    ],
)
def test_what_names_no_frame_is_an_error(path, named):
    write(Path("seqs/s1/0.png"), picture())
    write(Path("f/notes.txt"), "no frame")
    with pytest.raises(DataError, match=re.escape(named)):
        find_sources([path])


def test_what_is_left_out_of_a_folder_is_counted_and_named_once(capsys):
    for name in ("a.png", "sub/b.png"):
        write(Path("f") / name, picture())
    for name in ("notes.txt", "log.csv", "z.json", "clip.xyz", ".DS_Store", "._a.png", "sub/c.doc"):
        write(Path("f") / name, "x")
    write(Path("real/a.png"), picture())
    Path("f/link").symlink_to(Path("real").resolve())
    assert names("f") == names("f") == ["f/a.png"]
    assert capsys.readouterr().err.count("f: left out 6 files and folders") == 1
    assert {"f/a.png", "f/sub/b.png"} <= {*names("f/**/*.png")}
    assert names("f/sub", "f/link") == ["f/link/a.png", "f/sub/b.png"]
    write(Path("g/a.csv"), "1,2\n")
    assert names("g") == ["g/a.csv"]  # alone a table may be meant as a frame


def test_a_link_that_leads_nowhere_is_an_error():
    Path("f").mkdir()
    Path("f/b.png").symlink_to("gone.png")
    (problem,) = frames("f")
    assert "f/b.png: not a readable image" in problem


def test_pixels_without_a_header_are_no_image():
    write(Path("r.raw"), deep().tobytes())
    with pytest.raises(DataError, match=r"r\.raw: .*numpy\.save"):
        find_sources(["r.raw"])


# --- pictures and stacks ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_files_of_several_frames(kind):
    pages = [deep(k) for k in range(4)]
    if kind == "tif":
        images = [Image.fromarray(page) for page in pages]
        images[0].save("s.tif", save_all=True, append_images=images[1:])
    else:
        np.save("s.npy", np.stack(pages))
    (source,) = find_sources([f"s.{kind}"])
    assert (source.kind, source.count) == ("stack", 4)
    odd = list(read_frames([source], lambda _, index: index % 2))
    assert [frame.index for frame in odd] == [1, 3]
    assert all(np.array_equal(frame.pixels, pages[frame.index]) for frame in odd)


BAD = {
    "cut.png": lambda: cv2.imencode(".png", picture())[1].tobytes()[:200],
    "text.jpg": lambda: b"hello",
    "empty.tif": lambda: b"",
    "bad.npy": lambda: b"\x93NUMPY nonsense",
    "bad.mp4": lambda: b"not a video",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_a_problem_that_names_it_and_the_others_go_on(name):
    write(Path("f") / name, BAD[name]())
    write(Path("f/zz.png"), picture())
    bad, good = frames("f")
    assert f"f/{name}" in bad and np.array_equal(good, picture())


# --- videos ----------------------------------------------------------------------------------------


def written(name: str, code: str, count: int = 8, shape=(200, 240)) -> bool:
    writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), 10, shape[::-1])
    for k in range(count if writer.isOpened() else 0):
        writer.write(np.dstack([picture(k, shape)] * 3))
    writer.release()
    return Path(name).is_file()


def test_a_video_has_times_and_every_nth_frame():
    video("v.avi", 6)
    (source,) = find_sources(["v.avi"])
    assert (source.kind, source.count, source.fps) == ("video", 6, 10)
    read = list(read_frames([source], lambda _, index: index % 2 == 0))
    assert [frame.seconds for frame in read] == [0, 0.2, 0.4]
    for frame in read:
        gap = np.abs(frame.pixels[..., 0].astype(int) - picture(frame.index, (48, 64)))
        assert frame.pixels.shape == (48, 64, 3) and np.median(gap) <= 8


@pytest.mark.parametrize("first", [0.0, 1.4, 10.0])
def test_seconds_count_from_the_first_frame(first, monkeypatch):
    """A recording may begin at 10 s, and a camera may wait: the third frame comes after a second."""
    real = cv2.VideoCapture
    stamps = iter([1000 * first, 1000 * first + 100, 1000 * first + 1000])

    class Camera:
        def __init__(self, path):
            self.video = real(path)

        def __getattr__(self, name):
            return getattr(self.video, name)

        def get(self, key):
            return next(stamps) if key == cv2.CAP_PROP_POS_MSEC else self.video.get(key)

    video("v.avi", 3)
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    assert [frame.seconds for frame in read_frames(find_sources(["v.avi"]))] == [0, 0.1, 1.0]


def test_a_video_ends_where_it_ends():
    """Its header may promise too few frames: that of MP4 in fragments counts the first one alone."""
    path = VIDEOS / "fragmented.mp4"
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) < 24
    assert len(frames(path)) == 24


@pytest.mark.parametrize(("name", "code"), [("v.mkv", "FFV1"), ("v.avi", "MJPG")])
def test_a_video_that_was_cut_off_is_said(capsys, name, code):
    if not written(name, code):
        pytest.skip(f"this OpenCV cannot write {code}")
    assert len(frames(name)) == 8 and "cut off" not in capsys.readouterr().err
    raw = Path(name).read_bytes()
    write(Path(f"cut_{name}"), raw[: len(raw) * 2 // 3])
    count = len(frames(f"cut_{name}"))
    assert 0 < count < 8 and f"cut_{name}: ends after {count} frames" in capsys.readouterr().err


def test_an_interlaced_video_is_read_or_refused():
    """OpenCV 5.0 gives memory that nobody has filled, and says that all is well."""
    for found in frames(VIDEOS / "interlaced.mpg"):
        if isinstance(found, str):
            assert "interlaced.mpg: interlaced" in found and "ffmpeg -i" in found
        else:
            assert 100 < found.mean() < 130 and found.std() > 5


@pytest.mark.parametrize("name", ["2024-05-01T12:30:05.mp4", "./2024-05-01T12:30:05.mp4", "."])
def test_a_video_whose_name_is_a_time_is_read(name):
    """FFmpeg takes what stands before a name's first colon for a protocol."""
    shutil.copy(VIDEOS / "fragmented.mp4", "2024-05-01T12:30:05.mp4")
    assert len(frames(name)) == 24


def test_a_video_of_16_bits_keeps_them():
    params = [cv2.VIDEOWRITER_PROP_DEPTH, cv2.CV_16U, cv2.VIDEOWRITER_PROP_IS_COLOR, 0]
    code = cv2.VideoWriter_fourcc(*"FFV1")
    writer = cv2.VideoWriter("d.mkv", cv2.CAP_FFMPEG, code, 10, (48, 40), params)
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write 16-bit video")
    for k in range(3):
        writer.write(deep(k))
    writer.release()
    found = frames("d.mkv")
    assert len(found) == 3
    assert all(f.dtype == np.uint16 and np.array_equal(f, deep(k)) for k, f in enumerate(found))
