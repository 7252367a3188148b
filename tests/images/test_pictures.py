"""PNG, JPEG and other pictures: each is read as it is seen, at its own depth, or refused."""

from pathlib import Path

import numpy as np
import pytest
from conftest import picture, write
from PIL import Image
from streaming import deep, frames

from ismallnet.cli import DataError
from ismallnet.images import tiff
from ismallnet.images.picture import decode, image_shape

RGB = np.dstack([picture(), picture() // 2, 255 - picture()])


def saved(name: str, pixels: np.ndarray, mode: str | None = None, **options) -> Path:
    Image.fromarray(pixels, mode).save(name, **options)
    return Path(name)


def test_grey_rgb_rgba_palette_and_one_bit():
    grey = picture()
    for name in ("g.png", "g.bmp"):
        assert np.array_equal(decode(saved(name, grey)), grey)
    assert np.array_equal(decode(saved("c.png", RGB)), RGB)
    assert np.array_equal(decode(saved("a.png", np.dstack([RGB, 0 * grey]))), RGB)  # alpha is ignored
    palette = Image.fromarray((grey > 100).astype(np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.save("p.png")
    assert (
        decode(Path("p.png")) == np.where(grey[..., None] > 100, [200, 100, 50], [10, 20, 30])
    ).all()
    Image.fromarray(grey > 100).save("bit.png")
    assert (decode(Path("bit.png")) == (grey > 100) * 255).all()


def test_16_bits_are_kept_in_grey_and_colours():
    assert np.array_equal(decode(write(Path("d.png"), deep())), deep())
    colours = np.stack([deep(k) for k in range(3)], -1)
    for name, loss in (("c.png", 0), ("c.jp2", 900)):
        write(Path(name), colours[..., ::-1].copy())  # OpenCV writes blue first
        assert np.abs(decode(Path(name)).astype(int) - colours).max() <= loss, name
    for largest, pixels in ((65535, colours), (4095, colours // 16)):  # not scaled
        write(Path("c.ppm"), b"P6\n48 40\n%d\n" % largest + pixels.astype(">u2").tobytes())
        write(Path("g.pgm"), b"P5\n48 40\n%d\n" % largest + pixels[..., 0].astype(">u2").tobytes())
        assert np.array_equal(decode(Path("c.ppm")), pixels)
        assert np.array_equal(decode(Path("g.pgm")), pixels[..., 0])


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_exif_orientation_is_applied(turn, suffix):
    """What is stored in orientation `turn` is seen as it was before."""
    seen = np.zeros((24, 40), np.uint8)
    seen[:8, :8], seen[:8, 32:], seen[16:, :8] = 200, 100, 50
    transposed = seen.T if turn > 4 else seen
    stored = {
        **dict.fromkeys((1, 5), transposed),
        **dict.fromkeys((2, 8), transposed[:, ::-1]),
        **dict.fromkeys((3, 7), transposed[::-1, ::-1]),
        **dict.fromkeys((4, 6), transposed[::-1]),
    }[turn]
    exif = Image.Exif()
    exif[274] = turn
    path = saved(f"x.{suffix}", np.ascontiguousarray(stored), exif=exif, quality=95)
    assert image_shape(path) == seen.shape
    assert decode(path).astype(int) == pytest.approx(seen.astype(int), abs=12)


def test_a_small_picture_behind_a_jpeg_is_no_second_image():
    large, small = (Image.fromarray(picture(k, shape)) for k, shape in ((1, (48, 64)), (2, (24, 32))))
    large.save("m.jpg", "MPO", save_all=True, append_images=[small])
    assert decode(Path("m.jpg")).shape == (48, 64)


def test_the_frames_of_a_gif():
    pages = [Image.fromarray(picture(k)) for k in range(3)]
    pages[0].save("g.gif", save_all=True, append_images=pages[1:])
    assert [frame[..., 0].max() for frame in frames("g.gif")] == [230, 230, 230]


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "crc"])
def test_damaged_pictures_are_errors(damage):
    raw = saved("x.png", picture(shape=(200, 200))).read_bytes()
    broken = {
        "truncated": raw[: len(raw) // 2],
        "text": b"not an image",
        "empty": b"",
        "crc": raw[:60] + bytes(40) + raw[100:],
    }
    with pytest.raises(DataError, match=r"x\.png: not a readable image"):
        decode(write(Path("x.png"), broken[damage]))


def test_how_large_a_picture_may_be_is_what_memory_allows(monkeypatch):
    paths = [saved(f"x.{suffix}", picture(shape=(30, 40))) for suffix in ("png", "tif")]
    assert [image_shape(path) for path in paths] == [(30, 40)] * 2
    Image.new("1", (14000, 13000)).save("large.png")  # which Pillow refuses unless it is told
    assert image_shape("large.png") == (13000, 14000)
    monkeypatch.setattr(tiff, "memory_limit", lambda: 16 * 30 * 40 - 32.0)
    for path in paths:
        with pytest.raises(DataError, match=str(path)):
            decode(path)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", POINTER, "git lfs pull"),
        ("a.npy", POINTER, "git lfs pull"),
        ("a.tif", "<!DOCTYPE html><title>404</title>", "a web page"),
        ("a.png", b"", "an empty file"),
        ("a.png", b"PK\3\4" + bytes(40), "a zip archive; unpack it first"),
        ("a.seq", b"FFF\0\0\0", "a FLIR sequence"),
    ],
)
def test_files_that_are_not_what_their_name_says(name, content, message):
    write(Path(name), content)
    (problem,) = frames(name)
    assert name in problem and message in problem
