"""The split that is made where a data set has no list."""

import numpy as np
import pytest
from conftest import write
from sets import image, mask, names

from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset


def sequences(root, **lengths: int) -> None:
    for sequence, length in lengths.items():
        for k in range(length):
            image(root, "images", f"{sequence}/{k:05}")
            mask(root, "masks", f"{sequence}/{k:05}")


def folders(data, part: str) -> set[str]:
    return {name.rpartition("/")[0] for name in names(data, part)}


def test_frames_of_a_sequence_are_in_one_list(tmp_path):
    root = tmp_path / "s"
    sequences(root, Seq1=5, Seq2=2, Seq3=3, Seq4=4)
    data = find_dataset("s", tmp_path)
    halves = folders(data, "train"), folders(data, "test")
    assert sorted(map(sorted, halves)) == [["Seq1", "Seq2"], ["Seq3", "Seq4"]]
    assert len(data.lists["train"]) == len(data.lists["test"]) == 7
    (note,) = (note for note in data.notes if "no list found" in note)
    assert "a split by whole sub-folders" in note and "7 training and 7 test images" in note
    again = find_dataset("s", tmp_path)
    assert again.lists == data.lists and not any("split" in note for note in again.notes)


def test_the_larger_part_is_for_training_and_loose_images_fill_up(tmp_path):
    root = tmp_path / "s"
    sequences(root, long=6, short=2)
    data = find_dataset("s", tmp_path)
    assert (folders(data, "train"), folders(data, "test")) == ({"long"}, {"short"})
    root = tmp_path / "t"
    sequences(root, long=4, short=2)
    for k in range(4):
        image(root, "images", f"x{k}")
        mask(root, "masks", f"x{k}")
    data = find_dataset("t", tmp_path)
    assert len(data.lists["train"]) == len(data.lists["test"]) == 5
    assert folders(data, "train") & folders(data, "test") <= {""}


def test_sub_folders_of_sub_folders(tmp_path):
    root = tmp_path / "s"
    sequences(root, **{"all/Seq1": 3, "all/Seq2/a": 1, "all/Seq2/b": 2})
    data = find_dataset("s", tmp_path)
    assert {frozenset(folders(data, part)) for part in ("train", "test")} == {
        frozenset({"all/Seq1"}),
        frozenset({"all/Seq2/a", "all/Seq2/b"}),
    }


def test_one_sub_folder_is_divided_with_a_warning(tmp_path):
    root = tmp_path / "s"
    sequences(root, video=4)
    data = find_dataset("s", tmp_path)
    assert len(data.lists["train"]) == 2
    assert any("in one sub-folder, video/. If they are frames of one" in note for note in data.notes)
    root = tmp_path / "t"
    sequences(root, targets=4)  # of open-sirst-v2, no sequence
    data = find_dataset("t", tmp_path)
    assert len(data.lists["train"]) == 2 and not any("sub-folder" in note for note in data.notes)


def test_a_split_is_written_when_all_else_is_right(tmp_path):
    root = tmp_path / "s"
    sequences(root, a=2, b=2)
    for file in sorted((root / "masks").rglob("*.png")):
        write(file, np.full((40, 48), 255, np.uint8))
    with pytest.raises(DataError, match="they are inverted"):
        find_dataset("s", tmp_path)
    assert not (root / "50_50").exists()
    for name in ("a/00000", "a/00001", "b/00000"):
        mask(root, "masks", name)
    (root / "masks/b/00001.png").unlink()
    data = find_dataset("s", tmp_path)
    assert any("found no mask" in problem for problem in data.problems["test"] + data.problems["train"])
    assert "note: the new lists are written when all images and masks can be used" in data.notes
    assert not (root / "50_50").exists()
    mask(root, "masks", "b/00001")
    assert not any(find_dataset("s", tmp_path).problems.values())
    assert len((root / "50_50/train.txt").read_text().split()) == 2
