"""What a list may look like, and which image an entry means."""

import unicodedata

import pytest
from conftest import fails, make_set, write
from sets import names

from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from utils import main


@pytest.mark.parametrize(
    "text",
    [
        b"Day_1\r\nDay_2\r\n",
        b"Day_1\rDay_2\r",
        b"\xef\xbb\xbfDay_1\n\xef\xbb\xbfDay_2",
        b"\n\n Day_1 \n\nDay_2\n\n",
        b"Day_1.png\nDay_2.PNG\n",
        b"Day_1.bmp\nDay_2.JPG\n",
        b"images/Day_1.png\n./images/Day_2\n",
        b"s/images/Day_1.png\ns\\images\\Day_2.png\r\n",
        "Day_1\nDay_2\n".encode("utf-16"),
        b"Day_1\nDay_2\nDay_1\n",
    ],
)
def test_forms(tmp_path, text):
    root = make_set(tmp_path / "s", names=("Day_1", "Day_2", "c", "d"))
    (root / "images/Day_2.png").rename(root / "images/Day_2.PNG")
    write(root / "50_50/train.txt", text)
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["Day_1", "Day_2"] and not data.problems["train"]


@pytest.mark.parametrize(
    "line",
    [
        *("img 2.png", "img (2).png", '"img.png"', "img 1", "# two days", "0 img.png", "IMG"),
        *("img_mask.png", "img.png,masks/img.png", "images/img.png masks/img.png", "ghost"),
    ],
)
def test_a_line_that_is_not_a_name_is_an_error_that_shows_it(tmp_path, line):
    root = make_set(tmp_path / "s", names=("img", "x", "c", "0"))
    write(root / "50_50/train.txt", f"{line}\nx\n")
    data = find_dataset("s", tmp_path)
    (problem,) = data.problems["train"]
    assert "50_50/train.txt" in problem and repr(line) in problem and names(data, "train") == ["x"]


@pytest.mark.parametrize("entry", ["../s/images/a", "/etc/passwd", "C:\\x\\a.png", "images/../../a"])
def test_entry_that_leaves_the_data_set_is_refused(tmp_path, entry):
    root = make_set(tmp_path / "s")
    write(root / "50_50/test.txt", f"{entry}\nc\n")
    data = find_dataset("s", tmp_path)
    assert names(data, "test") == ["c"]
    (problem,) = data.problems["test"]
    assert repr(entry) in problem


def test_names_with_dots_spaces_commas_and_case(tmp_path):
    root = make_set(tmp_path / "s", names=("frame 1.5", "a 1", "a,b", "#x", "ü", "-x", "A", "a"))
    entries = "frame 1.5\na 1\na,b\n#x\nü\n-x\nA\na\n"
    write(root / "50_50/train.txt", entries)
    assert names(find_dataset("s", tmp_path), "train") == entries.split("\n")[:-1]


def test_names_are_compared_in_nfc(tmp_path):
    for files, entries in (("NFD", "NFC"), ("NFC", "NFD")):
        root = make_set(tmp_path / files, names=[unicodedata.normalize(files, n) for n in ("è", "é")])
        write(root / "50_50/train.txt", unicodedata.normalize(entries, "è\né\n"))
        data = find_dataset(files, tmp_path)
        assert len(data.lists["train"]) == 2 and not data.problems["train"]


def test_images_in_both_lists_and_in_none_are_announced(tmp_path):
    root = make_set(tmp_path / "s")
    write(root / "50_50/test.txt", "a\nd\n")
    notes = "\n".join(find_dataset("s", tmp_path).notes)
    assert "1 images are in the training and the test list: a" in notes
    assert "note: 1 images are in none of these lists: c" in notes


def test_empty_lists_and_lists_that_are_no_text(tmp_path):
    root = make_set(tmp_path / "s")
    write(root / "50_50/train.txt", "\n\n")
    with pytest.raises(DataError, match="empty"):
        find_dataset("s", tmp_path).samples("train")
    write(root / "50_50/train.txt", b"\x89PNG\xff\x00")
    with pytest.raises(DataError, match=r"50_50/train\.txt: not a text file"):
        find_dataset("s", tmp_path)


def test_a_long_report_is_cut(data, capsys):
    write(data / "50_50/train.txt", "".join(f"{k}\n" for k in range(30)))
    message = fails(main, "--dataset", "tiny", capsys=capsys)
    assert "30 of the train and test list's 32 entries" in message
    assert "'9' is listed" in message and "'10' is listed" not in message and "20 more" in message
