"""Video files: how many frames they have, whether their end is there, and how their frames are read."""

import itertools
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # Matroska's identifiers
FPS = 25.0  # of a video that does not say it


def missing_bytes(path: Path) -> int:
    """How many bytes a video lacks at its end: its container says how long its parts are. 0 where it is
    whole, of another kind than Matroska, WebM, MP4, QuickTime or AVI, or does not say it, as one that
    was never closed."""
    with open(path, "rb") as file:
        head = file.read(12)
        length = file.seek(0, 2)
        if head.startswith(EBML):
            end = end_of_segment(file)
        elif head[:4] == b"RIFF":
            end = 8 + int.from_bytes(head[4:8], "little")
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
            end = end_of_boxes(file, length)
        else:
            end = 0
    return max(end - length, 0)


def end_of_segment(file: BinaryIO) -> int:
    """Where a Matroska file should end: an EBML header and a segment, each an identifier, its size and
    its contents (RFC 8794). 0 if it does not say it."""
    end = 0
    for identifier in (EBML, SEGMENT):
        file.seek(end)
        if file.read(4) != identifier or not (first := file.read(1)) or not first[0]:
            return 0
        length = 9 - first[0].bit_length()  # of the size's number: its first bit that is set
        rest = file.read(length - 1)
        size = int.from_bytes(bytes([first[0] & (0xFF >> length)]) + rest, "big")
        if size == (1 << 7 * length) - 1:  # unknown
            return 0
        end = file.tell() + size
    return end


def end_of_boxes(file: BinaryIO, length: int) -> int:
    """Where the last box of an MP4 or QuickTime file should end (ISO/IEC 14496-12): each begins with
    its size in 4 bytes, or 1 and the size in 8 bytes after its type. 0 if it does not say it.

    Args:
        length: the file's bytes.
    """
    end = 0
    while end < length:
        file.seek(end)
        size = int.from_bytes(file.read(4), "big")
        if size == 1:
            size = int.from_bytes(file.read(12)[4:], "big")
        if size < 8:  # 0: to the file's end
            return 0
        end += size
    return end


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
