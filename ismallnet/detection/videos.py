"""Video files: how many frames they have, whether their end is there, and how their frames are read."""

import itertools
from pathlib import Path

import cv2
import numpy as np

FPS = 25.0  # of a video that does not say it


def missing_bytes(path: Path) -> int:
    """How many bytes a Matroska or WebM file lacks at its end: it is an EBML header and one segment,
    each with an identifier, its size and its contents (RFC 8794). 0 where it is whole, of another kind,
    or does not say its size, as one that was never closed."""
    end = 0
    with open(path, "rb") as file:
        for identifier in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
            file.seek(end)
            if file.read(4) != identifier or not (first := file.read(1)) or not first[0]:
                return 0
            length = 9 - first[0].bit_length()  # of the size's number: its first bit that is set
            rest = file.read(length - 1)
            size = int.from_bytes(bytes([first[0] & (0xFF >> length)]) + rest, "big")
            if size == (1 << 7 * length) - 1:  # unknown
                return 0
            end = file.tell() + size
        return max(end - file.seek(0, 2), 0)


def count_frames(path: Path, exact: bool) -> tuple[int, float]:
    """How many frames a video has, and how many it shows a second.

    Args:
        exact: its header has the number; otherwise they are counted.
    """
    video = cv2.VideoCapture(str(path))
    count, fps = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
    # Estimated from the bit rate or the duration, or not there: a recorder was cut off.
    if not exact or not 0 < count < 2**31:
        count = next(n for n in itertools.count() if not video.grab())
    video.release()
    return int(count), fps if fps > 0 else FPS


def open_video(path: Path) -> tuple[cv2.VideoCapture, bool]:
    """A video, and whether its frames are of more than 8 bits, which OpenCV gives unchanged only when
    it is told not to make colours of them."""
    video = cv2.VideoCapture(str(path))
    video.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    found, pixels = video.read()
    deep = found and pixels is not None and pixels.dtype == np.uint16 and pixels.ndim == 2
    video.release()
    video = cv2.VideoCapture(str(path))
    if deep:
        video.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    return video, deep
