"""Files that are whole on disk, or not there; and what a file really is, by its first bytes."""

import contextlib
import csv
import io
import json
import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from ismallnet.cli import DataError

LOCK_SECONDS = 3.0  # a killed training's loader processes hold its lock for a second
UNFINISHED = re.compile(r"\.[0-9a-f]{8}\.\d+\.tmp")  # names of files that are being written

# What libraries raise on damaged files.
READ_ERRORS = (OSError, ValueError, TypeError, LookupError, EOFError, AttributeError, ArithmeticError)
READ_ERRORS += (RuntimeError, MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error, struct.error)
READ_ERRORS += (tokenize.TokenError, Image.DecompressionBombError, cv2.error)

# First bytes -> what the file is, and what to do.
DISGUISES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; type: git lfs pull"),
    (b"<!doctype html", "a web page, saved under this name; download the file itself"),
    (b"<html", "a web page, saved under this name; download the file itself"),
    (b"\x00\x05\x16\x07", "what macOS keeps beside a file, not the file itself; remove it"),
    (b"rar!", "an archive; unpack it first"),
    (b"\x1f\x8b", "an archive; unpack it first"),
    (b"7z\xbc\xaf", "an archive; unpack it first"),
    (b"matlab 7.3", "a file of MATLAB 7.3; save it with -v7 there"),
    (b"\x89hdf", "an HDF5 file, which is not read"),
    (b"pk\x03\x04", "a zip archive; unpack it first"),
    (b"fff\x00", "a FLIR sequence; export its frames as 16-bit TIFF or CSV with FLIR's software"),
)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, sync: bool = False) -> Iterator[BinaryIO]:
    """A binary file to write to that becomes `path` when all of it is written, or never.

    Until then it has a name beside it that `sweep` knows again.

    Args:
        sync: wait until the disk has it, for what must outlive a power cut.

    Raises:
        DataError: there is something at `path` that is no file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short, as the file's own name may be the longest.
    temporary = path.with_name(f".{zlib.crc32(os.fsencode(path.name)):08x}.{os.getpid()}.tmp")
    try:
        with disk_errors_of(path), open(temporary, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def disk_errors_of(path: Path) -> Iterator[None]:
    """Errors of reading and writing that name no file, as that of a full disk, name this one."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


def check_place(path: Path) -> None:
    """DataError where no file can be written: a folder or a device has its name, a file has its
    folder's, or that folder is not ours to write to."""
    above = next(place for place in path.absolute().parents if place.exists())
    free = path.is_file() or not path.exists()
    if not (free and above.is_dir() and os.access(above, os.W_OK)):
        raise DataError(f"{path}: cannot be written in {above}; expected a file in a folder of yours")


def sweep(*folders: Path) -> None:
    """Removes from folders, whose `lock` this process holds, what killed processes left half-written:
    names of `atomic_write` alone."""
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            if UNFINISHED.fullmatch(path.name):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(folder: Path, doing: str, seconds: float | None = None) -> Iterator[None]:
    """Keeps other programs from writing to a folder, which is made where there is none, while this
    process lives.

    Args:
        doing: what this program does there, for the error, as "a training is running".
        seconds: how long to wait for another program; by default LOCK_SECONDS.

    Raises:
        DataError: another program holds it for longer than a killed one's child processes live.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=LOCK_SECONDS if seconds is None else seconds):
            yield
    except Timeout as error:
        raise DataError(f"{folder}: {doing} there; wait for its end, or name another folder") from error


def write_json(path: Path, content, indent: int | None = 1) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=indent) + "\n").encode())


def read_json(path: Path) -> dict:
    """The JSON object in a file; {} where the file is missing, damaged, or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Sequence]) -> None:
    """A table as CSV (UTF-8, lines end in \\n); None is an empty field, and bytes of a file name that
    are not UTF-8 are \\udcXX."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode("utf-8", "backslashreplace"))


def write_png(path: Path, pixels: np.ndarray) -> int:
    """Writes grey (H, W) or RGB (H, W, 3) uint8 pixels as a PNG; returns its size in bytes."""
    encoded = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1]
    with atomic_write(path) as file:
        file.write(encoded)
    return len(encoded)


def disguise(path: Path) -> str:
    """What a file really is where its name says something else, with what to do; "" if nothing is
    known of it."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return ""
    if not head:
        return "an empty file; copy or download it again"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((text for first, text in DISGUISES if start.startswith(first)), "")


def printable(name: str) -> str:
    """A file name to be drawn, with ? for bytes that are not UTF-8."""
    return name.encode("utf-8", "replace").decode()


@contextlib.contextmanager
def reading(path: Path, kind: str = "image") -> Iterator[None]:
    """What libraries raise on a damaged file becomes a DataError that says what the file really is."""
    try:
        yield
    except READ_ERRORS as error:
        raise DataError(f"{path}: not a readable {kind} ({disguise(path) or error})") from error
