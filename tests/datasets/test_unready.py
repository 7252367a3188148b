"""Data sets that are not ready: archives not unpacked, Git LFS pointers, web pages, incomplete copies;
and file names whose bytes are not UTF-8."""

import json
import os
from pathlib import Path

import pytest
import torch
from conftest import fails, report_data, write

from eval import main as evaluate
from ismallnet.datasets.find import find_dataset
from ismallnet.files import printable
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


# --- names that are not ASCII, or not UTF-8 -------------------------------------------------------


def test_names_that_are_drawn():
    assert printable("a红") == "a红" and printable(NAME) == "s?"
    assert caption(90, (NAME, (9, 9, 9))).any()  # OpenCV alone crashes


def test_all_stages_work_with_them(data):
    for folder in ("images", "masks"):
        (data / folder / "c.png").rename(data / folder / "红外.png")
    for encoding in ("utf-8", "gbk"):
        write(data / "50_50/test.txt", "红外.png\n".encode(encoding))
        tiny = find_dataset("tiny")
        assert [sample.name for sample in tiny.samples("test")] == ["红外"]
        assert any("read as GBK" in note for note in tiny.notes) == (encoding == "gbk")
    torch.save({"state_dict": iSmallNet(2).state_dict()}, "w.pt")
    try:
        data.rename(data.with_name(NAME))
    except OSError:
        pytest.skip("this file system has UTF-8 names alone")
    typed, other = ["--dataset", NAME], os.fsdecode(b"run\xfe")
    main(typed)
    for results in ("results", other):
        infer([*typed, "--weights", "w.pt", "--device", "cpu", "--results", results])
    evaluate([*typed])
    visualization(typed)
    visualization([*typed, "--compare", other, "--figure", "paper"])
    folder = Path("results", NAME)
    assert json.loads((folder / "about.json").read_text())["images"] == ["红外"]
    assert "红外" in (folder / "images.csv").read_text()
    assert len(report_data(folder / "report/index.html")["images"]) == 1
    for path in ("红外.png", "figures/红外.png", "curves.png", "paper/panels.pdf"):
        assert (folder / path).stat().st_size
