import argparse
import struct

import cv2
import numpy as np
import pytest
from conftest import make_set, picture, target_mask, write
from PIL import Image

from cli import DataError
from dataset import (
    Frames,
    add_data_arguments,
    mean_and_std,
    open_datasets,
    read_image,
    read_map,
    read_mask,
    read_mask_values,
)
from layouts import Sample, find_dataset


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
    assert (read_mask_values(tmp_path / "m.png") == on * 200).all()


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


def test_mask_threshold(tmp_path):
    write(tmp_path / "m.png", np.array([[0, 64, 127, 128, 255]], np.uint8))
    sample = Sample("m", tmp_path / "m.png", tmp_path / "m.png")
    assert read_mask(sample, (1, 5)).tolist() == [[0, 0, 0, 255, 255]]
    assert read_mask(sample, (1, 5), 64).tolist() == [[0, 255, 255, 255, 255]]


def test_mask_of_another_size_is_resized_by_opencv_s_nearest(tmp_path):
    large = np.zeros((400, 592), np.uint8)
    large[207:217, 260:275] = 255
    write(tmp_path / "m.png", large)
    sample = Sample("m", tmp_path / "m.png", tmp_path / "m.png")
    expected = cv2.resize(large, (325, 220), interpolation=cv2.INTER_NEAREST)
    assert (read_mask(sample, (220, 325)) == expected).all() and expected.any()
    with pytest.raises(DataError, match=r"592x400.*300x220"):
        read_mask(sample, (220, 300))


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


def test_one_error_names_all_offenders(tmp_path):
    root = make_set(tmp_path / "data" / "s", names=[f"i{k}" for k in range(6)], train=5)
    (root / "masks/i0.png").unlink()
    write(root / "images/i1.png", (root / "images/i1.png").read_bytes()[:100])
    write(root / "masks/i2.png", target_mask((40, 90)))
    write(root / "images/i3.png", "text")
    write(root / "50_50/train.txt", "i0\ni1\ni2\ni3\ni4\nghost\n../i5\n")
    with pytest.raises(DataError) as error:
        Frames(find_dataset("s", tmp_path / "data"), "train")
    for name in ("i0.png", "i1.png", "i2.png", "i3.png", "ghost", "../i5", "6 of the train list"):
        assert name in str(error.value)
    assert "i4" not in str(error.value)


def test_frames_are_the_same_with_and_without_memory(data):
    found = find_dataset("tiny")
    kept, read = Frames(found, "train"), Frames(found, "train", memory=0)
    assert kept.cache is not None and read.cache is None
    for i in range(2):
        for a, b in zip(kept[i], read[i]):
            assert (a == b).all()
    assert kept.centres[0].tolist() == [[11, 13.5]]
    assert kept[0][1].shape == (40, 48, 1)


def test_mean_and_std_over_all_training_pixels(data):
    lists = [Frames(find_dataset("tiny"), "train")]
    pixels = np.concatenate([picture(0).ravel(), picture(1).ravel()]).astype(float)
    mean, std = mean_and_std(lists)
    assert mean == pytest.approx([pixels.mean()] * 3) and std == pytest.approx([pixels.std()] * 3)


def test_wrong_maps_are_named(tmp_path):
    write(tmp_path / "a.png", np.zeros((4, 4), np.uint16))
    write(tmp_path / "b.png", np.zeros((4, 5), np.uint8))
    write(tmp_path / "c.png", np.full((4, 4, 3), 7, np.uint8))  # grey saved as RGB: other programs do
    for name, message in (("a", "uint16"), ("b", "found 5x4"), ("nothere", "missing")):
        with pytest.raises(DataError, match=rf"{name}\.png: .*{message}"):
            read_map(tmp_path / f"{name}.png", (4, 4))
    assert (read_map(tmp_path / "c.png", (4, 4)) == 7).all()


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--split", "a", "b", "c"], "--split"),
        (["--mask-threshold", "0"], "--mask-threshold"),
        (["--range", "5", "5"], "--range"),
    ],
)
def test_bad_arguments(data, argv, message):
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    with pytest.raises(DataError, match=message):
        open_datasets(parser.parse_args(["--dataset", "tiny", *argv]))


def test_what_was_found_is_printed_once(data, capsys):
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    open_datasets(parser.parse_args(["--dataset", "tiny", "tiny"]))
    out = capsys.readouterr().out
    assert out.count("lists 50_50/train.txt and 50_50/test.txt; 2 train, 2 test") == 1
