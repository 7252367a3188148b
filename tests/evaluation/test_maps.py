"""Which file is the map of an image, and what its values mean."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import fails, make_set, target_mask, write

from eval import main
from ismallnet.evaluation.map_files import find_maps, place_of

ON = target_mask() > 0
WHITE, DARK = ON.astype(np.uint8) * 255, np.zeros(ON.shape, np.uint8)
ARGV = ("--dataset", "tiny", "--maps", "theirs", "--workers", "1")


@pytest.fixture(autouse=True)
def data(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny")  # c and d are tested on


def theirs(c: np.ndarray, d: np.ndarray, ending: str = ".png") -> None:
    """Writes the maps of another program."""
    Path("theirs").mkdir(exist_ok=True)
    for name, pixels in (("c", c), ("d", d)):
        if ending.endswith(".npy"):
            np.save(f"theirs/{name}{ending}", pixels)
        else:
            write(Path(f"theirs/{name}{ending}"), pixels)


def iou() -> float:
    assert main(ARGV) is None
    return json.loads(Path("results/theirs/tiny/metrics.json").read_text())["standard"]["iou"]


# --- values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".png", "_Pred.png", "_x_y.png", ".npy", "_prob.npy"])
def test_names_and_whole_numbers_of_any_type(ending):
    kind = np.int64 if ending.endswith(".npy") else np.uint8
    theirs(WHITE.astype(kind), WHITE.astype(kind), ending)
    assert iou() == 1.0


def test_zero_and_one_of_the_whole_folder(capsys):
    theirs(ON.astype(np.uint8), DARK)
    assert iou() == 0.5 and "0 and 1" in capsys.readouterr().out
    theirs(ON.astype(np.uint8), (ON * 200).astype(np.uint8))  # now a 1 is nearly nothing
    assert iou() == 0.5


@pytest.mark.parametrize("values", [(0.75, 0), (1.0000002, -1e-7)])
def test_floats_are_probabilities_up_to_rounding(values):
    target, background = values
    maps = np.where(ON, target, background)[None].astype(np.float32)
    theirs(maps, maps, ".npy")
    assert iou() == 1.0


@pytest.mark.parametrize("value", [-2.0, np.nan, 8.0, 255.0, 1.19])
def test_floats_that_are_no_probabilities_are_refused(value, capsys):
    theirs(np.where(ON, 1.0, 0), np.where(ON, value, 0), ".npy")
    assert "theirs/d.npy: found float64" in fails(main, *ARGV, capsys=capsys)


def test_all_files_that_are_no_maps_are_named(capsys):
    theirs(WHITE.astype(np.uint16) * 257, np.dstack([WHITE, DARK, DARK]))
    message = fails(main, *ARGV, capsys=capsys)
    assert "theirs/c.png: found uint16" in message and "theirs/d.png: found uint8" in message


@pytest.mark.parametrize("top", [1, 255])
def test_inverted_maps_stop(top, capsys):
    theirs(*[np.where(ON, 0, top).astype(np.uint8)] * 2)
    assert "theirs: 99 %" in fails(main, *ARGV, capsys=capsys)


@pytest.mark.parametrize("order", [1, -1])
def test_maps_of_one_over_255_everywhere_are_not_inverted(order):
    theirs(*[np.ones(ON.shape, np.uint8), np.where(ON, 200, 1).astype(np.uint8)][::order])
    assert iou() == 0.5


def test_maps_that_never_reach_the_threshold_are_said(capsys):
    theirs(*[(ON * 0.4).astype(np.float32)] * 2, ".npy")
    assert iou() == 0.0 and "102" in capsys.readouterr().out


# --- names -------------------------------------------------------------------------------------------


def test_the_plain_name_comes_first():
    for name in ("a.png", "a_overlay.png", "a_1_prob.png", "s/b_out.png", "a.bmp"):
        write(Path("m") / name, DARK)
    files = find_maps(Path("m"), ["a", "a_1", "s/b"])
    assert [path.name for path in files.values()] == ["a.png", "a_1_prob.png", "b_out.png"]


@pytest.mark.parametrize("files", [("a_mask.png", "a_prob.png"), ("a.png", "a.npy")])
def test_two_files_that_could_be_the_map_are_an_error(files, capsys):
    theirs(WHITE, WHITE)
    Path("theirs/c.png").unlink()
    for name in files:
        Path(f"theirs/{name.replace('a', 'c', 1)}").touch()
    message = fails(main, *ARGV, capsys=capsys)
    assert all(name.replace("a", "c", 1) in message for name in files)


def test_a_folder_without_a_map_says_what_it_holds(capsys):
    for name in ("prob.c.png", "mask_c.png", "c.bmp", "c.png.txt"):
        write(Path("theirs") / name, "x")
    message = fails(main, *ARGV, capsys=capsys)
    assert "theirs: found no map of 2 of the 2 images: c, d" in message and "c.png.txt" in message


def test_one_file_is_not_the_map_of_two_images(tmp_path, capsys):
    make_set(tmp_path / "data" / "two", names=("a", "b", "p", "p_pred"))
    write(Path("theirs/p_pred.png"), WHITE)
    assert "1 of the 2 images: p;" in fails(main, "--dataset", "two", "--maps", "theirs", capsys=capsys)
    write(Path("theirs/p.png"), WHITE)
    main(["--dataset", "two", "--maps", "theirs", "--workers", "1"])


# --- where metrics go --------------------------------------------------------------------------------


def test_metrics_go_to_a_file_that_is_ours(capsys):
    theirs(WHITE, WHITE)
    Path("file").write_text("mine")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    for output in ("theirs/c.png", "file", "folder", "pipe", "file/x.json"):
        assert output.split("/")[0] in fails(main, *ARGV, "--output", output, capsys=capsys)
    main(ARGV)
    assert "metrics: results/theirs/tiny/metrics.json" in capsys.readouterr().out
    names = sorted(p.name for p in Path("results/theirs/tiny").glob("[!.]*"))
    assert names == ["metrics.json", "metrics_about.json", "metrics_pd_fa.csv", "metrics_roc_pr.csv"]
    Path("results").rename("there")
    Path("results").write_text("mine")
    assert "results;" in fails(main, *ARGV, capsys=capsys)
    assert Path("file").read_text() == "mine" and Path("pipe").is_fifo()
    assert not any(Path("folder").iterdir()) and len(list(Path("theirs").iterdir())) == 2


@pytest.mark.parametrize(
    "maps, place",
    [
        ("methods/DNANet", "results/DNANet/tiny"),
        ("other/tiny", "results/other/tiny"),
        ("results", "results/tiny"),
        ("results/tiny", "results/tiny"),
        ("results/seed0", "results/seed0/tiny"),
        ("results/seed0/tiny", "results/seed0/tiny"),
    ],
)
def test_where_the_metrics_of_maps_go(maps, place):
    for folder in ("results/tiny", "results/seed0/tiny"):
        Path(folder).mkdir(parents=True)
    assert place_of(Path(maps), "tiny").metrics == Path(place)
    assert place_of(Path("other/tiny"), "tiny").title == "other"
