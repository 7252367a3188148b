"""Data sets that are not ready: archives not unpacked, Git LFS pointers, web pages, incomplete copies;
and file names whose bytes are not UTF-8."""

import json
import os
from pathlib import Path

import cv2
import pytest
import torch
from conftest import fails, picture, report_data, target_mask, write

from eval import main as evaluate
from ismallnet.datasets.find import find_dataset
from ismallnet.files import printable, readable
from ismallnet.report.panels import caption
from net import iSmallNet
from test import main as infer
from utils import main
from visualization import main as visualization

TINY = ("--dataset", "tiny")
NAME = os.fsdecode(b"s\xff")  # of a data set, no UTF-8


# --- what is not what its name says ----------------------------------------------------------------


def test_images_that_are_not_read_are_counted(data, capsys):
    (data / "images/a.png").rename(data / "images/a.webp")
    assert any("masks/a.png" in note for note in find_dataset("tiny").notes)
    for path in (data / "images").iterdir():
        path.unlink()
    write(data / "images.zip", b"x")
    write(data / "images/c.webp", b"x")
    (data / "images/e.png").symlink_to("nowhere.png")
    error = fails(main, *TINY, capsys=capsys)
    assert "found no images" in error and "4 .png" in error and "1 .zip" in error
    assert "1 .webp" in error and "1 links to nothing" in error


def test_masks_of_other_names_are_not_missing_masks(data, capsys):
    for k, path in enumerate(sorted((data / "masks").iterdir())):
        path.rename(path.with_name(f"{k:04}.png"))
    error = fails(main, *TINY, capsys=capsys)
    assert "masks/0000.png" in error and "masks/a.png" in error and "--mask-suffix" in error


# --- names that are not UTF-8 ----------------------------------------------------------------------

GBK = os.fsdecode("红外".encode("gbk"))
BROKEN = os.fsdecode(b"x\xff\xff")  # neither UTF-8 nor GBK


@pytest.fixture
def gbk_set(tmp_path) -> Path:
    """data/tiny with a name in GBK bytes, and one that is no text at all."""
    root = tmp_path / "data" / "tiny"
    try:
        write(root / "images" / f"{GBK}.png", b"x")
    except OSError:
        pytest.skip("this file system has UTF-8 names alone")
    for k, name in enumerate(("a", "b", GBK, BROKEN)):
        for folder, pixels in (("images", picture(k)), ("masks", target_mask())):
            write(root / folder / f"{name}.png", cv2.imencode(".png", pixels)[1].tobytes())
    return root


def test_what_names_are_for_people():
    assert readable("a红") == "a红" and readable(GBK) == "红外" and readable(BROKEN) == BROKEN
    assert printable(GBK) == "红外" and printable(BROKEN) == "x??"
    assert caption(90, (BROKEN, (9, 9, 9))).any()  # OpenCV alone crashes


def test_all_stages_work_with_them(gbk_set, capsys):
    write(gbk_set / "50_50/train.txt", "a\nb\n")
    write(gbk_set / "50_50/test.txt", "红外\n".encode("gbk") + b"x\xff\xff\n")
    error = fails(main, *TINY, capsys=capsys)  # a list in neither
    assert "test.txt: not a text file" in error
    for encoding in ("utf-8", "gbk"):
        write(gbk_set / "50_50/test.txt", "红外.png\n".encode(encoding))
        data = find_dataset("tiny")
        (sample,) = data.samples("test")
        assert sample.name == GBK and sample.mask == Path("data/tiny/masks", f"{GBK}.png")
        assert any("read as GBK" in note for note in data.notes) == (encoding == "gbk")
    torch.save({"state_dict": iSmallNet(2).state_dict()}, "w.pt")
    gbk_set.rename(gbk_set.with_name(NAME))
    typed, other = ["--dataset", NAME], os.fsdecode(b"run\xfe")
    main(typed)
    for results in ("results", other):
        infer([*typed, "--weights", "w.pt", "--device", "cpu", "--results", results])
    evaluate([*typed])
    visualization(typed)
    visualization([*typed, "--compare", other, "--figure", "paper"])
    folder = Path("results", NAME)
    assert json.loads((folder / "about.json").read_text())["images"] == [GBK]
    assert "\\udcba" in (folder / "images.csv").read_text()
    assert len(report_data(folder / "report/index.html")["images"]) == 1
    for path in (f"{GBK}.png", f"figures/{GBK}.png", "curves.png", "paper/panels.pdf"):
        assert (folder / path).stat().st_size


def test_a_new_split_can_be_read_again(gbk_set, capsys):
    error = fails(main, *TINY, capsys=capsys)
    assert "50_50" in error and "--split TRAIN.txt" in error  # BROKEN cannot be written as text
    for folder in ("images", "masks"):
        (gbk_set / folder / f"{BROKEN}.png").unlink()
    first, second = (
        [s.name for part in find_dataset("tiny").lists.values() for s in part] for _ in "12"
    )
    lists = "".join(path.read_text() for path in sorted((gbk_set / "50_50").glob("*.txt")))
    assert "红外\n" in lists and first == second and sorted(first) == sorted(["a", "b", GBK])
