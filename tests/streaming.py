"""What the tests of `detect.py` and `--watch` share."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from conftest import picture, write

from detect import main
from ismallnet.detection.sources import find_sources, read_frames

REPOSITORY = Path(__file__).parent.parent


def folder(count=5, name="f") -> Path:
    for k in range(count):
        write(Path(name) / f"frame_{k}.png", picture(k))
    return Path(name)


def deep(seed: int = 0) -> np.ndarray:
    """A picture of 14 bits."""
    return picture(seed).astype(np.uint16) * 30 + 2000


def frames(*paths, **options) -> list[np.ndarray | str]:
    """The pixels of all frames of files or folders, or what is wrong with one."""
    sources = find_sources([*map(str, paths)], **options)
    read = read_frames(sources)
    return [frame.pixels if frame.pixels is not None else frame.problem for frame in read]


def run(*argv) -> int:
    return main(["--weights", "w.pt", "--device", "cpu", *map(str, argv)])


def results(name="f") -> tuple[list[dict], list[dict], dict]:
    here = Path("results") / name
    rows = list(csv.DictReader((here / "detections.csv").read_text().splitlines()))
    found = json.loads((here / "detections.json").read_text())
    return rows, found, json.loads((here / "frames.json").read_text())


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


def stopped(process: subprocess.Popen) -> str:
    os.kill(process.pid, signal.SIGTERM)
    return process.communicate(timeout=300)[0]
