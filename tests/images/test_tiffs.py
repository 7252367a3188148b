"""People's own TIFFs, and what their tags say: each is read as it is meant, or refused."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import picture
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from streaming import deep, frames

from ismallnet.cli import DataError
from ismallnet.images.picture import decode, image_shape


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_exif_orientation_is_applied(turn, suffix):
    """The first row and column of the stored picture lie where the standard says they are seen."""
    stored = np.zeros((24, 40), np.uint8)
    stored[:8, :8] = 200  # row 0, column 0
    stored[:8, 32:] = 100  # row 0, last column
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[274] = turn
    image.save(f"x.{suffix}", exif=exif, quality=95)
    seen = decode(Path(f"x.{suffix}")).astype(int)
    assert seen.shape == image_shape(f"x.{suffix}") == ((40, 24) if turn > 4 else (24, 40))
    corners = {"top left": seen[4, 4], "top right": seen[4, -4]}
    corners |= {"bottom left": seen[-4, 4], "bottom right": seen[-4, -4]}
    first = {1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left"}
    first |= {5: "top left", 6: "top right", 7: "bottom right", 8: "bottom left"}
    row_end = {1: "top right", 2: "top left", 3: "bottom left", 4: "bottom right"}
    row_end |= {5: "bottom left", 6: "bottom right", 7: "top right", 8: "top left"}
    assert corners[first[turn]] == pytest.approx(200, abs=12)
    assert corners[row_end[turn]] == pytest.approx(100, abs=12)


STORED = {1: lambda seen: seen, 3: lambda seen: seen[::-1, ::-1], 6: np.rot90}


@pytest.mark.parametrize("turn", STORED)
@pytest.mark.parametrize(
    "kind", ["white", "white8", "nodata", "f2", "f4", "f8", "palette", "rgb", ">", "big"]
)
def test_what_a_tiff_says_holds_for_turned_ones_too(kind, turn):
    """Those were read in another way, without white is zero, nodata and palettes."""
    seen = deep()
    if kind in ("white8", "palette"):
        seen = (seen >> 8).astype(np.uint8)
    if kind in ("f2", "f4", "f8"):
        seen = (seen % 2000).astype(kind)
    if kind == "rgb":
        seen = np.stack([seen, seen + 5, seen + 9], axis=-1)
    tags, options, missing = [(274, 3, 1, turn, True)] if turn > 1 else [], {}, None
    stored = seen.copy()
    if kind in ("nodata", "f2", "f4", "f8"):
        missing = 65000 if kind == "nodata" else 3000
        stored[:3] = missing
        tags.append((42113, 2, len(str(missing)) + 1, str(missing), True))
        seen = np.where(stored == missing, np.nan, seen)
    if kind.startswith("white"):
        stored, options = np.iinfo(stored.dtype).max - stored, {"photometric": "miniswhite"}
    if kind == "palette":
        colours = np.stack([np.arange(256)] * 3)[:, ::-1].astype(np.uint16) * 257
        stored, options = 255 - stored, {"photometric": "palette", "colormap": colours}
        seen = np.repeat(seen[..., None], 3, axis=2)
    options |= {"photometric": "rgb"} if kind == "rgb" else {}
    options |= {"byteorder": ">"} if kind == ">" else {"bigtiff": kind == "big"}
    tifffile.imwrite("t.tif", np.ascontiguousarray(STORED[turn](stored)), extratags=tags, **options)
    found = decode(Path("t.tif"))
    assert found.shape[:2] == image_shape("t.tif") and np.array_equal(found, seen, equal_nan=missing)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("turn", [3, 6])
def test_turned_and_compressed_tiffs(turn, compression):
    for seen in (deep(), deep().astype(np.uint8), deep() > 9000):
        image = Image.fromarray(np.ascontiguousarray(STORED[turn](seen)))
        image.save("t.tif", compression=compression, tiffinfo={274: turn})
        assert np.array_equal(decode(Path("t.tif")), seen * 255 if seen.dtype == bool else seen)


def test_the_second_page_is_turned_by_its_own_tag():
    for big in (False, True):
        with tifffile.TiffWriter("p.tif", bigtiff=big) as file:
            file.write(deep(1))
            file.write(np.ascontiguousarray(np.rot90(deep(2))), extratags=[(274, 3, 1, 6, True)])
        assert all(np.array_equal(a, b) for a, b in zip(frames("p.tif"), (deep(1), deep(2))))


def test_a_stack_in_one_page_is_no_image():
    stack = np.stack([deep(k) for k in range(4)])
    tifffile.imwrite("s.tif", stack, truncate=True, photometric="minisblack")
    with pytest.raises(DataError, match=r"s\.tif: found 4 pictures in it, expected one"):
        decode(Path("s.tif"))
    assert len(frames("s.tif")) == 4


def test_a_small_picture_behind_a_jpeg_is_no_second_image():
    large, small = (Image.fromarray(picture(k, shape)) for k, shape in ((1, (48, 64)), (2, (24, 32))))
    large.save("m.jpg", "MPO", save_all=True, append_images=[small])
    assert decode(Path("m.jpg")).shape == (48, 64)
    large.save("m.jpg", "MPO", save_all=True, append_images=[large])
    with pytest.raises(DataError, match="found 2 pictures"):
        decode(Path("m.jpg"))


def test_the_orientation_in_xmp_counts_for_the_size_too():
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    Image.fromarray(picture(1, (48, 64))).save("x.png", pnginfo=info)
    assert decode(Path("x.png")).shape == image_shape("x.png") == (64, 48)


def test_overviews_and_thumbnails_are_no_frames():
    with tifffile.TiffWriter("cog.tif") as file:
        file.write(deep()[::2, ::2], subfiletype=1)  # the thumbnail comes first
        file.write(deep())
        file.write(deep()[::4, ::4], subfiletype=1)
    (found,) = frames("cog.tif")
    assert (found == deep()).all() and image_shape("cog.tif") == deep().shape
    assert (decode(Path("cog.tif")) == deep()).all()
    with tifffile.TiffWriter("two.tif") as file:
        for k in (1, 2):
            file.write(deep(k))
            file.write(deep(k)[::2, ::2], subfiletype=1)
    assert [np.array_equal(f, deep(k)) for f, k in zip(frames("two.tif"), (1, 2))] == [True, True]
    with pytest.raises(DataError, match="found 2 pictures in it, expected one"):
        decode(Path("two.tif"))


def test_planes_of_16_bits_are_not_taken_for_colours():
    """What tifffile writes of three frames unless it is told that they are grey."""
    stack = np.stack([deep(k) for k in range(3)])
    tifffile.imwrite("s.tif", stack, photometric="rgb", planarconfig="separate")
    assert "frames or colours?" in frames("s.tif")[0]
    tifffile.imwrite("s.tif", stack, photometric="minisblack")
    assert np.array_equal(frames("s.tif"), stack)
    tifffile.imwrite("s.tif", np.moveaxis(stack, 0, -1), photometric="rgb")
    assert np.array_equal(frames("s.tif")[0], np.moveaxis(stack, 0, -1))


def test_white_is_zero_is_turned_at_any_depth():
    for pixels in (picture(), deep()):
        tifffile.imwrite("w.tif", np.iinfo(pixels.dtype).max - pixels, photometric="miniswhite")
        assert (decode(Path("w.tif")) == pixels).all()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int32])
def test_scientific_tiffs(kind):
    pixels = (deep() / 7).astype(kind)
    tifffile.imwrite("x.tif", pixels, bigtiff=True, byteorder=">")
    found = decode(Path("x.tif"))
    assert np.array_equal(found, pixels) and image_shape("x.tif") == pixels.shape


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("bands", [2, 4, 5])
def test_several_bands_are_refused_with_what_to_type(bands, planar):
    stack = np.stack([deep(k) for k in range(bands)], axis=-1 if planar == "contig" else 0)
    tifffile.imwrite("b.tif", stack, planarconfig=planar, photometric="minisblack")
    (problem,) = frames("b.tif")
    assert f"b.tif: found {bands} bands, expected 1" in problem and "gdal_translate -b 1" in problem
