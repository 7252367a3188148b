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
from dataset import Frames
from eval import main as evaluate
from export import main as export
from ismallnet.checkpoints import save_weights
from ismallnet.datasets.find import find_dataset
from net import iSmallNet, load_weights
from test import main as infer
from test import training_notes
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

    def left_out(*argv: str) -> bool:
        """Whether the report leaves out what this evaluation gave."""
        evaluate(["--dataset", "tiny", *argv])
        capsys.readouterr()
        visualise(["--dataset", "tiny"])
        return "metrics.json: of another" in capsys.readouterr().out

    assert not left_out() and left_out("--split", "other")
    assert not left_out()
    write(data / "masks/g.png", np.roll(target_mask(), 9, axis=1))
    utils.main(["--dataset", "tiny"])
    visualise(["--dataset", "tiny"])
    assert "metrics.json: of another" in capsys.readouterr().out


def test_results_are_not_written_among_the_images(data, capsys):
    argv = ("--dataset", "tiny", "--weights", weights(0), "--results", "data")
    assert "data/tiny" in fails(infer, *argv, capsys=capsys)


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
    assert "warning: 1 test images are copies of training images: " in said
    assert "data/other/images/z.png = data/tiny/images/a.png" in said
    shutil.copy(data / "images/b.png", data / "images/a.png")
    train(["--dataset", "tiny", *options, "--hold-out", "2"])
    assert "warning: 1 test images are copies" in capsys.readouterr().out
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

    def named(folder: str, *argv) -> bool:
        """Whether a training says that its first weights have seen what it is tested on."""
        run("--epochs", 1, "--max-minutes", 0, *argv, folder=folder)
        return "warning: --init" in capsys.readouterr().out

    assert named("held", "--hold-out", 2, "--init", file)
    assert named("older", "--hold-out", 2, "--init", older)
    assert named("again", "--hold-out", 2, "--init", "runs/tiny/held/last.pt")  # theirs have seen all
    assert not named("alone", "--hold-out", 2)
    assert not named("after", "--hold-out", 2, "--init", "runs/tiny/alone/last.pt")
    assert not named("whole", "--init", file)


def test_images_that_the_weights_have_seen_are_named_whatever_was_typed(data, capsys):
    for name, (first, second) in {"A": ("abcd", "efgh"), "B": ("efgh", "abcd")}.items():
        write(data / name / "train.txt", "\n".join(first))
        write(data / name / "test.txt", "\n".join(second))

    def said_by(main, *argv: str) -> str:
        capsys.readouterr()
        main([*argv])
        return capsys.readouterr().out

    short = [*TINY, "--epochs", "1", "--run-name"]
    train([*short, "a", "--split", "A"])
    first = "runs/tiny/a/last.pt"
    said = said_by(train, *short, "b", "--split", "B", "--init", first)
    assert f"warning: --init {first} has learned from images that are tested on here: a, " in said
    testing = ["--dataset", "tiny", "--weights"]
    for split in "AB":  # all images are in one of the two trainings
        said = said_by(infer, *testing, "runs/tiny/b", "--split", split)
        assert "with the names of 4 of these 4: " in said
    said = said_by(train, *short, "again", "--split", "A", "--init", first)
    assert "has learned from" not in said
    assert "have learned from" not in said_by(infer, *testing, "runs/tiny/again", "--split", "A")
    assert "trained with" not in said_by(infer, *testing, first)  # other lists: nothing seen


def test_images_seen_and_another_polarity_are_both_said(data):
    frames = Frames(find_dataset("tiny"), "test")
    info = {"args": {"polarity": "dark", "split": None}, "dataset": ["tiny"], "seen": {"tiny": ["g"]}}
    said = [*training_notes(info, "tiny", frames, None)]
    assert len(said) == 2 and said[0].startswith("warning") and "--polarity dark" in said[1]


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
