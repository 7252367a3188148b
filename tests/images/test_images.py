import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import picture, target_mask, write
from PIL import Image

from ismallnet.cli import DataError
from ismallnet.datasets.masks import read_mask, read_mask_values
from ismallnet.datasets.sample import Sample
from ismallnet.images.grey import GreyRange
from ismallnet.images.picture import decode


def read_image(path, limits=None):
    return GreyRange(limits).read(path)[0]


def save(path, pixels, mode=None):
    Image.fromarray(pixels, mode).save(path)
    return path


def test_grey_rgb_rgba_palette_images(tmp_path):
    grey = picture()
    rgb = np.dstack([grey, grey // 2, 255 - grey])
    alpha = np.dstack([rgb, np.zeros_like(grey)])
    expected = np.repeat(grey[..., None], 3, 2)
    assert (read_image(save(tmp_path / "g.png", grey)) == expected).all()
    assert (read_image(save(tmp_path / "g.bmp", grey)) == expected).all()
    assert (read_image(save(tmp_path / "c.png", rgb)) == rgb).all()
    assert (read_image(save(tmp_path / "a.png", alpha)) == rgb).all()  # alpha is ignored
    palette = Image.fromarray((grey > 100).astype(np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.save(tmp_path / "p.png")
    assert (
        read_image(tmp_path / "p.png") == np.where(rgb[..., :1] > 100, [200, 100, 50], [10, 20, 30])
    ).all()
    Image.fromarray(grey > 100).save(tmp_path / "bit.png")
    assert (read_image(tmp_path / "bit.png")[..., 0] == (grey > 100) * 255).all()
    assert read_image(tmp_path / "g.png").dtype == np.uint8


def test_16_bit_images_are_scaled_by_their_own_range_or_the_one_given(tmp_path):
    deep = np.linspace(0, 300, 64).reshape(8, 8).astype(np.uint16)
    for name in ("d.png", "d.tif"):
        write(tmp_path / name, deep)
        own = read_image(tmp_path / name)
        assert own.dtype == np.float32 and own.shape == (8, 8, 3)
        np.testing.assert_allclose(own[..., 0], deep / 300 * 255, atol=1e-4)
        given = read_image(tmp_path / name, (100, 200))
        np.testing.assert_allclose(given[..., 1], ((deep - 100.0) / 100 * 255).clip(0, 255), atol=1e-4)
    write(tmp_path / "constant.png", np.full((4, 4), 1000, np.uint16))
    assert (read_image(tmp_path / "constant.png") == 0).all()


def test_16_bit_colour_keeps_its_depth(tmp_path):
    deep = np.zeros((4, 4, 3), np.uint16)
    deep[..., 2] = np.arange(16).reshape(4, 4)  # red, in OpenCV's order; lost if cut to 8 bits
    write(tmp_path / "c.png", deep)
    np.testing.assert_allclose(read_image(tmp_path / "c.png")[..., 0], deep[..., 2] * 17, atol=1e-4)


def test_float_tiff(tmp_path):
    frame = np.linspace(-5, 5, 16, dtype=np.float32).reshape(4, 4)
    save(tmp_path / "f.tif", frame)
    np.testing.assert_allclose(read_image(tmp_path / "f.tif")[..., 0], (frame + 5) * 25.5, atol=1e-4)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "crc"])
def test_damaged_images_are_errors(tmp_path, damage):
    path = save(tmp_path / "x.png", picture(shape=(200, 200)))
    raw = path.read_bytes()
    broken = {
        "truncated": raw[: len(raw) // 2],
        "text": b"not an image",
        "empty": b"",
        "crc": raw[:60] + bytes(40) + raw[100:],
    }
    path.write_bytes(broken[damage])
    with pytest.raises(DataError, match=r"x\.png: not a readable image"):
        read_image(path)


def test_forms_of_masks(tmp_path):
    on = target_mask() > 0
    forms = {
        "grey": np.where(on, 255, 0).astype(np.uint8),
        "zero-one": on.astype(np.uint8),
        "just target": np.where(on, 128, 127).astype(np.uint8),
        "16-bit": np.where(on, 32896, 32895).astype(np.uint16),
        "16-bit 0/1": on.astype(np.uint16),
        "red": np.dstack([np.zeros_like(on), np.zeros_like(on), on * 255]).astype(np.uint8),
        "alpha": np.dstack([on * 200] * 3 + [np.full(on.shape, 255)]).astype(np.uint8),
    }
    for name, pixels in forms.items():
        write(tmp_path / "m.png", pixels)
        found = read_mask(Sample("m", tmp_path / "m.png", tmp_path / "m.png"), on.shape)
        assert (found == on * 255).all(), name
    palette = Image.fromarray(on.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.save(tmp_path / "m.png")
    assert (read_mask_values(tmp_path / "m.png") == on * 255).all()  # not black is target


def test_float_masks(tmp_path):
    values = [[-0.5, 0, 0.4, 1, np.nan]]
    save(tmp_path / "m.tif", np.array(values, np.float32))
    assert read_mask_values(tmp_path / "m.tif").tolist() == [[0, 0, 102, 255, 0]]
    save(tmp_path / "m.tif", np.array([[-3, 0, 127.9, 128, 255]], np.float32))
    assert read_mask_values(tmp_path / "m.tif").tolist() == [[0, 0, 127, 128, 255]]


def test_damaged_16_bit_colour(tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "c.png", rng.integers(0, 65536, (20, 20, 3)).astype(np.uint16))
    raw = path.read_bytes()
    for k in range(0, len(raw), 7):
        path.write_bytes(raw[:k] + bytes([raw[k] ^ 0x55]) + raw[k + 1 :])
        try:
            assert read_image(path).shape[2] == 3
        except DataError as error:
            assert "c.png" in str(error)


def test_a_mask_is_resized_before_its_values_are_looked_at(tmp_path):
    pixels = np.zeros((40, 40), np.uint8)
    pixels[10:14, 10:14] = 1
    pixels[1, 1] = 200  # between the pixels that nearest neighbour takes
    write(tmp_path / "m.png", pixels)
    assert read_mask_values(tmp_path / "m.png").max() == 200
    small = read_mask_values(tmp_path / "m.png", (20, 20))
    assert small.sum() == 4 * 255 and (small[5:7, 5:7] == 255).all()


def test_a_bmp_of_5_6_and_5_bits(tmp_path):
    header = struct.pack("<2sIHHI", b"BM", 74, 0, 0, 66)
    header += struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0)
    header += struct.pack("<III", 0xF800, 0x07E0, 0x001F)  # where red, green and blue are
    write(tmp_path / "m.bmp", header + struct.pack("<HHHH", 0, 0xFFFF, 0xFFFF, 0))
    assert read_mask_values(tmp_path / "m.bmp").tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize("end", ["\n", ""])
def test_text_pgm_of_16_bits_with_and_without_a_last_line_end(end):
    pixels = np.random.default_rng(0).integers(7000, 8000, (24, 32))
    rows = "\n".join(" ".join(map(str, row)) for row in pixels)
    Path("a.pgm").write_text(f"P2\n32 24\n65535\n{rows}{end}")
    found = decode(Path("a.pgm"))
    assert found.dtype == np.uint16 and np.array_equal(found, pixels)
    Path("a.pgm").write_text(f"P2\n32 24\n65535\n{rows[:-100]}{end}")
    with pytest.raises(DataError, match=r"a\.pgm: not a readable image \("):
        decode(Path("a.pgm"))


def test_tiffs_of_signed_8_bits():
    pixels = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    tifffile.imwrite("a.tif", pixels)
    found = decode(Path("a.tif"))
    assert found.dtype == np.int8 and np.array_equal(found, pixels)
