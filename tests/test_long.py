"""Long runs: memory stays flat (SOAK=1, make soak), and all repeats to the byte."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import SOAK
from runs import REPOSITORY

from ismallnet.checkpoints import save_weights
from net import iSmallNet

soak = pytest.mark.skipif(
    not SOAK or sys.platform != "linux", reason="a long run (make soak), which reads memory from /proc"
)


def watched(argv: list[str]) -> tuple[list[float], str]:
    """Runs a script; its memory, MiB, every half second while it runs."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with open("output.txt", "w") as output:
        pipes = {"stdout": output, "stderr": output}
        process = subprocess.Popen([sys.executable, *argv], env=environment, **pipes)
    series = []
    while process.poll() is None:
        with contextlib.suppress(OSError, IndexError):  # it has just ended
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            series.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        time.sleep(0.5)
    text = Path("output.txt").read_text()
    assert process.wait() == 0, text[-2000:]
    return series, text


def growth(values: list[float]) -> float:
    """MiB from the second quarter of a run to its last."""
    quarter = len(values) // 4
    return float(np.median(values[-quarter:]) - np.median(values[quarter : 2 * quarter]))


@soak
def test_memory_of_detection_in_many_frames_is_flat(tell):
    count = 100_000
    rng = np.random.default_rng(0)
    stack = np.lib.format.open_memmap("stack.npy", "w+", np.uint8, (count, 16, 16))
    for start in range(0, count, 1000):
        part = stack[start : start + 1000]
        part[:] = rng.integers(0, 255, part.shape)
    stack.flush()
    save_weights(iSmallNet(1).state_dict(), {}, Path("w.safetensors"))
    argv = [str(REPOSITORY / "detect.py"), "stack.npy", "--weights", "w.safetensors"]
    series, text = watched([*argv, "--batch-size", "64", "--device", "cpu", "--threshold", "0.9"])
    assert f"{count} frames" in text
    grown = growth(series)
    assert grown < 200, grown  # a frame: some bytes of a list, and pages of the stack
    tell(f"{count} frames through detect.py", f"peak {max(series):.0f} MiB, growth {grown:.1f} MiB")


def test_the_same_seed_gives_the_same_bytes(data, tell):
    """Maps, metrics and report of two whole passes through the stages, here and in a new process."""
    save_weights(iSmallNet(2).state_dict(), {}, Path("w.safetensors"))
    found = []
    for results in ("one", "two"):
        base = ["--dataset", "tiny", "--results", results]
        code = "import utils, test, eval, visualization as report\nutils.main(['--dataset', 'tiny'])\n"
        code += f"test.main([*{base}, '--weights', 'w.safetensors', '--device', 'cpu'])\n"
        code += f"eval.main([*{base}, '--protocol', 'all'])\nreport.main({base})"
        if results == "one":
            exec(code, {})
        else:
            environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
            done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
            assert done.returncode == 0, done.stderr
        files = sorted(p for p in Path(results).rglob("*") if p.is_file())
        found.append({str(p.relative_to(results)): p.read_bytes() for p in files})
    assert found[0].keys() == found[1].keys()
    assert not [name for name in found[0] if found[0][name] != found[1][name]]
    tell("all stages twice", f"{len(found[0])} files of the same bytes")
