"""Processes killed at any moment, full and read-only disks: nothing is half-written, all goes on.

SOAK=1 (make soak) for the full counts of kills.
"""

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import cv2
import pytest
import torch
from conftest import SOAK, fails, make_set
from runs import FORKS, REPOSITORY, RUN, TINY, equal, logged, run

import test as test_script
import train
import utils
from ismallnet.checkpoints import read_checkpoint, save_weights
from net import iSmallNet

FASTER = 0.9  # of the time before a kill, where a script ended first: the machine may be less busy now
MAINS = {"train": train.main, "utils": utils.main, "test": test_script.main}


def child(name: str, argv: list[str], output: str) -> None:
    torch.set_num_threads(1)
    with open(output, "a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            sys.exit(MAINS[name](argv))
        except SystemExit as stop:
            os._exit(stop.code or 0)


def begin(name: str, argv: list[str]) -> multiprocessing.Process:
    """A script in a process of its own."""
    process = FORKS.Process(target=child, args=(name, [str(a) for a in argv], "output.txt"))
    process.start()
    return process


def finish(name: str, argv: list[str]) -> float:
    """Runs a script to its end; returns how long it took."""
    start = time.monotonic()
    process = begin(name, argv)
    process.join(300)
    assert process.exitcode == 0, Path("output.txt").read_text()[-2000:]
    return time.monotonic() - start


def kill_at_random(name: str, argv: list[str], rng: random.Random, longest: float) -> bool:
    """Whether it was killed, and had not ended by itself before."""
    process = begin(name, argv)
    process.join(rng.uniform(0, longest))
    killed = process.is_alive()
    process.kill()
    process.join()
    assert killed or process.exitcode == 0, Path("output.txt").read_text()[-2000:]
    return killed


def whole(folder: Path) -> int:
    """Checks that every file is whole; returns how many there are."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".tmp")]
    for path in files:
        if path.suffix == ".png":
            assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None, path
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".pt":
            assert read_checkpoint(path)["state_dict"]
    return len(files)


def test_a_training_killed_at_any_moment_ends_as_if_it_never_was(tell):
    make_set(Path("data/tiny"), names="abcdefgh", train=6)
    options = [*TINY, "--epochs", 6, "--eval-every", 2, "--save-every", 0]
    longest = 1.1 * finish("train", [*options, "--run-name", "whole"])
    rng, kills, rounds, beyond = random.Random(0), 0, 0, 0
    while kills < (50 if SOAK else 2):
        rounds += 1
        folder = Path(f"runs/tiny/r{rounds}")
        argv = [*options, "--run-name", folder.name]
        while True:  # one run, killed again and again until it comes through
            if (folder / "last.pt").exists():
                argv = ["--dataset", "tiny", "--resume", folder]
                if read_checkpoint(folder / "last.pt")["info"]["step"] == 18:
                    break
            if not kill_at_random("train", argv, rng, longest):
                longest *= FASTER
                break
            kills += 1
            beyond += (folder / "last.pt").exists()
            whole(Path("runs"))
        finish("train", ["--dataset", "tiny", "--resume", folder])
        straight, broken = (read_checkpoint(f"runs/tiny/{n}/last.pt") for n in ("whole", folder.name))
        assert equal(straight["state_dict"], broken["state_dict"])
        assert equal(straight["training"]["model"], broken["training"]["model"])
        assert straight["training"]["history"] == broken["training"]["history"]
        logs = [logged(path) for path in ("runs/tiny/whole", folder)]
        assert logs[0] == logs[1] and len(logs[0]) == 18
        assert not [p for p in folder.iterdir() if p.name.endswith(".tmp")]
    tell(f"train.py killed {kills} times ({beyond} with a checkpoint)", f"{rounds} runs ended the same")


def test_label_decoupling_and_inference_killed_at_any_moment(tell):
    """Every file is whole or absent, and the same after the next call."""
    make_set(Path("data/many"), names=[f"n{k}" for k in range(60)], train=30)
    save_weights(iSmallNet(2, "plain").state_dict(), {}, Path("w.safetensors"))
    for name, *options in (
        ("utils", "--workers", 2, "--maps-root"),
        ("test", "--weights", "w.safetensors", "--device", "cpu", "--results"),
    ):
        argv = ["--dataset", "many", *options]
        longest = 1.1 * finish(name, [*argv, f"{name}-whole"])
        expected = contents(Path(f"{name}-whole"))
        rng, kills, k = random.Random(1), 0, 0
        while kills < (20 if SOAK else 2):
            k += 1
            killed = kill_at_random(name, [*argv, f"{name}{k}"], rng, longest)
            kills, longest = kills + killed, longest * (1 if killed else FASTER)
            whole(Path(f"{name}{k}"))
            finish(name, [*argv, f"{name}{k}"])
            assert contents(Path(f"{name}{k}")) == expected and len(expected) >= 30
        tell(f"{name}.py killed {kills} times", "every file whole or absent, the same after")


def contents(folder: Path) -> dict[str, bytes]:
    """The pictures in a folder, by their paths in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


# --- disks -----------------------------------------------------------------------------------------


@pytest.fixture
def disk():
    """A file system of 26 MiB of memory, where tests may mount one."""
    Path("disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=26m", "tmpfs", "disk"]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here (not root)")
    yield Path("disk")
    subprocess.run(["umount", "-l", "disk"], check=False)


def test_a_full_and_a_read_only_disk(disk, capsys, tell):
    make_set(Path("data/tiny"), names="abcdefgh", train=6)
    run("--epochs", 1, "--max-minutes", 0, "--runs", "disk/runs")
    kept = disk / RUN / "last.pt"
    before = kept.read_bytes()
    filling = disk / "filling"
    room = shutil.disk_usage(disk).free
    filling.write_bytes(b"\0" * max(room - 64 * 1024, 0))
    resume = ["--dataset", "tiny", "--runs", "disk/runs", "--resume"]
    assert "No space left on device" in fails(train.main, *resume, capsys=capsys)
    assert kept.read_bytes() == before and not list(kept.parent.glob(".*.tmp"))
    filling.unlink()
    subprocess.run(["mount", "-o", "remount,ro", "disk"], check=True)
    assert "Read-only file system" in fails(train.main, *resume, capsys=capsys)
    maps = ["--dataset", "tiny", "--force", "--maps-root", "disk/maps"]
    assert "--maps-root" in fails(utils.main, *maps, capsys=capsys)
    subprocess.run(["mount", "-o", "remount,rw", "disk"], check=True)
    assert train.main(resume) == 0 and read_checkpoint(kept)["info"]["step"] == 3
    tell("disk full, disk read-only", "one clear error, exit code 2, checkpoint kept, resumed after")


# --- several processes -------------------------------------------------------------------------------


def launch(*argv, processes: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), *map(str, argv)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)


def ranks_of(launcher: subprocess.Popen) -> list[int]:
    tasks = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    return [int(pid) for pid in tasks.read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("restarts", [0, 1])
def test_a_process_that_dies_stops_the_others_and_is_started_again_if_asked(restarts, tell):
    make_set(Path("data/tiny"), names="abcdefgh", train=6)
    epochs = 12 if restarts else 5000
    argv = [REPOSITORY / "train.py", *TINY, "--epochs", epochs, "--save-every", 0, "--run-name", "x"]
    job = launch("--max-restarts", restarts, *argv, "--eval-every", 0, processes=2)
    deadline = time.monotonic() + 120
    while not (RUN / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(ranks_of(job)[1], 9)
    start = time.monotonic()
    out, _ = job.communicate(timeout=200)
    seconds = time.monotonic() - start
    step = read_checkpoint(RUN / "last.pt")["info"]["step"]
    if restarts:
        assert job.returncode == 0 and step == 3 * epochs and "resumed at step" in out, out
    else:
        assert job.returncode != 0 and seconds < 60 and step > 0, out
        assert "error: another process has ended" in out
    ended = "resumed and ran to its end" if restarts else f"the other stopped after {seconds:.0f} s"
    tell(f"one of two processes killed, --max-restarts {restarts}", ended)
