"""Processes killed at any moment, full and read-only disks: nothing is half-written, all goes on.

A few moments that differ here; SOAK=1 (make soak) for many at random.
"""

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from conftest import SOAK, fails, make_set
from runs import REPOSITORY, RUN, TINY, equal, logged, output, run, start

import test as test_script
import train
import utils
from ismallnet.checkpoints import read_checkpoint, save_weights
from net import iSmallNet


def kill(script: Callable, argv: list, wait: Callable[[multiprocessing.Process], None]) -> bool:
    """Kills a script in a process of its own after a wait; whether it had not ended before."""
    process = start(script, argv)
    wait(process)
    killed = process.is_alive()
    process.kill()
    process.join()
    assert killed or process.exitcode == 0, output()[-2000:]
    return killed


def once(there: Callable[[], object]) -> Callable[[multiprocessing.Process], None]:
    """Waits until something is there."""

    def wait(process: multiprocessing.Process) -> None:
        while process.is_alive() and not there():
            time.sleep(0.001)

    return wait


def at_random(rng: random.Random, longest: float) -> Callable[[multiprocessing.Process], None]:
    return lambda process: process.join(rng.uniform(0, longest))


def whole(folder: Path) -> None:
    """Checks that every file is whole."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".tmp")]
    for path in files:
        if path.suffix == ".png":
            assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None, path
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".pt":
            assert read_checkpoint(path)["state_dict"]


def test_a_training_killed_at_any_moment_ends_as_if_it_never_was(tell):
    """Here before its first checkpoint, after one, and while it writes one."""
    make_set(Path("data/tiny"), names="abcdefgh", train=6)
    options = ["--epochs", 6, "--eval-every", 2, "--save-every", 0]
    began, folder = time.monotonic(), Path("runs/tiny/broken")
    run(*options, folder="whole")
    rng, longest, kills = random.Random(0), time.monotonic() - began, 0
    moments = [(folder / "log.txt").exists, (folder / "last.pt").exists]
    moments.append(lambda: [*folder.glob(".*.tmp")])
    for _ in range(50 if SOAK else 1):
        shutil.rmtree(folder, ignore_errors=True)
        waits = [at_random(rng, longest) for _ in "12"] if SOAK else map(once, moments)
        for wait in waits:
            begun = (folder / "last.pt").exists()
            argv = ["--resume", folder] if begun else [*TINY, *options, "--run-name", folder.name]
            kills += kill(train.main, ["--dataset", "tiny", *argv], wait)
            whole(Path("runs"))
        assert train.main(["--dataset", "tiny", "--resume", str(folder)]) == 0
        straight, broken = (read_checkpoint(f"runs/tiny/{n}/last.pt") for n in ("whole", "broken"))
        assert equal(straight["state_dict"], broken["state_dict"])
        assert equal(straight["training"]["model"], broken["training"]["model"])
        assert straight["training"]["history"] == broken["training"]["history"]
        logs = [logged(path) for path in ("runs/tiny/whole", folder)]
        assert logs[0] == logs[1] and len(logs[0]) == 18
        assert not [p for p in folder.iterdir() if p.name.endswith(".tmp")]
    tell(f"train.py killed {kills} times", "all runs ended the same")


def test_label_decoupling_and_inference_killed_at_any_moment(tell):
    """Every file is whole or absent, and the same after the next call; here after some files."""
    make_set(Path("data/many"), names=[f"n{k}" for k in range(60)], train=30)
    save_weights(iSmallNet(2, "plain").state_dict(), {}, Path("w.safetensors"))
    for script, *options in (
        (utils, "--workers", "2", "--maps-root"),
        (test_script, "--weights", "w.safetensors", "--device", "cpu", "--results"),
    ):
        name, argv, began = script.__name__, ["--dataset", "many", *options], time.monotonic()
        assert not script.main([*argv, f"{name}-whole"])
        expected = contents(Path(f"{name}-whole"))
        rng, longest, kills = random.Random(1), time.monotonic() - began, 0
        for k in range(20 if SOAK else 1):
            folder = Path(f"{name}{k}")
            some = once(lambda folder=folder: len(contents(folder)) > 5)
            kills += kill(script.main, [*argv, folder], at_random(rng, longest) if SOAK else some)
            whole(folder)
            assert not script.main([*argv, str(folder)])
            assert contents(folder) == expected and len(expected) >= 30
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
def test_a_process_that_dies_stops_the_others_and_is_started_again_if_asked(tell):
    """One of two is killed twice, and torchrun may start them again once."""
    make_set(Path("data/tiny"), names="abcdefgh", train=6)
    argv = [*TINY, "--epochs", 5000, "--save-every", 0, "--run-name", "x", "--eval-every", 0]
    job = launch("--max-restarts", 1, REPOSITORY / "train.py", *argv, processes=2)
    log, deadline = RUN / "log.txt", time.monotonic() + 240
    for runs in (RUN / "last.pt").exists, lambda: "resumed at step" in log.read_text():
        while not runs() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(ranks_of(job)[1], 9)
    out, _ = job.communicate(timeout=200)
    assert job.returncode != 0 and "error: another process has ended" in out, out
    assert "resumed at step" in out and read_checkpoint(RUN / "last.pt")["info"]["step"] > 0
    tell("one of two processes killed twice, --max-restarts 1", "resumed, then the other stopped too")
