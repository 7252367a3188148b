"""The split that is made where a data set has no list."""

import pytest
from conftest import make_set, write
from sets import mask, names, pairs

from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset


def sequences(root, **lengths: int) -> None:
    for sequence, length in lengths.items():
        pairs(root, "images", "masks", *(f"{sequence}/{k:05}".lstrip("/") for k in range(length)))


def folders(data, part: str) -> set[str]:
    return {name.rpartition("/")[0] for name in names(data, part)}


def test_it_is_seeded_and_made_once(tmp_path):
    pairs(tmp_path / "s", "images", "masks", *"012345678")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["2", "4", "5", "6"] and len(data.lists["test"]) == 5
    assert "made a 50:50 split" in data.notes[0]
    again = find_dataset("s", tmp_path)
    assert again.lists == data.lists and not any("split" in note for note in again.notes)


def test_frames_of_a_sequence_are_in_one_list(tmp_path):
    root = tmp_path / "s"
    sequences(root, Seq1=5, Seq2=2, Seq3=3, Seq4=4)
    data = find_dataset("s", tmp_path)
    halves = folders(data, "train"), folders(data, "test")
    assert sorted(map(sorted, halves)) == [["Seq1", "Seq2"], ["Seq3", "Seq4"]]
    assert len(data.lists["train"]) == len(data.lists["test"]) == 7
    assert any("a split by whole sub-folders" in note for note in data.notes)
    assert find_dataset("s", tmp_path).lists == data.lists
    sequences(tmp_path / "t", **{"all/Seq1": 3, "all/Seq2/a": 1, "all/Seq2/b": 2})
    data = find_dataset("t", tmp_path)
    halves = folders(data, "train"), folders(data, "test")
    assert sorted(map(sorted, halves)) == [["all/Seq1"], ["all/Seq2/a", "all/Seq2/b"]]


def test_the_larger_part_is_for_training_and_loose_images_fill_up(tmp_path):
    sequences(tmp_path / "s", long=6, short=2)
    data = find_dataset("s", tmp_path)
    assert (folders(data, "train"), folders(data, "test")) == ({"long"}, {"short"})
    sequences(tmp_path / "alone", **{"video": 4})
    assert len(find_dataset("alone", tmp_path).lists["train"]) == 2
    sequences(tmp_path / "t", **{"": 4, "deep/long": 4, "short": 2})
    data = find_dataset("t", tmp_path)
    assert len(data.lists["train"]) == len(data.lists["test"]) == 5
    assert folders(data, "train") & folders(data, "test") <= {""}
    repeated = sorted(names(data, "train") + names(data, "test"))
    assert "00000" in repeated and "deep/long/00000" in repeated


def test_a_split_is_written_when_all_else_is_right(tmp_path):
    root = tmp_path / "s"
    sequences(root, a=2, b=2)
    (root / "masks/b/00001.png").unlink()
    data = find_dataset("s", tmp_path)
    assert any("found no mask" in problem for problem in data.problems["test"] + data.problems["train"])
    assert not (root / "50_50").exists()
    mask(root, "masks", "b/00001")
    assert not any(find_dataset("s", tmp_path).problems.values())
    assert len((root / "50_50/train.txt").read_text().split()) == 2


@pytest.mark.parametrize(
    "name", ["train.csv", "train.json", "test.xlsx", "my/own/train_ids.txt", "img_idx/test_x.txt"]
)
def test_lists_that_cannot_be_told_are_not_replaced(tmp_path, name):
    root = make_set(tmp_path / "s")
    for file in (root / "50_50").iterdir():
        file.unlink()
    write(root / name, "a\nb\n")
    if name.startswith("img_idx"):
        write(root / "img_idx/test_y.txt", "a\n")
    with pytest.raises(DataError, match=rf"cannot tell which of .*{name}.*--split TRAIN\.txt"):
        find_dataset("s", tmp_path)
    assert not list((root / "50_50").iterdir())
