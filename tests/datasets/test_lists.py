"""What a list may look like, and which image an entry means."""

import unicodedata

import pytest
from conftest import fails, make_set, write
from sets import names

from ismallnet.datasets.find import find_dataset
from utils import main


@pytest.mark.parametrize(
    "text",
    [
        "Day_1\rDay_2\r",
        "\ufeffDay_1\r\n\ufeffDay_2\r\n",
        "\"Day_1.png\"\n'Day_2'\n",
        "s/images/Day_1.png\ns\\images\\Day_2.png\n",
        "Day_1_pixels0\nDay_2_pixels0.png\n",
        "masks/Day_1.png\nmasks/Day_2.png\n",
        "Day_1.bmp\nDay_2.JPG\n",
        "images/Day_1.png masks/Day_1.png\nimages/Day_2.png\tmasks/Day_2.png\n",
        "Day_1.png,Day_1.png\nDay_2.png, Day_2.png\n",
        "day_1\nDAY_2.PNG\n",
    ],
)
def test_forms(tmp_path, text):
    root = make_set(tmp_path / "s", names=("Day_1", "Day_2", "c", "d"))
    write(root / "50_50/train.txt", text.encode())
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["Day_1", "Day_2"] and not data.problems["train"]


@pytest.mark.parametrize(
    "line",
    ["img 2.png", "img (2).png", '"img (2).png"', "img 1", "img # clear", "# two days", "0 img.png"],
)
def test_a_line_that_is_more_than_names_of_one_image_is_an_error_that_shows_it(tmp_path, line):
    root = make_set(tmp_path / "s", names=("img", "x", "c", "0"))
    write(root / "50_50/train.txt", f"{line}\nx\n")
    (problem,) = find_dataset("s", tmp_path).problems["train"]
    assert "50_50/train.txt" in problem and repr(line) in problem


def test_names_are_compared_in_nfc(tmp_path):
    for files, entries in (("NFD", "NFC"), ("NFC", "NFD")):
        root = make_set(tmp_path / files, names=[unicodedata.normalize(files, n) for n in ("è", "é")])
        write(root / "50_50/train.txt", unicodedata.normalize(entries, "è\né\n"))
        data = find_dataset(files, tmp_path)
        assert len(data.lists["train"]) == 2 and not data.problems["train"]


def test_gbk(tmp_path):
    root = make_set(tmp_path / "s", names=("红外_1", "红外_2", "c", "d"))
    write(root / "50_50/train.txt", "红外_1\r\n红外_2\r\n".encode("gbk"))
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["红外_1", "红外_2"]
    assert any("read as GBK" in note for note in data.notes)


def test_the_whole_line_is_tried_before_its_columns(tmp_path):
    root = make_set(tmp_path / "s", names=("a", "a 1", "a,b", "#x"))
    write(root / "50_50/train.txt", "a 1\na,b\n#x\n")
    assert names(find_dataset("s", tmp_path), "train") == ["a 1", "a,b", "#x"]


def test_case_counts_where_it_must(tmp_path):
    root = make_set(tmp_path / "s", names=("A", "a", "B", "c"))
    write(root / "50_50/train.txt", "A\na\nb\n")
    write(root / "50_50/test.txt", "C\n")
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["A", "a", "B"] and names(data, "test") == ["c"]


def test_a_long_report_is_cut(data, capsys):
    write(data / "50_50/train.txt", "".join(f"{k}\n" for k in range(30)))
    message = fails(main, "--dataset", "tiny", capsys=capsys)
    assert "'9' is listed" in message and "'10' is listed" not in message and "20 more" in message


def test_val_serves_where_a_folder_has_no_test_list(tmp_path):
    root = make_set(tmp_path / "s")
    (root / "50_50/test.txt").rename(root / "50_50/val.txt")
    data = find_dataset("s", tmp_path)
    assert names(data, "test") == ["c", "d"]
    assert any("50_50/val.txt serves as the test list" in note for note in data.notes)
    (root / "50_50").rename(root / "mine")
    assert names(find_dataset("s", tmp_path, ["mine"]), "test") == ["c", "d"]
    pair = ["mine/train.txt", "mine/val.txt"]  # typed as the test list
    assert not any("serves" in note for note in find_dataset("s", tmp_path, pair).notes)
    (root / "mine").rename(root / "50_50")
    write(root / "80_20/trainval.txt", "b\n")
    write(root / "80_20/test.txt", "d\n")
    assert names(find_dataset("s", tmp_path), "test") == ["d"]


@pytest.mark.parametrize("ending", ["_mask", "_gt", "_label", "_seg", "_pixels0"])
def test_endings_of_mask_files(tmp_path, ending):
    root = make_set(tmp_path / "s")
    for file in [*(root / "masks").iterdir()]:
        file.rename(file.with_name(f"{file.stem}{ending}.png"))
    data = find_dataset("s", tmp_path)
    assert not any(data.problems.values())
    assert data.lists["train"][0].mask.name == f"a{ending}.png"
