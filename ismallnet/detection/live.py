"""Frames that come until the run is stopped: of a camera or a network stream the newest, of a folder
those of the files that appear in it."""

import contextlib
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ismallnet.cli import DataError
from ismallnet.detection.sources import (
    Frame,
    Source,
    Wanted,
    frame_files,
    in_number,
    rgb,
    source_of,
    state_of,
)

NAME = "camera"
TRIES, PAUSE = 10, 1.0  # to connect again, one after the other; seconds between them
LOOK = 0.5  # s, how long a look for the next frame or file takes at most

Stop = Callable[[], bool]  # whether the run is to end


def is_address(text: str) -> bool:
    return text.isdecimal() or "://" in text


def public(address: str) -> str:
    """An address without the user and the password in it."""
    return re.sub(r"//[^/@]*@", "//", address)


class Camera:
    """A camera or a stream, which a thread of its own reads; what comes while nobody asks is dropped.

    Args:
        address: the number of a camera, or the URL of a stream.

    Raises:
        DataError: it cannot be opened.
    """

    def __init__(self, address: str):
        self.address, self.problem = address, ""  # why no more will come
        self.count = self.dropped = 0
        self._newest: queue.Queue[tuple[int, float, np.ndarray]] = queue.Queue(maxsize=1)
        self._closed = threading.Event()
        video = self._open()
        if not video.isOpened():
            raise DataError(
                f"--camera {public(address)}: no camera or stream could be opened there; expected the "
                "number of a camera (0 is the first), or an address as rtsp://HOST:554/PATH"
            )
        self._thread = threading.Thread(target=self._read, args=(video,), daemon=True)
        self._thread.start()

    def _open(self) -> cv2.VideoCapture:
        return cv2.VideoCapture(int(self.address) if self.address.isdecimal() else self.address)

    def _read(self, video: cv2.VideoCapture) -> None:
        """Reads until the stream ends; `problem` says why it did, so that nobody waits for more."""
        tries = 0
        try:
            while tries <= TRIES and not self._closed.is_set():
                whole, pixels = video.read()
                if whole:
                    tries = 0
                    self._put(pixels)
                    continue
                tries += 1
                self._closed.wait(PAUSE)
                video = self._open()
            self.problem = f"gave no frame in {TRIES} tries"
        except cv2.error as error:
            self.problem = str(error)

    def _put(self, pixels: np.ndarray) -> None:
        with contextlib.suppress(queue.Empty):  # where the one before was taken
            self._newest.get_nowait()
            self.dropped += 1
        self._newest.put((self.count, time.monotonic(), pixels))
        self.count += 1

    def frames(self, wanted: Wanted, stop: Stop) -> Iterator[Frame]:
        """Each frame that is the newest when it is asked for, with the seconds since the first; a bad
        one where the stream ends."""
        source, first = Source(Path(NAME), "stack", count=0), None
        try:
            while not stop():
                try:
                    index, when, pixels = self._newest.get(timeout=LOOK)
                except queue.Empty:
                    if self.problem:
                        problem = f"--camera {public(self.address)}: {self.problem}"
                        yield Frame(source, self.count, None, problem)
                        return
                    continue
                first = when if first is None else first
                if wanted(source, index):
                    yield Frame(source, index, rgb(pixels), seconds=when - first)
        finally:
            self._closed.set()
            self._thread.join(5)
            tqdm.write(f"{self.count} frames came, {self.dropped} dropped", sys.stderr)


def arriving(folder: Path, stop: Stop) -> Iterator[Source]:
    """The files of a folder as they appear or change, each once it has stopped growing. Files that
    leave are forgotten."""
    before: dict[Path, tuple[int, int] | None] = {}
    given: dict[Path, tuple[int, int] | None] = {}
    while not stop():
        try:
            paths = sorted(folder.iterdir(), key=in_number)
        except OSError as error:  # removed, or a disk of the network that was disconnected
            problem = f"{folder}: cannot be read any more: {error.strerror}; when it is there again, "
            yield Source(folder, "image", problem=f"{problem}type the same command with --resume")
            return
        files = frame_files(path for path in paths if path.name[0] != "." and path.is_file())
        now = {path: state_of(path) for path in files}
        for path, state in now.items():
            if state and state[0] and before.get(path) == state != given.get(path):
                given[path] = state
                yield source_of(path)
        before, given = now, {path: state for path, state in given.items() if path in now}
        time.sleep(LOOK)
