"""Maps of other programs, in the forms in use."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import fails, make_set, target_mask, write

from eval import main
from ismallnet.evaluation.map_files import map_file, own_name, several_files

ON = target_mask() > 0


@pytest.fixture(autouse=True)
def data(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny")  # c and d are tested on


def iou(name="theirs") -> float:
    assert main(["--dataset", "tiny", "--maps", name, "--workers", "1", "--no-pd-fa"]) is None
    return json.loads(Path(f"results/{name}/tiny/metrics.json").read_text())["standard"]["iou"]


@pytest.mark.parametrize("end", ["png", "bmp", "tif"])
@pytest.mark.parametrize("suffix", ["", "_Pred"])
def test_endings_and_suffixes(end, suffix):
    for name in "cd":
        write(Path(f"theirs/{name}{suffix}.{end}"), ON.astype(np.uint8) * 255)
    assert iou() == 1.0


def test_zero_and_one_of_the_whole_folder(capsys):
    write(Path("theirs/c.png"), ON.astype(np.uint8))
    write(Path("theirs/d.png"), np.zeros(ON.shape, np.uint8))
    assert iou() == 0.5 and "values are 0 and 1; 1 is taken for 255" in capsys.readouterr().out
    write(Path("theirs/d.png"), ON.astype(np.uint8) * 200)  # now a 1 is nearly nothing
    assert iou() == 0.5 and "0 and 1" not in capsys.readouterr().out


def test_floats_are_probabilities(capsys):
    for name in "cd":
        Path("theirs").mkdir(exist_ok=True)
        np.save(f"theirs/{name}.npy", (ON * 0.75)[None].astype(np.float32))
    assert iou() == 1.0
    np.save("theirs/d.npy", ON * 4.0 - 2)  # logits
    message = fails(main, "--dataset", "tiny", "--maps", "theirs", "--workers", "1", capsys=capsys)
    assert "d.npy: found floats from -2 to 2, expected probabilities" in message


@pytest.mark.parametrize("top", [1, 255])
def test_inverted_maps_stop(top, capsys):
    for name in "cd":
        write(Path(f"theirs/{name}.png"), np.where(ON, 0, top).astype(np.uint8))
    message = fails(main, "--dataset", "tiny", "--maps", "theirs", "--workers", "1", capsys=capsys)
    assert "% of all pixels of the maps are target: they are inverted" in message


def test_other_sizes_say_what_to_do(capsys):
    for name in "cd":
        write(Path(f"theirs/{name}.png"), cv2.resize(ON.astype(np.uint8) * 255, (64, 64)))
    message = fails(main, "--dataset", "tiny", "--maps", "theirs", "--workers", "1", capsys=capsys)
    assert "found 64x64 (width x height), expected 48x40" in message and "without padding" in message


def test_several_files_of_an_image_are_said(capsys):
    for name in "cd":
        write(Path(f"theirs/{name}_mask.png"), ON.astype(np.uint8) * 255)
        write(Path(f"theirs/{name}_prob.png"), ON.astype(np.uint8) * 0)
    iou()
    out = capsys.readouterr().out
    assert "several files belong to one image, of 2 images, as c_mask.png, c_prob.png" in out
    assert "c_mask.png is taken" in out
    for name in "cd":
        Path(f"theirs/{name}_prob.png").unlink()
    iou()
    assert "several files" not in capsys.readouterr().out


def test_names_that_begin_with_another_image_s_are_no_second_file():
    for name in ("a", "a_1", "a_1_Pred"):
        write(Path(f"m/{name}.png"), np.zeros((4, 4), np.uint8))
    assert several_files(Path("m"), ["a", "a_2"]).count("a_1.png") == 1
    note = several_files(Path("m"), ["a", "a_1"])
    assert "of 1 images, as a_1.png, a_1_Pred.png: a_1.png is taken" in note
    Path("m/a_1_Pred.png").unlink()
    assert several_files(Path("m"), ["a", "a_1"]) == ""


@pytest.mark.parametrize(("scale", "said"), [(100, "100"), (0.4, "102")])
def test_maps_that_never_reach_the_threshold_are_said(scale, said, capsys):
    Path("theirs").mkdir()
    for name in "cd":
        if scale < 1:
            np.save(f"theirs/{name}.npy", (ON * scale).astype(np.float32))
        else:
            write(Path(f"theirs/{name}.png"), (ON * scale).astype(np.uint8))
    assert iou() == 0.0
    assert f"no map reaches 128, half of 255 (the largest value is {said})" in capsys.readouterr().out


def test_single_maps_of_another_scale_are_named(capsys):
    write(Path("theirs/c.png"), ON.astype(np.uint8))
    write(Path("theirs/d.png"), ON.astype(np.uint8) * 255)
    assert iou() == 0.5
    assert "1 maps have 1 as their largest value, others 255: c." in capsys.readouterr().out


def test_the_plain_name_comes_first(tmp_path):
    for name in ("a_Pred.png", "a.bmp"):
        write(Path("m") / name, np.zeros((4, 4), np.uint8))
    assert map_file(Path("m"), "a").name == "a.bmp" and map_file(Path("m"), "b").name == "b.png"


def test_floats_that_are_no_probabilities_say_why(capsys):
    Path("theirs").mkdir()
    for value, text in ((np.nan, "240 pixels are NaN"), (8.0, "logits? Apply"), (255, "Divide")):
        maps = np.zeros(ON.shape, np.float32)
        maps[:5] = value
        for name in "cd":
            np.save(f"theirs/{name}.npy", maps)
        assert text in fails(main, "--dataset", "tiny", "--maps", "theirs", capsys=capsys)


def test_a_folder_without_a_map_says_what_it_holds(capsys):
    write(Path("theirs/prob.c.png"), ON.astype(np.uint8) * 255)
    message = fails(main, "--dataset", "tiny", "--maps", "theirs", capsys=capsys)
    assert "theirs: found no map of the 2 images in it; it holds prob.c.png" in message
    assert "Expected c.png, c_pred.png or pred_c.png" in message


def test_beginnings_and_whole_numbers_of_any_type():
    Path("theirs").mkdir()
    write(Path("theirs/pred_c.png"), ON.astype(np.uint8) * 255)
    np.save("theirs/out_d.npy", ON.astype(np.int64) * 255)
    assert iou() == 1.0
    write(Path("theirs/c.png"), ~ON.astype(bool) * np.uint8(255))  # X.png is taken before pred_X.png
    assert map_file(Path("theirs"), "c").name == "c.png"
    assert map_file(Path("theirs"), "s/d") == Path("theirs/s/d.png")
    write(Path("theirs/s/pred_d.png"), ON.astype(np.uint8))
    assert map_file(Path("theirs"), "s/d") == Path("theirs/s/pred_d.png")


def test_masks_beside_maps_are_no_maps(capsys):
    for name in "cd":
        write(Path(f"theirs/mask_{name}.png"), ON.astype(np.uint8) * 255)
    message = fails(main, "--dataset", "tiny", "--maps", "theirs", capsys=capsys)
    assert "found no map of the 2 images" in message and "c_pred.png or pred_c.png" in message
    for name in "cd":
        write(Path(f"theirs/{name}.png"), ON.astype(np.uint8) * 255)
        write(Path(f"theirs/pred_{name}.png"), ON.astype(np.uint8) * 255)
    note = several_files(Path("theirs"), ["c", "d"])
    assert "of 2 images, as c.png, pred_c.png: c.png is taken" in note


def test_floats_outside_by_a_rounding_error_are_cut_off(capsys):
    """The advice was a sigmoid, after which every pixel is target."""
    Path("theirs").mkdir()
    for name in "cd":
        np.save(f"theirs/{name}.npy", np.where(ON, 1.0000002, -1e-7))
    assert iou() == 1.0
    np.save("theirs/d.npy", np.where(ON, 1.19, -0.11))
    message = fails(main, "--dataset", "tiny", "--maps", "theirs", "--workers", "1", capsys=capsys)
    assert "floats from -0.11 to 1.19" in message and "numpy.clip(map, 0, 1)" in message


def test_one_file_is_not_the_map_of_two_images(tmp_path, capsys):
    make_set(tmp_path / "data" / "two", names=("a", "b", "p", "p_pred"))
    write(Path("theirs/p_pred.png"), ON.astype(np.uint8) * 255)
    message = fails(main, "--dataset", "two", "--maps", "theirs", "--workers", "1", capsys=capsys)
    assert "p_pred.png: p and p_pred would both have this map; one of them has none" in message
    write(Path("theirs/p.png"), ON.astype(np.uint8) * 255)
    main(["--dataset", "two", "--maps", "theirs", "--workers", "1", "--no-pd-fa"])


def test_figures_go_to_a_file(capsys):
    for name in "cd":
        write(Path(f"theirs/{name}.png"), ON.astype(np.uint8) * 255)
    Path("file").write_text("mine")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    for words, expected in (
        (("--output", "theirs/c.png"), "expected a .json file, outside of the folders of --maps"),
        (("--output", "theirs/c.json"), "expected a .json file, outside of the folders of --maps"),
        (("--output", "file"), "expected a .json file"),
        (("--output", "folder"), "folder: a folder; expected the name of a file to write"),
        (("--output", "pipe"), "pipe: a device; expected the name of a file to write"),
        (("--output", "file/x.json"), "file: a file; expected a folder to write to"),
        (("--results", "file"), "file: a file; expected a folder to write to"),
    ):
        argv = ("--dataset", "tiny", "--maps", "theirs", "--workers", "1", "--no-pd-fa", *words)
        assert expected in fails(main, *argv, capsys=capsys)
    assert Path("file").read_text() == "mine" and Path("pipe").is_fifo()
    assert not any(Path("folder").iterdir())


def test_what_a_folder_of_maps_is_called():
    assert own_name("methods/DNANet", "tiny") == "DNANet" and own_name("other/tiny", "tiny") == "other"
