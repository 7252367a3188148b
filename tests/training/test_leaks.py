"""Figures that would be of the wrong images, or too good: maps of two networks, images seen before."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fails, make_set, picture, target_mask, write
from runs import RUN, TINY, run

import utils
from eval import main as evaluate
from export import main as export
from ismallnet.checkpoints import save_weights
from net import iSmallNet, load_weights
from test import main as infer
from train import main as train
from visualization import main as visualise

NAMES = "abcdefgh"


@pytest.fixture(autouse=True)
def data(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny", names=NAMES, train=6)


def weights(seed: int) -> str:
    torch.manual_seed(seed)
    save_weights(iSmallNet(2).state_dict(), {}, Path(f"w{seed}.safetensors"))
    return f"w{seed}.safetensors"


# --- maps of two calls -------------------------------------------------------------------------------


def test_maps_of_two_networks_are_not_evaluated_together(data, capsys):
    write(data / "other/train.txt", "b\nc\n")
    write(data / "other/test.txt", "a\ng\n")
    infer(["--dataset", "tiny", "--weights", weights(0)])  # g, h
    infer(["--dataset", "tiny", "--weights", weights(1), "--split", "other"])  # a, g
    message = fails(evaluate, "--dataset", "tiny", capsys=capsys)
    assert "results/tiny: test.py's last call there made no maps of 1 of these 2 images: h" in message
    utils.main(["--dataset", "tiny"])
    assert "Type test.py again" in fails(visualise, "--dataset", "tiny", capsys=capsys)
    evaluate(["--dataset", "tiny", "--split", "other"])


def test_the_report_has_the_figures_of_its_own_list_and_masks(data, capsys):
    write(data / "other/train.txt", "b\nc\n")
    write(data / "other/test.txt", "g\n")
    utils.main(["--dataset", "tiny"])
    infer(["--dataset", "tiny", "--weights", weights(0)])
    left_out = "metrics.json: of another"
    evaluate(["--dataset", "tiny"])
    visualise(["--dataset", "tiny"])
    assert left_out not in capsys.readouterr().out
    evaluate(["--dataset", "tiny", "--split", "other"])
    visualise(["--dataset", "tiny"])
    assert left_out in capsys.readouterr().out
    evaluate(["--dataset", "tiny"])
    write(data / "masks/g.png", np.roll(target_mask(), 9, axis=1))
    utils.main(["--dataset", "tiny"])
    visualise(["--dataset", "tiny"])
    assert left_out in capsys.readouterr().out


def test_results_are_not_written_among_the_images(data, capsys):
    argv = ("--dataset", "tiny", "--weights", weights(0), "--results", "data")
    message = fails(infer, *argv, capsys=capsys)
    assert "data/tiny: is the data set itself; expected another folder" in message


# --- label maps --------------------------------------------------------------------------------------


def test_a_mask_that_changes_unseen_by_size_and_time_has_its_maps_made_again(data, capsys):
    masks = [data / "masks" / f"{name}.bmp" for name in NAMES]
    for path in masks:
        path.with_suffix(".png").unlink()
        write(path, target_mask())
    utils.main(["--dataset", "tiny"])
    before = masks[7].stat()
    write(masks[7], np.roll(target_mask(), 9, axis=1))
    os.utime(masks[7], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert masks[7].stat().st_size == before.st_size
    infer(["--dataset", "tiny", "--weights", weights(0)])
    message = fails(visualise, "--dataset", "tiny", capsys=capsys)
    assert "the label maps of h are not of the masks as they are now; make them again: " in message
    utils.main(["--dataset", "tiny"])
    assert "maps of 1 masks made, 7 kept" in capsys.readouterr().out
    visualise(["--dataset", "tiny"])


def test_a_person_s_own_files_are_not_replaced(data, capsys):
    own = write(data / "interior/a.png", picture(9))
    before = own.read_bytes()
    for main, argv in ((utils.main, []), (train, ["--epochs", "1"])):
        message = fails(main, "--dataset", "tiny", *argv, capsys=capsys)
        assert "data/tiny/interior/a.png: 1 files are there already that utils.py did not" in message
        assert own.read_bytes() == before and not (data / "boundary").exists()
    utils.main(["--dataset", "tiny", "--force"])
    assert own.read_bytes() != before


# --- images that were trained on -------------------------------------------------------------------


def test_copies_in_another_data_set_and_among_held_out_images_are_named(data, tmp_path, capsys):
    other = make_set(tmp_path / "data" / "other", names="stuvwxyz", train=6)
    for k, path in enumerate(sorted((other / "images").glob("*.png"))):
        write(path, picture(50 + k))
    shutil.copy(data / "images/a.png", other / "images/z.png")
    options = [*TINY[2:], "--epochs", "1", "--eval-every", "0", "--max-minutes", "0"]
    train(["--dataset", "tiny", "other", *options])
    said = capsys.readouterr().out
    assert "warning: 1 images that are tested on are copies of training images: " in said
    assert "data/other/images/z.png = data/tiny/images/a.png" in said
    shutil.copy(data / "images/b.png", data / "images/a.png")
    train(["--dataset", "tiny", *options, "--hold-out", "2"])
    assert "warning: 1 images that are tested on are copies" in capsys.readouterr().out
    train(["--dataset", "tiny", *options])
    assert "tested on" not in capsys.readouterr().out


def without_seen(file: str) -> str:
    """A copy of weights that does not say which images they have seen, as older ones do not."""
    model = load_weights(file)
    info = {key: value for key, value in model.info.items() if key != "seen"}
    save_weights(model.state_dict(), info, Path("older.safetensors"))
    return "older.safetensors"


def test_weights_that_saw_the_held_out_images_are_named(capsys):
    run("--epochs", 1)
    file = str(RUN / "last.pt")
    older = without_seen(file)
    run("--epochs", 1, "--hold-out", 2, "--init", file, folder="held")
    said = f"warning: --init {file} has learned from 3 of the 3 images that are tested on here"
    assert said in capsys.readouterr().out
    run("--epochs", 1, "--hold-out", 2, "--init", older, folder="older")
    said = f"warning: --init {older} was trained on images of tiny that are held out"
    assert said in capsys.readouterr().out
    held = "runs/tiny/held/last.pt"  # whose first weights have seen all
    run("--epochs", 1, "--hold-out", 2, "--init", held, folder="again")
    assert "has learned from 3 of the 3" in capsys.readouterr().out
    run("--epochs", 1, "--hold-out", 2, folder="alone")
    run("--epochs", 1, "--hold-out", 2, "--init", "runs/tiny/alone/last.pt", folder="after")
    run("--epochs", 1, "--init", file, folder="whole")
    assert "warning" not in capsys.readouterr().out


def test_images_that_the_weights_have_seen_are_named_whatever_was_typed(data, capsys):
    for name, (first, second) in {"A": ("abcd", "efgh"), "B": ("efgh", "abcd")}.items():
        write(data / name / "train.txt", "\n".join(first))
        write(data / name / "test.txt", "\n".join(second))
    run("--epochs", 1, "--split", "A", folder="a")
    first = "runs/tiny/a/last.pt"
    capsys.readouterr()
    run("--epochs", 1, "--split", "B", "--init", first, folder="b")
    said = f"warning: --init {first} has learned from 4 of the 4 images that are tested on here, a, "
    assert said in capsys.readouterr().out
    for split in "AB":  # all images are in one of the two trainings
        infer(["--dataset", "tiny", "--weights", "runs/tiny/b", "--split", split])
        assert "with the names of 4 of these 4: " in capsys.readouterr().out
    run("--epochs", 1, "--split", "A", "--init", first, folder="again")
    assert "has learned from" not in capsys.readouterr().out
    infer(["--dataset", "tiny", "--weights", "runs/tiny/again", "--split", "A"])
    assert "have learned from" not in capsys.readouterr().out
    infer(["--dataset", "tiny", "--weights", first])  # other lists, whose test images it has not seen
    assert "trained with" not in capsys.readouterr().out


def test_images_seen_and_another_polarity_are_both_said(capsys):
    run("--epochs", 1, "--max-minutes", 0, "--hold-out", 2, "--polarity", "dark")
    capsys.readouterr()
    train_list = ["--split", "data/tiny/50_50/test.txt", "data/tiny/50_50/train.txt"]
    infer(["--dataset", "tiny", "--weights", str(RUN), *train_list])
    said = capsys.readouterr().out
    assert "warning: the weights have learned from images of tiny" in said
    assert "--polarity dark; type it here too" in said


def test_what_nobody_knows_is_not_claimed(data, capsys):
    """Weights that begin with others that do not say what they have seen do not say it either."""
    write(data / "other/train.txt", "\n".join("gh"))
    write(data / "other/test.txt", "\n".join("ab"))
    run("--epochs", 1, folder="a")
    older = without_seen("runs/tiny/a/last.pt")
    run("--epochs", 1, "--split", "other", "--init", older, folder="b")
    assert "seen" not in load_weights("runs/tiny/b/last.pt").info
    capsys.readouterr()
    infer(["--dataset", "tiny", "--weights", "runs/tiny/b"])
    assert "note: the weights were trained with --split other" in capsys.readouterr().out


def test_what_weights_have_seen_survives_a_resume_and_an_export(capsys):
    run("--epochs", 1, folder="a")
    run("--epochs", 2, "--init", "runs/tiny/a/last.pt", "--max-minutes", 0, folder="b")
    train(["--dataset", "tiny", "--resume", "runs/tiny/b"])
    export(["--weights", "runs/tiny/b/last.pt", "--output", "b.safetensors"])
    assert load_weights("b.safetensors").info["seen"] == {"tiny": list("abcdef")}
    assert "seen" not in load_weights("b.safetensors").info["init"]


# --- runs ------------------------------------------------------------------------------------------
