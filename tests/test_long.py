"""Long runs: memory stays flat. SOAK=1 (make soak) for the full lengths."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SOAK, make_set
from runs import REPOSITORY, TINY

from ismallnet.checkpoints import save_weights
from net import iSmallNet

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")


def resident(pid: int) -> float:
    """MiB of a process."""
    try:
        return (
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        )
    except (OSError, IndexError):
        return 0.0


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def watched(argv: list[str], kept: int = 3) -> tuple[list[list[float]], str]:
    """Runs a script; the memory of it and its children, MiB, every half second while it runs."""
    with open("output.txt", "w") as output:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, *argv], stdout=output, stderr=output, env=environment
        )
        series = []
        while process.poll() is None:
            try:
                pids = [process.pid, *children(process.pid)][:kept]
            except OSError:  # it has just ended
                break
            series.append([resident(pid) for pid in pids])
            time.sleep(0.5)
    text = Path("output.txt").read_text()
    assert process.wait() == 0, text[-2000:]
    return series, text


def growth(values: list[float]) -> float:
    """MiB from the second quarter of a run to its last."""
    quarter = len(values) // 4
    return float(np.median(values[-quarter:]) - np.median(values[quarter : 2 * quarter]))


def test_memory_of_a_training_and_its_workers_is_flat(tell):
    make_set(Path("data/tiny"), names="abcdefgh", train=6)
    steps = 2000 if SOAK else 300
    argv = [str(REPOSITORY / "train.py"), *TINY, "--epochs", str(steps // 3), "--workers", "2"]
    series, _ = watched([*argv, "--eval-every", "0"])
    full = [row for row in series if len(row) == 3]
    assert len(full) > 8
    grown = [growth([row[k] for row in full]) for k in range(3)]
    if SOAK:
        assert max(grown) < 20, grown
    tell(
        f"{steps} steps of training: growth of main, workers", " / ".join(f"{g:.1f} MiB" for g in grown)
    )


def test_memory_of_detection_in_many_frames_is_flat(tell):
    count = 100_000 if SOAK else 300
    rng = np.random.default_rng(0)
    stack = np.lib.format.open_memmap("stack.npy", "w+", np.uint8, (count, 16, 16))
    for start in range(0, count, 1000):
        part = stack[start : start + 1000]
        part[:] = rng.integers(0, 255, part.shape)
    stack.flush()
    save_weights(iSmallNet(1).state_dict(), {}, Path("w.safetensors"))
    argv = [str(REPOSITORY / "detect.py"), "stack.npy", "--weights", "w.safetensors"]
    series, text = watched([*argv, "--batch-size", "64", "--device", "cpu", "--threshold", "0.9"], 1)
    assert f"{count} frames" in text
    grown = growth([row[0] for row in series]) if len(series) > 8 else 0.0
    if SOAK:  # a frame is some bytes of the list of what is to be done, and pages of the stack
        assert grown < 200, grown
    peak = max(row[0] for row in series)
    tell(f"{count} frames through detect.py", f"peak {peak:.0f} MiB, growth {grown:.1f} MiB")


def test_the_same_seed_gives_the_same_bytes(data, tell):
    """Maps, metrics and report of two whole passes through the stages."""
    torch.manual_seed(0)
    save_weights(iSmallNet(2).state_dict(), {}, Path("w.safetensors"))
    found = []
    for results in ("one", "two"):
        base = ["--dataset", "tiny", "--results", results]
        for script, *argv in (
            ("utils.py", "--dataset", "tiny"),
            ("test.py", *base, "--weights", "w.safetensors", "--device", "cpu"),
            ("eval.py", *base, "--protocol", "all"),
            ("visualization.py", *base),
        ):
            command = [sys.executable, str(REPOSITORY / script), *argv]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        files = sorted(p for p in Path(results).rglob("*") if p.is_file())
        found.append({str(p.relative_to(results)): p.read_bytes() for p in files})
    assert found[0].keys() == found[1].keys()
    differing = [name for name in found[0] if found[0][name] != found[1][name]]
    assert not differing
    tell("all stages twice", f"{len(found[0])} files of the same bytes")
