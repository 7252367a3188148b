"""PNG, JPEG and other pictures: each is read as it is seen, at its own depth, or refused."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, write
from PIL import Image
from PIL.PngImagePlugin import PngInfo
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


@pytest.mark.parametrize("end", ["\n", ""])
def test_text_pgm_of_16_bits_with_and_without_a_last_line_end(end):
    rows = "\n".join(" ".join(map(str, row)) for row in deep())
    assert np.array_equal(decode(write(Path("a.pgm"), f"P2\n48 40\n65535\n{rows}{end}")), deep())
    with pytest.raises(DataError, match=r"a\.pgm"):
        decode(write(Path("a.pgm"), f"P2\n48 40\n65535\n{rows[:-100]}{end}"))


def test_a_bmp_of_5_6_and_5_bits():
    header = struct.pack("<2sIHHI", b"BM", 74, 0, 0, 66)
    header += struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0)
    header += struct.pack("<III", 0xF800, 0x07E0, 0x001F)  # where red, green and blue are
    write(Path("m.bmp"), header + struct.pack("<HHHH", 0, 0xFFFF, 0xFFFF, 0))
    assert decode(Path("m.bmp")).max(axis=2).tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_exif_orientation_is_applied(turn, suffix):
    """The first row and column of the stored picture lie where the standard says they are seen."""
    stored = np.zeros((24, 40), np.uint8)
    stored[:8, :8] = 200  # row 0, column 0
    stored[:8, 32:] = 100  # row 0, last column
    exif = Image.Exif()
    exif[274] = turn
    path = saved(f"x.{suffix}", stored, exif=exif, quality=95)
    seen = decode(path).astype(int)
    assert seen.shape == image_shape(path) == ((40, 24) if turn > 4 else (24, 40))
    corners = {
        "top left": (4, 4),
        "top right": (4, -4),
        "bottom left": (-4, 4),
        "bottom right": (-4, -4),
    }
    first = ("top left", "top right", "bottom right", "bottom left")
    row_end = ("top right", "top left", "bottom left", "bottom right")
    turned = ("top left", "top right", "bottom right", "bottom left")
    turned_end = ("bottom left", "bottom right", "top right", "top left")
    assert seen[corners[(first + turned)[turn - 1]]] == pytest.approx(200, abs=12)
    assert seen[corners[(row_end + turned_end)[turn - 1]]] == pytest.approx(100, abs=12)


def test_the_orientation_in_xmp_counts_for_the_size_too():
    info = PngInfo()
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
    info.add_itxt("XML:com.adobe.xmp", xmp)
    path = saved("x.png", picture(1, (48, 64)), pnginfo=info)
    assert decode(path).shape == image_shape(path) == (64, 48)


def test_a_small_picture_behind_a_jpeg_is_no_second_image():
    large, small = (Image.fromarray(picture(k, shape)) for k, shape in ((1, (48, 64)), (2, (24, 32))))
    large.save("m.jpg", "MPO", save_all=True, append_images=[small])
    assert decode(Path("m.jpg")).shape == (48, 64)
    large.save("m.jpg", "MPO", save_all=True, append_images=[large])
    with pytest.raises(DataError, match="found 2 pictures"):
        decode(Path("m.jpg"))


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


def test_damaged_16_bit_colours_are_read_or_errors():
    raw = write(Path("c.png"), np.stack([deep(k) for k in range(3)], -1)).read_bytes()
    for k in range(0, len(raw), 101):
        write(Path("c.png"), raw[:k] + bytes([raw[k] ^ 0x55]) + raw[k + 1 :])
        try:
            assert decode(Path("c.png")).shape[2] == 3
        except DataError as error:
            assert "c.png" in str(error)


def png(width: int, height: int) -> bytes:
    """A grey PNG, all black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_how_large_a_picture_may_be_is_what_memory_allows(monkeypatch):
    """Pillow refused a PNG of 14,000x13,000, and the same picture was read as a TIFF."""
    path = write(Path("large.png"), png(14000, 13000))
    assert decode(path).shape == image_shape(path) == (13000, 14000)
    monkeypatch.setattr(tiff, "memory_limit", lambda: 2e9)
    with pytest.raises(DataError, match=r"large\.png"):
        image_shape(write(Path("large.png"), png(1, 1).replace(struct.pack(">II", 1, 1), b"\0\2" * 4)))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", POINTER, "git lfs pull"),
        ("a.npy", POINTER, "git lfs pull"),
        ("a.tif", "<!DOCTYPE html><title>404</title>", "a web page"),
        ("a.png", b"", "an empty file"),
        ("a.png", b"PK\3\4" + bytes(40), "a zip archive; unpack it first"),
        ("a.png", b"SIMPLE  =                    T", "a FITS file; rename it"),
        ("a.seq", b"FFF\0\0\0", "a FLIR sequence"),
    ],
)
def test_files_that_are_not_what_their_name_says(name, content, message):
    write(Path(name), content)
    (problem,) = frames(name)
    assert name in problem and message in problem
