"""People's own TIFFs, and what their tags say: each is read as it is meant, or refused."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import picture, write
from PIL import Image
from streaming import deep, frames

from ismallnet.cli import DataError
from ismallnet.images.picture import decode, image_shape

STORED = {1: lambda seen: seen, 3: lambda seen: seen[::-1, ::-1], 6: np.rot90}


@pytest.mark.parametrize("turn", STORED)
@pytest.mark.parametrize("kind", ["white", "nodata", "palette", "rgb", "big"])
def test_what_a_tiff_says_holds_for_turned_ones_too(kind, turn):
    """Those were read in another way, without white is zero, nodata and palettes."""
    seen = stored = deep()
    tags, options = [(274, 3, 1, turn, True)] if turn > 1 else [], {}
    if kind == "white":
        stored, options = 65535 - seen, {"photometric": "miniswhite"}
    if kind == "nodata":
        stored[:3] = 65000
        seen = np.where(stored == 65000, np.nan, stored)
        tags.append((42113, 2, 6, "65000", True))
    if kind == "palette":
        index = picture()
        colours = np.stack([np.arange(256)] * 3)[:, ::-1].astype(np.uint16) * 257
        stored, options = 255 - index, {"photometric": "palette", "colormap": colours}
        seen = np.repeat(index[..., None], 3, axis=2)
    if kind == "rgb":
        seen = stored = np.stack([deep(k) for k in range(3)], axis=-1)
        options = {"photometric": "rgb"}
    if kind == "big":
        options = {"bigtiff": True}
    tifffile.imwrite("t.tif", np.ascontiguousarray(STORED[turn](stored)), extratags=tags, **options)
    found = decode(Path("t.tif"))
    assert found.shape[:2] == image_shape("t.tif")
    assert np.array_equal(found, seen, equal_nan=kind == "nodata")


@pytest.mark.parametrize("kind", ["int8", "int16", "uint32", "int32", "uint64", "float16", "float64"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pages_of_all_types_packed_or_not(kind, order):
    stack = np.stack([deep(k) for k in range(3)])
    stack = (stack.astype(np.int64) - 3000 if kind[0] == "i" else stack).astype(kind)
    for options in ({}, {"compression": "zlib", "tile": (16, 16)}):
        tifffile.imwrite("s.tif", stack, photometric="minisblack", byteorder=order, **options)
        found = frames("s.tif")
        assert len(found) == 3 and all(np.array_equal(a, b) for a, b in zip(found, stack))
        assert found[0].dtype == kind
    with pytest.raises(DataError, match="found 3 pictures in it, expected one"):
        decode(Path("s.tif"))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressions_of_pillow(compression):
    for pixels in (deep(), picture(), deep() > 4000, np.dstack([picture(k) for k in range(3)])):
        Image.fromarray(pixels).save("t.tif", compression=compression)
        expected = pixels * 255 if pixels.dtype == bool else pixels
        assert np.array_equal(decode(Path("t.tif")), expected)


def test_a_compression_that_cannot_be_read_is_refused_with_what_to_type():
    Image.fromarray(deep()).save("t.tif", compression="tiff_lzw", tiffinfo={274: 6})
    (problem,) = frames("t.tif")
    assert "t.tif" in problem and "pip install imagecodecs" in problem


def test_the_second_page_is_turned_by_its_own_tag():
    with tifffile.TiffWriter("p.tif") as file:
        file.write(deep(1))
        file.write(np.ascontiguousarray(np.rot90(deep(2))), extratags=[(274, 3, 1, 6, True)])
    assert all(np.array_equal(a, b) for a, b in zip(frames("p.tif"), (deep(1), deep(2))))


def test_overviews_and_thumbnails_are_no_frames():
    with tifffile.TiffWriter("two.tif") as file:
        file.write(deep()[::2, ::2], subfiletype=1)  # the thumbnail comes first
        for k in (1, 2):
            file.write(deep(k))
            file.write(deep(k)[::2, ::2], subfiletype=1)
    assert [np.array_equal(f, deep(k)) for f, k in zip(frames("two.tif"), (1, 2))] == [True, True]


def test_a_page_that_stands_for_a_stack_is_refused():
    """ImageJ writes stacks of more than 4 GB so, and tifffile truncated ones."""
    stack, text = np.stack([deep(k) for k in range(5)]), "ImageJ=1.53\nimages=5\nslices=5\n"
    tifffile.imwrite("i.tif", stack[0], description=text, metadata=None)
    write(Path("i.tif"), Path("i.tif").read_bytes() + stack[1:].tobytes())
    tifffile.imwrite("t.tif", stack, photometric="minisblack", truncate=True)
    for name in ("i.tif", "t.tif"):
        assert f"{name}: its only page stands for a stack" in frames(name)[0]


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    ("bands", "kind"), [(2, "minisblack"), (5, "minisblack"), (4, "separated"), (3, "rgb")]
)
def test_several_bands_are_refused_with_what_to_type(bands, kind, planar):
    """Planes of red, green and blue too: tifffile writes three frames so, unless it is told that they
    are grey."""
    stack = np.stack([deep(k) for k in range(bands)], axis=-1 if planar == "contig" else 0)
    tifffile.imwrite("b.tif", stack, planarconfig=planar, photometric=kind)
    (found,) = frames("b.tif")
    if (kind, planar) == ("rgb", "contig"):
        assert np.array_equal(found, stack)
    else:
        assert f"b.tif: found {bands} bands" in found and "gdal_translate -b 1" in found


def test_tiles_that_a_tiff_leaves_out_are_empty():
    """Two by two tiles without the second, as GDAL leaves out empty ones."""
    tile = np.arange(256, dtype=np.uint16).reshape(16, 16) + 7000
    for nodata in ("", "0"):
        tags = [(42113, 2, len(nodata) + 1, nodata, True)] if nodata else []
        tifffile.imwrite("s.tif", np.block([[tile, tile]] * 2), tile=(16, 16), extratags=tags)
        raw = bytearray(Path("s.tif").read_bytes())
        with tifffile.TiffFile("s.tif") as file:
            for name in ("TileOffsets", "TileByteCounts"):
                tag = file.pages[0].tags[name]
                size = 2 if tag.dtype == 3 else 4
                raw[tag.valueoffset + size : tag.valueoffset + 2 * size] = bytes(size)
        found = decode(write(Path("s.tif"), bytes(raw)))
        assert np.array_equal(found[:16, :16], tile) and np.array_equal(found[16:, 16:], tile)
        assert np.isnan(found[:16, 16:]).all() if nodata else not found[:16, 16:].any()


def no_counts(raw: bytearray, tags) -> None:
    tag = tags["StripByteCounts"]
    at, size = tag.valueoffset, tag.count * (4 if tag.dtype == 4 else 2)
    raw[at : at + size] = bytes(size)


@pytest.mark.parametrize("change", [no_counts, lambda raw, tags: raw.__delitem__(slice(-900, None))])
def test_damaged_tiffs_are_refused(change):
    tifffile.imwrite("c.tif", deep(), rowsperstrip=10)
    raw = bytearray(Path("c.tif").read_bytes())
    with tifffile.TiffFile("c.tif") as file:
        change(raw, file.pages[0].tags)
    write(Path("c.tif"), bytes(raw))
    with pytest.raises(DataError, match=r"c\.tif: not a readable image"):
        decode(Path("c.tif"))


def test_pages_behind_damaged_ones_are_read():
    with tifffile.TiffWriter("p.tif") as file:
        for k in range(10):
            file.write(deep(k % 5), compression="zlib", contiguous=False)
    raw = bytearray(Path("p.tif").read_bytes())
    with tifffile.TiffFile("p.tif") as file:
        for page in list(file.pages)[::2]:
            raw[page.dataoffsets[0] : page.dataoffsets[0] + 40] = b"\xff" * 40
    write(Path("p.tif"), bytes(raw))
    for k, frame in enumerate(frames("p.tif")):
        assert np.array_equal(frame, deep(k % 5)) if k % 2 else "p.tif" in frame
