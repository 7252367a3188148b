import argparse

import cv2
import numpy as np
import pytest
from conftest import make_set, picture, target_mask, write

from dataset import Frames, mean_and_std
from ismallnet.arguments import add_data_arguments, open_datasets
from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.images.grey import GreyRange


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
        assert (kept[i].image == read[i].image).all() and (kept[i].mask == read[i].mask).all()
        assert kept[i].interior is None and read[i].boundary is None
    assert kept.centres[0].tolist() == [[11, 13.5]]
    assert kept[0].mask.shape == (40, 48)


def test_mean_and_std_over_all_training_pixels(data):
    lists = [Frames(find_dataset("tiny"), "train")]
    pixels = np.concatenate([picture(0).ravel(), picture(1).ravel()]).astype(float)
    mean, std = mean_and_std(lists)
    assert mean == pytest.approx([pixels.mean()] * 3) and std == pytest.approx([pixels.std()] * 3)


def test_arguments_and_what_is_printed(data, capsys):
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    for argv in (["--split", "a", "b", "c"], ["--mask-threshold", "0"]):
        with pytest.raises(DataError, match=argv[0]):
            open_datasets(parser.parse_args(["--dataset", "tiny", *argv]))
    open_datasets(parser.parse_args(["--dataset", "tiny", "tiny"]))
    out = capsys.readouterr().out
    assert out.count("lists 50_50/train.txt and 50_50/test.txt; 2 train, 2 test") == 1


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_dark_targets_are_said_and_inverted(tmp_path, capsys, depth):
    root = make_set(tmp_path / "s")
    data = find_dataset("s", tmp_path)
    plain = {}
    for name in "cd":
        plain[name] = cv2.imread(f"{root}/images/{name}.png", 0).astype(depth)
        plain[name] = plain[name] * 100 + 1000 if depth == np.uint16 else plain[name]
        write(root / f"images/{name}.png", plain[name])
    whole = (0, 100)  # no percentile between two values
    frames = [Frames(data, "test", grey=GreyRange(percentiles=whole))[k].image for k in (0, 1)]
    assert "darker" not in capsys.readouterr().out
    for name, pixels in plain.items():
        write(root / f"images/{name}.png", np.iinfo(depth).max - pixels)
    Frames(data, "test")
    assert "note: s test: the targets of 2 of 2 images are darker" in capsys.readouterr().out
    dark = Frames(data, "test", grey=GreyRange(percentiles=whole, dark=True))
    assert "darker" not in capsys.readouterr().out
    assert all(np.allclose(dark[k].image, frames[k], atol=1e-3) for k in (0, 1))
