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
from runs import RUN, TINY, equal, logged, output, run, start

from ismallnet.checkpoints import read_checkpoint
from ismallnet.training.augmentation import TrainingSet
from train import main

RESUME = ["--dataset", "tiny", "--resume"]


@pytest.fixture(autouse=True)
def data(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny", names="abcdefgh", train=6)


def stepped(folder: Path = RUN) -> int:
    return read_checkpoint(folder / "last.pt")["info"]["step"]


def same_end(folder: str, other: Path) -> bool:
    """Whether two runs ended in the same weights and state, bit for bit."""
    a, b = read_checkpoint(f"runs/tiny/{folder}/last.pt"), read_checkpoint(other / "last.pt")
    one, two = (checkpoint["training"]["optimizer"] for checkpoint in (a, b))
    return (
        equal(a["state_dict"], b["state_dict"])
        and equal(a["training"]["model"], b["training"]["model"])
        and one["param_groups"] == two["param_groups"]
        and all(equal(one["state"][key], two["state"][key]) for key in one["state"])
        and a["training"]["history"] == b["training"]["history"]
    )


RECIPES = {
    "muon": ["--last-crop", 48, "--last-share", 1 / 3],
    "adamw": ["--optimizer", "adamw"],
    "sgd": ["--recipe", "authors", "--batch-size", 2],
}


@pytest.mark.parametrize("optimizer", RECIPES)
def test_resume_continues_to_the_same_weights_bit_for_bit(monkeypatch, optimizer):
    """Stopped by the clock after every step, and resumed until it is done."""
    recipe = RECIPES[optimizer]
    # The authors' whole images of 224 to 352 px are slow: small ones do here.
    monkeypatch.setattr("ismallnet.training.augmentation.AUTHORS_SIDES", (32, 48))
    run("--epochs", 2, "--eval-every", 1, *recipe, folder="whole")
    run("--epochs", 2, "--eval-every", 1, "--max-minutes", 0, *recipe)
    for step in range(1, 6):
        assert stepped() == step
        assert main([*RESUME, str(RUN), "--max-minutes", "0"]) == 0
    assert same_end("whole", RUN)
    logs = [logged(folder) for folder in ("runs/tiny/whole", RUN)]
    assert logs[0] == logs[1] and len(logs[0]) == 6


def test_the_last_crops_are_larger(monkeypatch):
    """Six steps, of which the last third (2) is on larger crops."""
    sides = []
    real = TrainingSet.__getitem__

    def watched(self, position):
        item = real(self, position)
        sides.extend([item.image.shape[-1]] * (self.batch_size == 2))  # not one that is looked at
        return item

    monkeypatch.setattr(TrainingSet, "__getitem__", watched)
    run("--epochs", 2, "--last-crop", 48, "--last-share", 1 / 3)
    assert sides == [32] * 8 + [48] * 4


def test_a_run_with_flags_that_went_is_resumed_where_they_did_nothing(capsys):
    run("--epochs", 2, "--max-minutes", 0)
    checkpoint = read_checkpoint(RUN / "last.pt")
    args = checkpoint["info"]["args"]
    before = args | {"distill": None, "compile": False, "empty_by": "mask"}
    for changes, named in (
        ({"distill": "teacher.pt"}, "--distill"),
        ({"compile": True}, "--compile"),
        ({"empty_by": "map"}, "earlier version"),
        ({}, None),
    ):
        checkpoint["info"]["args"] = before | changes
        torch.save(checkpoint, RUN / "last.pt")
        assert not named or named in fails(main, *RESUME, str(RUN), capsys=capsys)
    assert main([*RESUME, str(RUN)]) == 0


# --- signals ---------------------------------------------------------------------------------------


def under_way(*argv):
    """A training in a process group of its own, some steps from its start."""
    process = start(main, [*TINY, "--epochs", 5000, "--run-name", "x", *argv])
    deadline = time.monotonic() + 120
    while not (RUN / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return process


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


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "group"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_signals_save_and_leave(number, group):
    """A terminal, `timeout` and job schedulers send them to the whole group: the loader's processes,
    too, which must not end before the training has saved."""
    process = under_way("--workers", 2, "--save-every", 0)
    workers = children(process.pid)
    assert len(workers) == 2 or not Path("/proc").exists()
    (os.killpg if group else os.kill)(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number, output()
    assert "--resume runs/tiny/x" in output() and "Traceback" not in output()
    assert stepped() > 0


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_killed_training_leaves_no_process_and_no_lock(capsys):
    process = under_way("--workers", 2, "--save-every", 0)
    workers = children(process.pid)
    for argv in (RESUME, [*TINY, "--run-name", "x"]):  # the folder is locked while it runs
        assert "runs/tiny/x" in fails(main, *argv, capsys=capsys)
    process.kill()
    process.join()
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers) == 2 and not any(map(alive, workers))
    assert main([*RESUME, "--max-minutes", "0"]) == 0


# --- one folder, one run ---------------------------------------------------------------------------


def test_two_runs_of_one_second_have_a_folder_each(monkeypatch):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr("ismallnet.training.run.datetime.datetime", Clock)
    for seed in range(2):
        assert main([*TINY, "--epochs", "1", "--max-minutes", "0", "--seed", str(seed)]) == 0
    runs = [f"runs/tiny/20260102-030405{end}/last.pt" for end in ("", "_2")]
    assert [read_checkpoint(path)["info"]["seed"] for path in runs] == [0, 1]


def test_a_run_that_cannot_start_leaves_no_folder(capsys, data):
    write(data / "images/a.png", "text")
    for name in ("tiny", "tinny"):  # there is no such data set
        assert f"data/{name}" in fails(main, *TINY, "--dataset", name, capsys=capsys)
        assert not Path(f"runs/{name}").exists()


def test_a_run_is_not_overwritten_and_resume_takes_the_newest_and_its_arguments(capsys):
    write(Path("runs/tiny/old/log.txt"), "")  # as an early kill leaves it: it is used
    run("--epochs", 1, "--max-minutes", 0, folder="old")
    assert "--resume" in fails(main, *TINY, "--run-name", "old", capsys=capsys)
    run("--epochs", 1, "--max-minutes", 0, "--seed", 3, folder="new")
    main(RESUME)
    assert stepped(Path("runs/tiny/new")) == 3 and stepped(Path("runs/tiny/old")) == 1
    metrics = Path("runs/tiny/new/metrics.json")
    before = metrics.read_bytes()
    metrics.unlink()  # as if it was killed before it wrote them
    main(RESUME)
    assert "resumed at step 3 of 3" in capsys.readouterr().out and metrics.read_bytes() == before


# --- what is refused -------------------------------------------------------------------------------


def test_resume_refuses_what_would_change_the_result(capsys, data):
    run("--epochs", 1, "--max-minutes", 0)
    for flag, value in (("width", 8), ("lr", 0.5), ("recipe", "authors"), ("batch-size", 3)):
        message = fails(main, *RESUME, str(RUN), f"--{flag}", str(value), capsys=capsys)
        assert f"--{flag}" in message and str(value) in message
    config = json.loads((RUN / "config.json").read_text())
    write(Path("other.json"), json.dumps(config | {"args": config["args"] | {"clip": 0.5}}))
    assert "--clip" in fails(main, *RESUME, "--config", "other.json", capsys=capsys)
    message = fails(main, *RESUME, str(RUN), "--run-name", "other", capsys=capsys)
    assert "--run-name" in message and str(RUN) in message
    assert main([*RESUME, "--max-minutes", "0", "--config", str(RUN / "config.json")]) == 0
    write(data / "50_50/train.txt", "a\nb\n")
    assert "training list" in fails(main, *RESUME, capsys=capsys)


def test_resume_refuses_other_pixels_under_the_same_names(capsys, data):
    """Of an image or a mask of the training list, or of an image that is tested on."""
    run("--epochs", 1, "--max-minutes", 0)
    before = (RUN / "last.pt").read_bytes()
    for path in ("images/a.png", "masks/b.png", "images/h.png"):
        pixels = cv2.imread(str(data / path), cv2.IMREAD_UNCHANGED)
        write(data / path, 255 - pixels)
        assert str(RUN) in fails(main, *RESUME, capsys=capsys)
        write(data / path, pixels)
    assert (RUN / "last.pt").read_bytes() == before and main(RESUME) == 0


def test_resume_without_a_run(capsys, tmp_path):
    assert "--resume" in fails(main, "--dataset", "tiny", "--resume=", capsys=capsys)
    assert "runs/tiny" in fails(main, *RESUME, capsys=capsys) and not list(tmp_path.rglob("last.pt"))
    run("--epochs", 1, "--max-minutes", 0)
    assert "runs in runs/tiny: x" in fails(main, *RESUME, "runs/tiny/y", capsys=capsys)
    torch.save({"state_dict": {}}, "weights.pt")
    assert "weights.pt" in fails(main, *RESUME, "weights.pt", capsys=capsys)


def test_resume_of_a_damaged_run(capsys):
    run("--epochs", 1, "--max-minutes", 0)
    for piece in ("info", "training", "training.model", "training.list"):
        checkpoint = read_checkpoint(RUN / "last.pt")
        whole = (RUN / "last.pt").read_bytes()
        where = checkpoint["training"] if "." in piece else checkpoint
        where[piece.rpartition(".")[2]] = {}
        torch.save(checkpoint, RUN / "last.pt")
        assert str(RUN) in fails(main, *RESUME, capsys=capsys)
        (RUN / "last.pt").write_bytes(whole)


def test_a_failing_write_keeps_the_last_checkpoint(monkeypatch, capsys):
    run("--epochs", 1, "--max-minutes", 0)
    before = (RUN / "last.pt").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")  # of a write: without a name

    monkeypatch.setattr(os, "fsync", full)
    message = fails(main, *RESUME, capsys=capsys)
    assert str(RUN) in message and "No space left on device" in message
    assert (RUN / "last.pt").read_bytes() == before and not list(RUN.glob("*.tmp"))
