"""Data sets that are not ready: archives not unpacked, Git LFS pointers, web pages, incomplete copies;
and file names whose bytes are not UTF-8."""

import json
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import fails, make_set, picture, target_mask, write

from dataset import Frames
from eval import main as evaluate
from ismallnet.datasets.checks import copies_note
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.names import archives, printable, readable
from ismallnet.report.panels import caption
from net import iSmallNet
from test import main as infer
from utils import main
from visualization import main as visualization

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize 1234\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>"
TINY = ("--dataset", "tiny")


def pack(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "x")


# --- archives --------------------------------------------------------------------------------------


def test_an_archive_beside_an_empty_folder(data, capsys):
    for path in (data / "images").iterdir():
        path.unlink()
    pack(data / "images.zip", "images/a.png")
    error = fails(main, *TINY, capsys=capsys)
    assert "found no images" in error
    assert "images.zip" in error and "unpack them first, into data/tiny" in error
    (data / "images.zip").rename(data / "images" / "part.tar.gz")
    write(data / "images" / "more.7z.001", b"x")
    error = fails(main, *TINY, capsys=capsys)
    assert "images/more.7z.001, images/part.tar.gz" in error


def test_an_archive_of_masks(data, capsys):
    for path in (data / "masks").iterdir():
        path.unlink()
    pack(data / "masks.zip", "a.png")
    error = fails(main, *TINY, capsys=capsys)
    assert "found no mask for any image. masks.zip" in error


def test_an_archive_in_the_place_of_the_folder(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    pack(tmp_path / "data" / "Tiny.zip", "a")
    error = fails(main, *TINY, capsys=capsys)
    assert "no such data set, but its archive Tiny.zip is there; unpack it first, in data" in error
    assert archives(tmp_path / "data") == [tmp_path / "data" / "Tiny.zip"]


def test_archives_beside_a_whole_set_do_not_matter(data, capsys):
    pack(data / "images.zip", "images/a.png")
    main([*TINY])
    assert "archive" not in capsys.readouterr().out


# --- what is not what its name says ----------------------------------------------------------------


def test_pointers_pages_and_archives_as_pictures(data, capsys):
    write(data / "images/a.png", POINTER)
    write(data / "masks/b.png", POINTER)
    write(data / "images/c.png", PAGE)
    pack(data / "masks/d.png", "x")
    error = fails(main, *TINY, capsys=capsys)
    assert "4 of the train and test list's 4 entries cannot be used" in error
    for name in ("images/a.png", "masks/b.png"):
        assert f"{name}: not a readable image (a Git LFS pointer, not the file itself" in error
    assert "images/c.png: not a readable image (a web page" in error
    assert "masks/d.png: not a readable image (a zip archive; unpack it first)" in error


@pytest.mark.parametrize("content, what", [(POINTER, "git lfs pull"), (PAGE, "a web page")])
def test_lists_that_are_none(data, content, what, capsys):
    write(data / "50_50/test.txt", content)
    error = fails(main, *TINY, capsys=capsys)
    assert "50_50/test.txt: not a list of names" in error and what in error


def test_a_copy_that_was_cut_off(tmp_path, capsys):
    names = [f"i{k:02}" for k in range(40)]
    root = make_set(tmp_path / "data" / "tiny", names, train=20)
    for name in names[:15]:
        (root / f"images/{name}.png").unlink()
    error = fails(main, *TINY, capsys=capsys)
    assert "15 of the train and test list's 40 entries" in error
    assert "… and 5 more, not named here" in error and "complete" not in error
    for name in names[:25]:
        (root / f"images/{name}.png").unlink(missing_ok=True)
    error = fails(main, *TINY, capsys=capsys)
    assert "25 of the train and test list's 40 entries" in error
    assert "More than half: is the download or the copy complete, and unpacked?" in error


# --- names that are not UTF-8 ----------------------------------------------------------------------

GBK = os.fsdecode("红外".encode("gbk"))
BROKEN = os.fsdecode(b"x\xff\xff")  # neither UTF-8 nor GBK


@pytest.fixture
def gbk_set(tmp_path) -> Path:
    """data/tiny with a name in GBK bytes in the test list, and one that is no text at all."""
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
    assert caption(BROKEN, 90).any()  # OpenCV alone crashes


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
def test_lists_name_them_in_utf_8_or_gbk(gbk_set, encoding):
    write(gbk_set / "50_50/train.txt", "a\nb\n")
    write(gbk_set / "50_50/test.txt", "红外.png\n".encode(encoding))
    (sample,) = find_dataset("tiny").samples("test")
    assert sample.name == GBK and sample.mask == Path("data/tiny/masks", f"{GBK}.png")


def test_all_stages_work_with_them(gbk_set, capsys):
    write(gbk_set / "50_50/train.txt", "a\nb\n")
    write(gbk_set / "50_50/test.txt", "红外\n".encode("gbk") + b"x\xff\xff\n")
    error = fails(main, *TINY, capsys=capsys)  # a list in neither
    assert "test.txt: not a text file" in error
    write(gbk_set / "50_50/test.txt", "红外\n".encode("gbk"))
    torch.manual_seed(0)
    torch.save({"state_dict": iSmallNet(2).state_dict()}, "w.pt")
    main([*TINY])
    infer([*TINY, "--weights", "w.pt", "--device", "cpu"])
    evaluate([*TINY, "--workers", "1"])
    visualization([*TINY, "--workers", "1", "--figure", "paper"])
    assert json.loads(Path("results/tiny/about.json").read_text())["images"] == [GBK]
    assert "\\udcba" in Path("results/tiny/images.csv").read_text()
    for path in (f"{GBK}.png", f"figures/{GBK}.png", "report/index.html"):
        assert Path("results/tiny", path).stat().st_size


def test_a_new_split_can_be_read_again(gbk_set, capsys):
    error = fails(main, *TINY, capsys=capsys)
    assert "a file name is not UTF-8" in error  # BROKEN cannot be written as text
    for folder in ("images", "masks"):
        (gbk_set / folder / f"{BROKEN}.png").unlink()
    first = {part: [s.name for s in find_dataset("tiny").samples(part)] for part in ("train", "test")}
    lists = "".join(path.read_text() for path in sorted((gbk_set / "50_50").glob("*.txt")))
    assert "红外\n" in lists
    assert first == {
        part: [s.name for s in find_dataset("tiny").samples(part)] for part in ("train", "test")
    }
    assert sorted([*first["train"], *first["test"]]) == sorted(["a", "b", GBK])


# --- what would be wrong without a word ------------------------------------------------------------


def notes() -> str:
    return "\n".join(find_dataset("tiny").notes)


def test_pictures_that_are_not_read_are_counted(data):
    (data / "images/c.png").rename(data / "images/c.webp")
    (data / "images/.d.webp").touch()
    (data / "images/e.png").symlink_to("nowhere.png")
    assert "note: 1 files in images/ are not read: c.webp" in notes()
    assert "note: 1 links in images/ lead to no file: e.png" in notes()


def test_links_to_nothing_and_dvc_instead_of_images(data, capsys):
    for path in (data / "images").iterdir():
        path.unlink()
        path.symlink_to("/nowhere/x.png")
    (data / "images.dvc").touch()
    error = fails(main, *TINY, capsys=capsys)
    assert "4 links in images/ lead to no file: a.png, b.png, c.png, d.png" in error
    assert "dvc pull" in error


def test_masks_in_other_formats_are_not_missing_masks(data, capsys):
    for path in (data / "masks").iterdir():
        path.rename(path.with_suffix(".npy"))
    error = fails(main, *TINY, capsys=capsys)
    assert "4 files in masks/ are not read: a.npy, b.npy, c.npy, d.npy" in error
    assert "--missing-masks" not in error


def test_masks_by_instance_are_not_lost_in_silence(data):
    assert "no image's mask" not in notes()
    write(data / "masks/a_pixels0.png", target_mask())
    write(data / "masks/z.png", target_mask())
    assert "note: 2 mask files are no image's mask: masks/a_pixels0.png, masks/z.png" in notes()


def test_images_of_one_name_and_images_in_no_list(data):
    write(data / "images/c.jpg", picture())
    write(data / "images/e.png", picture(5))
    write(data / "masks/e.png", target_mask())
    assert "note: 1 images are in none of these lists: e" in notes()


def test_copies_in_both_lists(data):
    assert not copies_note(find_dataset("tiny"))
    write(data / "images/d.png", (data / "images/a.png").read_bytes())
    assert "1 test images are copies of training images: d = a" in copies_note(find_dataset("tiny"))[0]
    raw = (data / "images/a.png").read_bytes()
    write(data / "images/d.png", raw[:-1] + bytes([raw[-1] ^ 1]))  # the same but for the last byte
    assert not copies_note(find_dataset("tiny"))


@pytest.mark.parametrize("name", ["train.csv", "train.json", "test.xlsx"])
def test_a_list_of_another_kind_is_not_replaced_by_a_new_split(data, name, capsys):
    for path in (data / "50_50").iterdir():
        path.unlink()
    write(data / name, "a\nb\n")
    error = fails(main, *TINY, capsys=capsys)
    assert f"cannot tell which of {name} are its lists" in error and "--split TRAIN.txt" in error
    assert not list((data / "50_50").iterdir())


def test_images_in_the_place_of_masks(data, capsys):
    write(data / "masks/a.png", picture())
    assert "note: 1 masks look like pictures" in notes()
    write(data / "masks/b.png", picture(1))
    error = fails(main, *TINY, capsys=capsys)
    assert "all masks of the train list look like pictures" in error and "--mask-folder" in error


def test_masks_of_other_names_are_not_missing_masks(data, capsys):
    for k, path in enumerate(sorted((data / "masks").iterdir())):
        path.rename(path.with_name(f"{k:04}.png"))
    error = fails(main, *TINY, capsys=capsys)
    assert "masks/0000.png" in error and "masks/a.png" in error and "--mask-suffix" in error


def test_targets_that_resizing_loses_are_named(data, capsys):
    pixels = np.zeros((80, 96), np.uint8)
    pixels[21, 25] = pixels[40:44, 40:44] = 255  # nearest neighbour takes even rows and columns
    write(data / "masks/c.png", pixels)
    Frames(find_dataset("tiny"), "test")
    out = capsys.readouterr().out
    assert "1 masks resized to their images (c)" in out
    assert "note: tiny test: targets were lost in that: c (2 targets, 1 left)" in out
    pixels[21, 25] = 0
    write(data / "masks/c.png", pixels)
    Frames(find_dataset("tiny"), "test")
    assert "lost" not in capsys.readouterr().out
