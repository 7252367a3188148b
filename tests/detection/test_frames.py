from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import picture, write
from PIL import Image

from ismallnet.cli import DataError
from ismallnet.detection.sources import find_sources, read_frames
from ismallnet.images.grey import to_units, value_limits


def everything(paths) -> list:
    """All frames of all that the paths name."""
    return list(read_frames([(s, list(range(s.count))) for s in find_sources(paths)]))


def sixteen(seed=0) -> np.ndarray:
    return picture(seed).astype(np.uint16) * 200 + 7


@pytest.mark.parametrize(
    "name, pixels",
    [
        ("grey8.png", picture()),
        ("grey16.png", sixteen()),
        ("grey16.tif", sixteen()),
        ("float.tif", picture().astype(np.float32) / 7),
        ("colour8.png", np.dstack([picture(k) for k in range(3)])),
        ("colour16.png", np.dstack([sixteen(k) for k in range(3)])),
    ],
)
def test_every_depth_arrives_as_it_is(name, pixels):
    write(Path(name), pixels[..., ::-1].copy() if pixels.ndim == 3 else pixels)  # OpenCV writes BGR
    (frame,) = everything([name])
    assert frame.problem == "" and frame.pixels.dtype == pixels.dtype
    assert np.array_equal(frame.pixels, pixels)


def test_alpha_is_ignored():
    rgba = np.dstack([picture(k) for k in range(4)])
    Image.fromarray(rgba).save("rgba.png")
    assert np.array_equal(everything(["rgba.png"])[0].pixels, rgba[..., :3])


def test_folders_globs_and_files_in_order_each_once():
    for name in ("b.png", "a.png", "c.tif"):
        write(Path("f") / name, picture(ord(name[0])))
    write(Path("f/notes.txt"), "no frame")
    write(Path("single.bmp"), picture())
    found = find_sources(["single.bmp", "f", "f/?.png"])
    names = [source.path.name for source in found]
    assert names == ["single.bmp", "a.png", "b.png", "c.tif"]
    assert np.array_equal(everything(["f"])[1].pixels, picture(ord("b")))


@pytest.mark.parametrize("paths, message", [(["none"], "no such"), (["*.gif"], "no such")])
def test_what_is_not_there_is_an_error(paths, message):
    with pytest.raises(DataError, match=message):
        find_sources(paths)


def test_a_folder_without_frames_is_an_error():
    write(Path("f/notes.txt"), "no frame")
    with pytest.raises(DataError, match=r"f: found no frames in it, expected \.png"):
        find_sources(["f"])


def test_pages_of_a_tiff():
    pages = [sixteen(k) for k in range(4)]
    images = [Image.fromarray(p) for p in pages]
    images[0].save("stack.tif", save_all=True, append_images=images[1:])
    (source,) = find_sources(["stack.tif"])
    assert (source.kind, source.count) == ("pages", 4)
    frames = list(read_frames([(source, [1, 3])]))
    assert [f.index for f in frames] == [1, 3]
    assert all(np.array_equal(f.pixels, pages[f.index]) for f in frames)


def test_pages_of_sixteen_bit_colour():
    pages = [np.dstack([sixteen(3 * k + c) for c in range(3)]) for k in range(2)]
    assert cv2.imwritemulti("colour.tif", [p[..., ::-1].copy() for p in pages])
    frames = everything(["colour.tif"])
    assert all(np.array_equal(f.pixels, p) for f, p in zip(frames, pages, strict=True))


@pytest.mark.parametrize("shape", [(5, 20, 30), (20, 30), (5, 20, 30, 3), (20, 30, 3)])
def test_numpy_stacks(shape):
    stack = np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16)
    np.save("s.npy", stack)
    frames = everything(["s.npy"])
    expected = stack if len(frames) == 5 else stack[None]
    assert len(frames) == (5 if shape[0] == 5 else 1)
    assert all(np.array_equal(f.pixels, e) for f, e in zip(frames, expected, strict=True))


def video(path="v.avi", count=6) -> list[np.ndarray]:
    frames = [np.full((48, 64, 3), 20 * k, np.uint8) for k in range(count)]
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return frames


def test_a_video_has_times_and_every_nth_frame():
    expected = video()
    (source,) = find_sources(["v.avi"])
    assert (source.kind, source.count, source.fps) == ("video", 6, 10)
    frames = list(read_frames([(source, [0, 2, 4])]))
    assert [f.seconds for f in frames] == [0, 0.2, 0.4]
    for frame in frames:
        assert np.abs(frame.pixels.astype(int) - expected[frame.index]).max() <= 3


BAD = {
    "cut.png": lambda: cv2.imencode(".png", picture())[1].tobytes()[:200],
    "text.jpg": lambda: b"hello",
    "empty.tif": lambda: b"",
    "bad.npy": lambda: b"\x93NUMPY nonsense",
    "bad.mp4": lambda: b"not a video",
}


def test_damaged_pages_stacks_and_headers():
    """Whatever is cut off or overwritten: a problem that names the file, or pixels."""
    pages = [Image.fromarray(picture(k).astype(np.uint16) * 9) for k in range(5)]
    pages[0].save("t.tif", save_all=True, append_images=pages[1:], compression="tiff_deflate")
    np.save("s.npy", np.zeros((3, 8, 9), np.uint16))
    rng = np.random.default_rng(0)
    for name in ("t.tif", "s.npy"):
        raw = np.frombuffer(Path(name).read_bytes(), np.uint8)
        for k in range(150):
            if k % 3:
                damaged = raw.copy()
                at = rng.integers(len(raw) if k % 2 else min(200, len(raw)), size=3)
                damaged[at] = rng.integers(256, size=3)
            else:
                damaged = raw[: rng.integers(len(raw))]
            bad = write(Path(f"d{k}_{name}"), damaged.tobytes())
            frames = everything([str(bad)])
            assert all(f.pixels is not None or str(bad) in f.problem for f in frames), bad


def test_a_page_that_is_damaged_does_not_hide_those_after_it():
    pages = [Image.fromarray(picture(k)) for k in range(4)]
    pages[0].save("t.tif", save_all=True, append_images=pages[1:], compression="tiff_deflate")
    with Image.open("t.tif") as picture_file:
        picture_file.seek(1)
        (offset,), (length,) = (picture_file.tag_v2[tag] for tag in (273, 279))
    raw = bytearray(Path("t.tif").read_bytes())
    raw[offset : offset + length] = b"\xff" * length
    Path("t.tif").write_bytes(raw)
    frames = everything(["t.tif"])
    assert [f.pixels is None for f in frames] == [False, True, False, False]
    assert "t.tif, frame 1:" in frames[1].problem and np.array_equal(frames[3].pixels, picture(3))


def test_a_video_without_a_number_of_frames_in_its_header(monkeypatch):
    expected = video()
    real = cv2.VideoCapture

    class Recorder:
        def __init__(self, path):
            self.video = real(path)

        def get(self, key):
            return -9.2e16 if key == cv2.CAP_PROP_FRAME_COUNT else self.video.get(key)

        def __getattr__(self, name):
            return getattr(self.video, name)

    monkeypatch.setattr(cv2, "VideoCapture", Recorder)
    (source,) = find_sources(["v.avi"])
    assert source.count == len(expected)


def test_four_channels_are_no_stack():
    np.save("s.npy", np.zeros((20, 30, 4)))
    assert "found shape (20, 30, 4)" in everything(["s.npy"])[0].problem


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_a_problem_that_names_it_and_the_others_go_on(name):
    write(Path("f") / name, BAD[name]())
    write(Path("f/zz.png"), picture())
    bad, good = everything(["f"])
    assert bad.pixels is None and name in bad.problem
    assert np.array_equal(good.pixels, picture())


def test_a_stack_of_objects_is_not_executed():
    np.save("o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (frame,) = everything(["o.npy"])
    assert "o.npy" in frame.problem and frame.pixels is None


def test_a_stack_of_another_shape_is_named():
    np.save("s.npy", np.zeros((2, 3, 4, 5)))
    assert "found shape (2, 3, 4, 5)" in everything(["s.npy"])[0].problem


def test_a_stack_of_pages_is_opened_once(monkeypatch):
    pages = [Image.fromarray(picture(k)) for k in range(20)]
    pages[0].save("s.tif", save_all=True, append_images=pages[1:])
    (source,) = find_sources(["s.tif"])
    opened, real = [], Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or real(path))
    frames = list(read_frames([(source, list(range(20)))]))
    assert len(opened) == 1
    assert all((frame.pixels == picture(k)).all() for k, frame in enumerate(frames))


def test_integers_of_32_bits_keep_their_low_bits():
    pixels = np.array([[2**30, 2**30 + 1], [2**30 + 2, 2**30 + 3]], np.int32)
    assert to_units(pixels, value_limits(pixels))[..., 0].ravel().tolist() == [0, 85, 170, 255]


def test_frames_of_an_estimated_number_are_counted(monkeypatch):
    """MPEG's header has the bit rate, not the number of frames."""
    real = cv2.VideoCapture

    class Estimate:
        def __init__(self, path):
            self.video = real(path)

        def __getattr__(self, name):
            return getattr(self.video, name)

        def get(self, key):
            return self.video.get(key) - 3 * (key == cv2.CAP_PROP_FRAME_COUNT)

    writer = cv2.VideoWriter("v.mpg", cv2.VideoWriter_fourcc(*"PIM1"), 25, (64, 48))
    for k in range(40):
        writer.write(np.dstack([picture(k, (48, 64))] * 3))
    writer.release()
    monkeypatch.setattr(cv2, "VideoCapture", Estimate)
    (source,) = find_sources(["v.mpg"])
    assert source.count == 40
    assert len(list(read_frames([(source, list(range(source.count)))]))) == 40


def test_hidden_files_are_no_frames():
    write(Path("f/a.png"), picture(0))
    write(Path("f/._a.png"), b"resource fork")
    assert [source.path.name for source in find_sources(["f"])] == ["a.png"]


def test_which_files_change_places():
    for name in ("f/a10.png", "f/a2.png", "g/b.png", "g/a.png"):
        write(Path(name), picture(1))
    for name in ("f/z.npy", "f/y.npy"):
        np.save(name, np.zeros((2, 20, 30)))

    def order(*paths: str) -> list[str]:
        return [str(source.path) for source in find_sources(list(paths))]

    typed = ["f/a10.png", "g/b.png", "f/z.npy", "f/a2.png", "g/a.png", "f/y.npy"]
    assert order(*typed) == ["f/a2.png", "g/a.png", "f/z.npy", "f/a10.png", "g/b.png", "f/y.npy"]
    write(Path("list.txt"), "".join(f"{name}\n" for name in typed))
    assert order("list.txt") == typed
