"""What the tests of `detect.py` and `--watch` share."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from conftest import fails, picture, write

from detect import main
from ismallnet.detection.sources import find_sources, read_frames
from ismallnet.unet import Outputs

REPOSITORY = Path(__file__).parent.parent


def folder(count=5, name="f") -> Path:
    for k in range(count):
        write(Path(name) / f"frame_{k}.png", picture(k))
    return Path(name)


def deep(seed: int = 0) -> np.ndarray:
    """A picture of 14 bits."""
    return picture(seed).astype(np.uint16) * 30 + 2000


def frames(*paths) -> list[np.ndarray | str]:
    """The pixels of all frames of files or folders, or what is wrong with one."""
    read = read_frames(find_sources([*map(str, paths)]))
    return [frame.pixels if frame.pixels is not None else frame.problem for frame in read]


def run(*argv) -> int:
    return main(["--weights", "w.pt", "--device", "cpu", *map(str, argv)])


def bright_pixels(network, image) -> Outputs:
    """In place of iSmallNet.forward."""
    return Outputs(None, None, 40.0 * (image[:, :1] > 1) - 20)


def results(name="f") -> tuple[list[dict], dict]:
    """The rows of the CSV, and frames.json."""
    here = Path("results") / name
    rows = list(csv.DictReader((here / "detections.csv").read_text().splitlines()))
    return rows, json.loads((here / "frames.json").read_text())


def video(path: str, count: int) -> None:
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for k in range(count):
        writer.write(np.repeat(picture(k, (48, 64))[..., None], 3, 2))
    writer.release()


def start(*argv, launcher=()) -> subprocess.Popen:
    command = [sys.executable, *launcher, str(REPOSITORY / "detect.py"), "--weights", "w.pt"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, "--device", "cpu", *map(str, argv)], **pipes)


def waits(condition, seconds=300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def beside(steps: Callable[[], None], *argv, number=signal.SIGTERM) -> int:
    """Runs `detect.py` while `steps` run beside it in a thread, and sends it a signal after them;
    returns its exit code."""
    running = threading.Event()

    def work() -> None:
        try:
            steps()
        finally:
            if running.is_set():
                os.kill(os.getpid(), number)

    with ThreadPoolExecutor(1) as pool:
        running.set()
        future = pool.submit(work)
        try:
            code = run(*argv)
        finally:
            running.clear()
        future.result()
    return code


def same(a: str, b: str) -> None:
    """The tables of two results are the same."""
    for name in ("detections.csv", "frames.json"):
        assert Path("results", a, name).read_bytes() == Path("results", b, name).read_bytes()


def refused(*argv, capsys) -> str:
    """The message of a call that must end in exit code 2."""
    return fails(main, "--weights", "w.pt", "--device", "cpu", *argv, capsys=capsys)
