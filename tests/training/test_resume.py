"""Interrupted and resumed trainings."""

import datetime
import json
import os
import signal
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch
from conftest import fails, make_set, write
from runs import RUN, TINY, equal, logged, run, start, weights

from ismallnet.checkpoints import read_checkpoint
from ismallnet.training.augmentation import TrainingSet
from train import main


@pytest.fixture(autouse=True)
def data(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny", names="abcdefgh", train=6)


RECIPES = {
    "muon": [],
    "adamw": ["--optimizer", "adamw"],
    "sgd": ["--recipe", "authors", "--batch-size", 2],
}


def same_state(a: dict, b: dict) -> bool:
    """Whether two state dicts of an optimiser are equal, bit for bit."""
    if a["param_groups"] != b["param_groups"] or a["state"].keys() != b["state"].keys():
        return False
    return all(equal(a["state"][key], b["state"][key]) for key in a["state"])


@pytest.mark.parametrize("optimizer", RECIPES)
def test_resume_continues_to_the_same_weights_bit_for_bit(monkeypatch, optimizer):
    """Stopped by the clock after every step, and resumed until it is done."""
    recipe = RECIPES[optimizer]
    # The authors' whole images of 224 to 352 px are slow: small ones do here.
    monkeypatch.setattr("ismallnet.training.augmentation.AUTHORS_SIDES", (32, 48))
    run("--epochs", 2, "--eval-every", 1, *recipe, folder="whole")
    run("--epochs", 2, "--eval-every", 1, "--max-minutes", 0, *recipe)
    stops = 0
    while read_checkpoint(RUN / "last.pt")["info"]["step"] < 6:
        assert main(["--dataset", "tiny", "--resume", str(RUN), "--max-minutes", "0"]) == 0
        stops += 1
    assert stops == 5
    whole, parts = read_checkpoint("runs/tiny/whole/last.pt"), read_checkpoint(RUN / "last.pt")
    assert equal(whole["state_dict"], parts["state_dict"])
    assert equal(whole["training"]["model"], parts["training"]["model"])
    assert same_state(whole["training"]["optimizer"], parts["training"]["optimizer"])
    assert whole["info"]["args"]["optimizer"] == optimizer
    assert whole["training"]["history"] == parts["training"]["history"]
    logs = [logged(folder) for folder in ("runs/tiny/whole", RUN)]
    assert logs[0] == logs[1] and len(logs[0]) == 6


def test_resume_across_the_switch_to_the_last_crops(monkeypatch):
    """Six steps, of which the last third (2) is on larger crops; stopped after each."""
    sides = []
    real = TrainingSet.__getitem__

    def watched(self, position):
        item = real(self, position)
        if self.batch_size == 2 and position % 2 == 0:  # the first of a step's, not the monitor's
            sides.append((position // 2, item.image.shape[-1]))
        return item

    monkeypatch.setattr(TrainingSet, "__getitem__", watched)
    options = ["--epochs", 2, "--last-crop", 48, "--last-share", 1 / 3]
    run(*options, folder="whole")
    assert sides == [(0, 32), (1, 32), (2, 32), (3, 32), (4, 48), (5, 48)]
    run(*options, "--max-minutes", 0)
    while read_checkpoint(RUN / "last.pt")["info"]["step"] < 6:
        assert main(["--dataset", "tiny", "--resume", str(RUN), "--max-minutes", "0"]) == 0
    assert sides[6:] == sides[:6]
    whole, parts = read_checkpoint("runs/tiny/whole/last.pt"), read_checkpoint(RUN / "last.pt")
    assert equal(whole["state_dict"], parts["state_dict"])
    assert equal(whole["training"]["model"], parts["training"]["model"])
    assert same_state(whole["training"]["optimizer"], parts["training"]["optimizer"])


def test_by_default_the_last_crops_are_as_all_others():
    run("--epochs", 1, folder="default")
    run("--epochs", 1, "--last-crop", 32, folder="same")
    run("--epochs", 1, "--last-crop", 48, "--last-share", 0, folder="none")
    run("--epochs", 1, "--last-crop", 48, folder="larger")
    info = read_checkpoint("runs/tiny/default/last.pt")["info"]
    assert info["args"]["last_crop"] is None and info["args"]["last_share"] == 0.2
    default, same, none, larger = (
        weights(f"runs/tiny/{name}") for name in ("default", "same", "none", "larger")
    )
    assert equal(default, same) and equal(default, none) and not equal(default, larger)


def under_way(*argv):
    """A training in a process group of its own, some steps from its start."""
    process = start("--epochs", 5000, "--run-name", "x", *argv, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (RUN / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return process


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_leave(number, group):
    """A terminal, `timeout` and job schedulers send them to the whole group: the loader's processes,
    too, which must not end before the training has saved."""
    process = under_way("--workers", 2, "--save-every", 0)
    workers = children(process.pid)
    assert len(workers) == 2 or not Path("/proc").exists()
    (os.killpg if group else os.kill)(process.pid, number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, out
    assert "--resume runs/tiny/x" in out and "Traceback" not in out
    assert read_checkpoint(RUN / "last.pt")["info"]["step"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_loader_processes_end_with_a_training_that_is_killed():
    process = under_way("--workers", 2, "--save-every", 0)
    workers = children(process.pid)
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers) == 2 and not any(map(alive, workers))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # not Linux
        return []


# --- one folder, one run ---------------------------------------------------------------------------


def test_two_runs_of_one_second_have_a_folder_each(monkeypatch):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr("ismallnet.training.run.datetime.datetime", Clock)
    for seed in range(3):
        assert main([*TINY, "--epochs", "1", "--seed", str(seed)]) == 0
    runs = sorted(path.parent.name for path in Path("runs/tiny").glob("*/last.pt"))
    assert runs == ["20260102-030405", "20260102-030405_2", "20260102-030405_3"]
    assert [read_checkpoint(f"runs/tiny/{r}/last.pt")["info"]["seed"] for r in runs] == [0, 1, 2]


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_two_trainings_never_share_a_folder(capsys):
    """A lock that ends with the process that holds it, even where its loader's processes live on."""
    process = under_way("--workers", 2, "--save-every", 0)
    try:
        message = "another training is running in runs/tiny/x"
        assert message in fails(main, "--dataset", "tiny", "--resume", capsys=capsys)
        assert message in fails(main, *TINY, "--run-name", "x", capsys=capsys)
    finally:
        process.kill()
        process.wait()
    assert main(["--dataset", "tiny", "--resume", "--max-minutes", "0"]) == 0
    process.communicate()


def test_a_run_that_cannot_start_leaves_no_folder(capsys, data):
    write(data / "images/a.png", "text")
    fails(main, *TINY, capsys=capsys)
    assert not Path("runs/tiny").exists()


def test_a_folder_that_an_early_kill_left_is_used():
    write(RUN / "log.txt", "")
    assert run("--epochs", 1) == 0


def test_resume_takes_the_newest_run_and_its_arguments(capsys):
    run("--epochs", 1, "--max-minutes", 0, folder="old")
    run("--epochs", 1, "--max-minutes", 0, "--seed", 3, folder="new")
    main(["--dataset", "tiny", "--resume"])
    assert read_checkpoint("runs/tiny/new/last.pt")["info"]["step"] == 3
    assert read_checkpoint("runs/tiny/old/last.pt")["info"]["step"] == 1
    capsys.readouterr()
    main(["--dataset", "tiny", "--resume"])
    assert "finished already, 3 steps" in capsys.readouterr().out


def test_a_run_killed_before_its_metrics_gets_them_when_it_is_resumed():
    run("--epochs", 1)
    metrics = (RUN / "metrics.json").read_bytes()
    (RUN / "metrics.json").unlink()
    assert main(["--dataset", "tiny", "--resume"]) == 0
    assert (RUN / "metrics.json").read_bytes() == metrics


def test_resume_refuses_what_would_change_the_result(capsys, data):
    run("--epochs", 1, "--max-minutes", 0)
    for flag, value in (("width", 8), ("lr", 0.5), ("recipe", "authors"), ("batch-size", 3)):
        argv = ["--dataset", "tiny", "--resume", str(RUN), f"--{flag}", str(value)]
        message = fails(main, *argv, capsys=capsys)
        assert f"--{flag}" in message and str(value) in message
    write(data / "50_50/train.txt", "a\nb\n")
    assert "training list differs" in fails(main, "--dataset", "tiny", "--resume", capsys=capsys)


def test_a_config_beside_resume_must_be_that_of_the_run(capsys):
    run("--epochs", 1, "--max-minutes", 0)
    config = json.loads((RUN / "config.json").read_text())
    Path("other.json").write_text(json.dumps(config | {"args": config["args"] | {"clip": 0.5}}))
    resume = ["--dataset", "tiny", "--max-minutes", "0", "--resume"]
    message = fails(main, *resume, "--config", "other.json", capsys=capsys)
    assert "this run has --clip 1.0, found --clip 0.5" in message
    assert main([*resume, "--config", str(RUN / "config.json")]) == 0


def test_resume_and_run_name_mean_one_run(capsys):
    run("--epochs", 1, "--max-minutes", 0)
    resume = ["--dataset", "tiny", "--max-minutes", "0", "--resume", str(RUN)]
    message = fails(main, *resume, "--run-name", "other", capsys=capsys)
    assert f"--run-name other: --resume names {RUN}; leave one out" in message
    assert main([*resume, "--run-name", "x"]) == 0


def test_a_run_resumes_as_it_began_where_an_argument_is_newer(capsys):
    """Runs had no --loss, no --last-crop and no --clutter-share once."""
    old = ["--epochs", 2, "--loss", "authors", "--optimizer", "adamw", "--clutter-share", 0]
    run(*old, folder="whole")
    run(*old, "--max-minutes", 0)
    checkpoint = read_checkpoint(RUN / "last.pt")
    for key in ("loss", "last_crop", "last_share", "clutter_share"):
        del checkpoint["info"]["args"][key]
    torch.save(checkpoint, RUN / "last.pt")
    resume = ["--dataset", "tiny", "--resume", str(RUN)]
    assert "has --loss authors" in fails(main, *resume, "--loss", "jaccard", capsys=capsys)
    assert main(resume) == 0
    whole, resumed = read_checkpoint("runs/tiny/whole/last.pt"), read_checkpoint(RUN / "last.pt")
    args = resumed["info"]["args"]
    assert (args["loss"], args["clutter_share"], resumed["info"]["step"]) == ("authors", 0, 6)
    assert equal(whole["state_dict"], resumed["state_dict"])


@pytest.mark.parametrize("path", ["images/a.png", "masks/b.png", "images/h.png"])
def test_resume_refuses_other_pixels_under_the_same_names(capsys, data, path):
    """Of an image or a mask of the training list, or of an image that is tested on."""
    run("--epochs", 1, "--max-minutes", 0)
    before = (RUN / "last.pt").read_bytes()
    pixels = cv2.imread(str(data / path), cv2.IMREAD_UNCHANGED)
    write(data / path, 255 - pixels)
    assert "is not the one" in fails(main, "--dataset", "tiny", "--resume", capsys=capsys)
    assert (RUN / "last.pt").read_bytes() == before
    write(data / path, pixels)
    assert main(["--dataset", "tiny", "--resume"]) == 0


def test_runs_from_before_the_digest_of_contents_resume():
    run("--epochs", 1, "--max-minutes", 0)
    checkpoint = read_checkpoint(RUN / "last.pt")
    del checkpoint["training"]["contents"]
    torch.save(checkpoint, RUN / "last.pt")
    assert main(["--dataset", "tiny", "--resume"]) == 0


def test_resume_without_a_run(capsys):
    assert "no run to resume" in fails(main, "--dataset", "tiny", "--resume", capsys=capsys)
    run("--epochs", 1, "--max-minutes", 0)
    argv = ["--dataset", "tiny", "--resume", "runs/tiny/y"]
    assert "runs in runs/tiny: x" in fails(main, *argv, capsys=capsys)
    torch.save({"state_dict": {}}, "weights.pt")
    argv = ["--dataset", "tiny", "--resume", "weights.pt"]
    assert "expected a last.pt" in fails(main, *argv, capsys=capsys)


@pytest.mark.parametrize("part", ["info", "training", "training.model", "training.list"])
def test_resume_of_a_damaged_run(capsys, part):
    run("--epochs", 1, "--max-minutes", 0)
    checkpoint = read_checkpoint(RUN / "last.pt")
    if "." in part:
        checkpoint["training"][part.split(".")[1]] = {}
    else:
        checkpoint[part] = {}
    torch.save(checkpoint, RUN / "last.pt")
    assert "last.pt" in fails(main, "--dataset", "tiny", "--resume", capsys=capsys) or "list" in part


def test_flags_are_not_abbreviated(capsys):
    fails(main, *TINY, "--rec", "authors", capsys=capsys)


def test_a_run_is_not_overwritten(capsys):
    run("--epochs", 1, "--max-minutes", 0)
    assert "--resume" in fails(main, *TINY, "--run-name", "x", capsys=capsys)


def test_a_failing_write_keeps_the_last_checkpoint(monkeypatch, capsys):
    run("--epochs", 1, "--max-minutes", 0)
    before = (RUN / "last.pt").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")  # of a write: without a name

    monkeypatch.setattr(os, "fsync", full)
    message = fails(main, "--dataset", "tiny", "--resume", capsys=capsys)
    assert f"{RUN}: No space left on device. Make room there; if a checkpoint was saved" in message
    assert (RUN / "last.pt").read_bytes() == before and not list(RUN.glob("*.tmp"))


def test_an_empty_resume_starts_nothing(capsys, tmp_path):
    error = fails(main, "--dataset", "tiny", "--resume=", capsys=capsys)
    assert "--resume: found ''" in error and not list(tmp_path.rglob("last.pt"))
