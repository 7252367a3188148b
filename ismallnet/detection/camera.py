"""The newest frames of a camera or a network stream; what comes while nobody asks is dropped."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ismallnet.cli import DataError
from ismallnet.detection.sources import Frame, Source

NAME = "camera"
SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "udp://", "tcp://", "http://", "https://")
TRIES, PAUSE = 10, 1.0  # to connect again, one after the other; seconds between them
LOOK = 0.5  # s, how long a look for the next frame takes at most


def is_address(text: str) -> bool:
    return text.isdecimal() or text.startswith(SCHEMES)


def public(address: str) -> str:
    """An address without the user and the password in it."""
    return re.sub(r"//[^/@]*@", "//", address)


class Camera:
    """The newest frame of a stream, which a thread of its own reads.

    Args:
        address: the number of a camera, or the URL of a stream.

    Attributes:
        count: of the frames that came; dropped: of those that nobody took.
        problem: why no more will come.

    Raises:
        DataError: it cannot be opened.
    """

    def __init__(self, address: str):
        self.address = int(address) if address.isdecimal() else address
        self.count = self.dropped = self.connected = 0
        self.problem = ""
        self._newest: tuple[int, float, np.ndarray] | None = None
        self._change, self._closed = threading.Condition(), threading.Event()
        video = self._open()
        if video is None:
            raise DataError(
                f"--camera {public(address)}: no camera or stream could be opened there; expected the "
                "number of a camera (0 is the first), or an address as rtsp://HOST:554/PATH"
            )
        self._thread = threading.Thread(target=self._run, args=(video,), daemon=True)
        self._thread.start()

    def _open(self) -> cv2.VideoCapture | None:
        video = cv2.VideoCapture(self.address)
        if video.isOpened():
            self.connected += 1
            return video
        return None

    def _run(self, video: cv2.VideoCapture) -> None:
        try:
            self._read(video)
        except cv2.error as error:  # what is not said here would be waited for, for ever
            self._end(str(error))

    def _read(self, video: cv2.VideoCapture | None) -> None:
        tries = 0
        while not self._closed.is_set():
            right, pixels = video.read() if video else (False, None)
            if right:
                tries = 0
                self._put(pixels)
                continue
            tries += 1
            if tries > TRIES:
                self._end(f"gave no frame in {TRIES} tries")
                return
            self._closed.wait(PAUSE)
            video = self._open()

    def _put(self, pixels: np.ndarray) -> None:
        with self._change:
            self.dropped += self._newest is not None
            self._newest = self.count, time.monotonic(), pixels
            self.count += 1
            self._change.notify()

    def _end(self, problem: str) -> None:
        with self._change:
            self.problem = problem
            self._change.notify()

    def frames(self) -> Iterator[Frame | None]:
        """Each frame that is the newest when it is asked for, with the seconds since the first; None
        while none comes. Ends where the stream does."""
        source, first = Source(Path(NAME), "stack", count=0), None
        while True:
            with self._change:
                self._change.wait_for(lambda: self._newest or self.problem, LOOK)
                taken, self._newest = self._newest, None
            if taken is None:
                if self.problem:
                    return
                yield None
                continue
            index, when, pixels = taken
            first = when if first is None else first
            grey = pixels.ndim == 3 and (pixels == pixels[..., :1]).all()
            pixels = pixels[..., 0] if grey else pixels[..., ::-1] if pixels.ndim == 3 else pixels
            yield Frame(source, index, np.ascontiguousarray(pixels), seconds=when - first)

    def close(self) -> None:
        self._closed.set()
        self._thread.join(5)

    def note(self) -> str:
        """What came, what was dropped, and how often the connection was lost."""
        again = f"; connected again {self.connected - 1} times" if self.connected > 1 else ""
        slower = ", which came while others were at work" if self.dropped else ""
        return f"{self.count} frames came, {self.dropped} dropped{slower}{again}"
