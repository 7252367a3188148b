"""Video files: how many frames they have, whether their end is there, and how their frames are read."""

import contextlib
import itertools
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from ismallnet.cli import DataError

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # Matroska's identifiers
FPS = 25.0  # of a video that does not say it
_listening = threading.RLock()  # of `heard`: there is one standard error


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
    """Where the last box of an MP4 or QuickTime file should end. 0 if it does not say it.

    Args:
        length: the file's bytes.
    """
    return [end for _, end in boxes(file, length)][-1]


def boxes(file: BinaryIO, length: int) -> Iterator[tuple[bytes, int]]:
    """The type of each box of an MP4 or QuickTime file, and where it should end (ISO/IEC 14496-12):
    each begins with its size in 4 bytes, or 1 and the size in 8 bytes after its type. The end is 0, and
    no other box follows, where a box does not say it."""
    end = 0
    while end < length:
        file.seek(end)
        size, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if size < 8:  # 0: to the file's end
            yield kind, 0
            return
        end += size
        yield kind, end


def in_fragments(path: Path) -> bool:
    """Whether an MP4 or QuickTime file is written in fragments, as cameras and streams do: its header
    counts the frames of the first one alone."""
    with open(path, "rb") as file:
        length = file.seek(0, 2)
        return any(kind == b"moof" for kind, _ in boxes(file, length))


def count_frames(path: Path, exact: bool) -> tuple[int, float]:
    """How many frames a video has, and how many it shows a second.

    Args:
        exact: its header has the number; otherwise they are counted.
    """
    os.environ.pop("OPENCV_FFMPEG_LOGLEVEL", None)  # so quiet that `retrieve` would not hear of it
    video = cv2.VideoCapture(name_of(path))
    count, fps = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
    # Estimated from the bit rate or the duration, or not there: a recorder was cut off.
    if not exact or not 0 < count < 2**31 or in_fragments(path):
        count = next(n for n in itertools.count() if not video.grab())
    video.release()
    return int(count), fps if fps > 0 else FPS


def open_video(path: Path) -> tuple[cv2.VideoCapture, bool]:
    """A video, and whether its frames are of more than 8 bits, which OpenCV gives unchanged only when
    it is told not to make colours of them."""
    video = cv2.VideoCapture(name_of(path))
    video.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    with heard(passed_on=False):  # it warns of colours that are left as they are
        found, pixels = video.read()
    deep = found and pixels is not None and pixels.dtype == np.uint16 and pixels.ndim == 2
    video.release()
    video = cv2.VideoCapture(name_of(path))
    if deep:
        video.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    return video, deep


def name_of(path: Path) -> str:
    """A path as OpenCV takes it.

    Raises:
        DataError: its bytes are not UTF-8, on which OpenCV's reader crashes.
    """
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{path}: found a name that is not UTF-8, expected one that is; rename the file or folder"
        ) from None
    return text


@contextlib.contextmanager
def heard(passed_on: bool = True) -> Iterator[bytearray]:
    """What libraries write to standard error meanwhile, which is the only place where OpenCV says that
    a frame was not converted. It is passed on afterwards, or not."""
    text = bytearray()
    with _listening, contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile())
            kept = os.dup(2)
        except OSError:  # no place for it, or standard error is closed
            yield text
            return
        sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        try:
            yield text
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text += file.read()
    if passed_on and b"interlaced" not in text:
        os.write(2, text)


def retrieve(video: cv2.VideoCapture, path: Path) -> np.ndarray:
    """The frame that was grabbed last, HxWx3 in BGR, or HxW of more than 8 bits.

    Raises:
        DataError: damaged, or interlaced where OpenCV does not read that (version 5.0): it gives
            memory that nobody has filled.
    """
    with heard() as text:
        found, pixels = video.retrieve()
    if b"Cannot convert interlaced" in text:
        raise DataError(
            f"interlaced, which OpenCV {cv2.__version__} does not read; expected whole frames. "
            f"Convert it: ffmpeg -i {path.name} -vf yadif -c:v ffv1 {path.stem}-whole.mkv, or install "
            "an older version: pip install 'opencv-python-headless<5'"
        )
    if not found:
        raise DataError("damaged")
    return pixels
