"""What a list may look like, and which image an entry means."""

import unicodedata

import pytest
from conftest import make_set, write
from sets import names

from dataset import Frames
from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.lists import is_json


@pytest.mark.parametrize(
    "text",
    [
        "Day_1\rDay_2\r",
        "\ufeffDay_1\r\n\ufeffDay_2\r\n",
        "\"Day_1.png\"\n'Day_2'\n",
        '"Day_1.png" 1\n"Day_2.png" 0\n',
        "s/images/Day_1.png\ns\\images\\Day_2.png\n",
        "Day_1_pixels0\nDay_2_pixels0.png\n",
        "masks/Day_1.png\nmasks/Day_2.png\n",
        "Day_1.bmp\nDay_2.JPG\n",
        "images/Day_1.png masks/Day_1.png\nimages/Day_2.png\tmasks/Day_2.png\n",
        "Day_1.png,Day_1.png\nDay_2.png, Day_2.png\n",
        "# two days\nDay_1 # clear sky\nDay_2.png 1\n",
        "day_1\nDAY_2.PNG\n",
    ],
)
def test_forms(tmp_path, text):
    root = make_set(tmp_path / "s", names=("Day_1", "Day_2", "c", "d"))
    write(root / "50_50/train.txt", text.encode())
    data = find_dataset("s", tmp_path)
    assert names(data, "train") == ["Day_1", "Day_2"] and not data.problems["train"]


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


def test_the_whole_line_is_tried_before_its_first_column(tmp_path):
    root = make_set(tmp_path / "s", names=("a", "a 1", "a,b", "#x"))
    write(root / "50_50/train.txt", "a 1\na,b\n#x\n")
    assert names(find_dataset("s", tmp_path), "train") == ["a 1", "a,b", "#x"]


def test_case_counts_where_it_must(tmp_path):
    root = make_set(tmp_path / "s", names=("x_A", "x_a", "c", "d"))
    write(root / "50_50/train.txt", "x_a\nx_A\n")
    assert names(find_dataset("s", tmp_path), "train") == ["x_a", "x_A"]
    write(root / "50_50/train.txt", "X_A\n")
    assert "could be" in find_dataset("s", tmp_path).problems["train"][0]


def test_the_nearest_name_is_told_and_a_long_report_is_cut(tmp_path):
    root = make_set(tmp_path / "s", names=("000001", "000002", "c", "d"))
    write(root / "50_50/train.txt", "1\n000001\n")
    problem = find_dataset("s", tmp_path).problems["train"][0]
    assert "'1' is listed" in problem and "nearest name there is '000001'" in problem
    write(root / "50_50/train.txt", "".join(f"ghost{i}\n" for i in range(201)))
    with pytest.raises(DataError) as error:
        Frames(find_dataset("s", tmp_path), "train")
    assert "201 of the train list" in str(error.value) and "… and 191 more" in str(error.value)
    assert str(error.value).count("is listed") == 10


@pytest.mark.parametrize(
    "entry", ["/home/u/images/a.png", "D:\\data\\images\\a.png", "../s/images/a.png"]
)
def test_a_path_that_leads_out_is_refused_and_the_name_to_write_is_told(tmp_path, entry):
    root = make_set(tmp_path / "s")
    write(root / "50_50/train.txt", f"{entry}\n")
    data = find_dataset("s", tmp_path)
    assert not data.lists["train"] and "write 'a.png'" in data.problems["train"][0]


def test_val_serves_where_there_is_no_test_list(tmp_path):
    root = make_set(tmp_path / "s")
    (root / "50_50/test.txt").rename(root / "50_50/val.txt")
    data = find_dataset("s", tmp_path)
    assert names(data, "test") == ["c", "d"]
    assert any("50_50/val.txt serves as the test list" in note for note in data.notes)
    (root / "50_50").rename(root / "mine")
    data = find_dataset("s", tmp_path, ["mine"])
    assert "no test list found: mine/val.txt serves as the test list" in data.notes
    pair = ["mine/train.txt", "mine/val.txt"]  # typed as the test list
    assert not any("serves" in note for note in find_dataset("s", tmp_path, pair).notes)
    (root / "mine").rename(root / "50_50")
    write(root / "80_20/trainval.txt", "b\n")
    write(root / "80_20/test.txt", "d\n")
    data = find_dataset("s", tmp_path)
    assert names(data, "test") == ["d"] and not any("serves" in note for note in data.notes)


@pytest.mark.parametrize("ending", ["_mask", "_gt", "_label", "_seg", "_pixels0"])
def test_endings_of_mask_files(tmp_path, ending):
    root = make_set(tmp_path / "s")
    for file in [*(root / "masks").iterdir()]:
        file.rename(file.with_name(f"{file.stem}{ending}.png"))
    data = find_dataset("s", tmp_path)
    assert not any(data.problems.values())
    assert data.lists["train"][0].mask.name == f"a{ending}.png"


@pytest.mark.parametrize("entry", ["\x1f", "\ufeff", '""', ",", "#"])
def test_lines_without_a_name_do_no_harm(tmp_path, entry):
    root = make_set(tmp_path / "s")
    write(root / "50_50/train.txt", f"{entry}\na\n")
    assert names(find_dataset("s", tmp_path), "train") == ["a"]


def test_running_numbers_that_are_names_of_images_too(tmp_path):
    root = make_set(tmp_path / "s", ["0", "1", "2", "3"], train=2)
    (root / "test.txt").write_text("3\n")
    (root / "train.txt").write_text("0 2.png\n1 0.png\n")
    data = find_dataset("s", tmp_path)
    assert data.problems["train"][0].endswith(
        "'0 2.png' names two images, 0 and 2; keep the column with the names alone"
    )
    (root / "train.txt").write_text("0.png masks/0.png\n1.png masks/1.png\n")
    assert not find_dataset("s", tmp_path).problems["train"]
    (root / "train.txt").write_text("7 2.png\n")  # no image has this number
    assert find_dataset("s", tmp_path).problems["train"]


def test_a_header_is_said_and_left_out(tmp_path):
    root = make_set(tmp_path / "s", ["a", "b", "c"], train=2)
    (root / "train.txt").write_text("image,mask\na.png,a.png\nb.png,b.png\n")
    (root / "test.txt").write_text("c\n")
    data = find_dataset("s", tmp_path)
    assert [s.name for s in data.lists["train"]] == ["a", "b"] and not data.problems["train"]
    assert "train.txt: the first line, 'image,mask', is taken for a header" in data.notes
    (root / "test.txt").write_text("image_7,1\nc\n")  # an image that is not there
    assert find_dataset("s", tmp_path).problems["test"]
    (root / "test.txt").write_text("c\nimage,mask\n")  # not the first line
    assert find_dataset("s", tmp_path).problems["test"]


def test_lists_in_json_are_refused(tmp_path):
    root = make_set(tmp_path / "s")
    write(root / "50_50/train.txt", '{"train": ["a", "b"],\n "test": ["c"]}\n')
    for text in ("{a}\n{b}\n", "[a]\n[b]\n", "[1]\n"):  # names in brackets
        assert not is_json(text)
    with pytest.raises(DataError, match=r"train\.txt: found JSON, expected a text file"):
        find_dataset("s", tmp_path)


@pytest.mark.parametrize("line", ["img (2).png", '"img (2).png"', "img 2.png", "img copy 2.png"])
def test_a_name_with_spaces_that_is_not_there_is_not_its_first_word(tmp_path, line):
    root = make_set(tmp_path / "s", names=("img", "x", "c", "d"))
    write(root / "50_50/train.txt", f"{line}\nx\n")
    problems = find_dataset("s", tmp_path).problems["train"]
    assert len(problems) == 1 and "is listed, but" in problems[0] and "no such image" in problems[0]
    for entry in ("img masks/img.png", "img img.png", "img 3", "img.png 2.png"):
        write(root / "50_50/train.txt", f"{entry}\nx\n")
        assert names(find_dataset("s", tmp_path), "train") == ["img", "x"]
