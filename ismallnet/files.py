"""Files that are whole on disk, or not there."""

import contextlib
import csv
import io
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

HOST = re.sub(r"[^\w-]", "-", platform.node(), flags=re.ASCII)[:32] or "host"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, sync: bool = False) -> Iterator[BinaryIO]:
    """A binary file to write to that becomes `path` when all of it is written, or never.

    Until then it is `.NAME.HOST.PID.tmp` beside it, which `sweep` knows again.

    Args:
        sync: wait until the disk has it, for what must outlive a power cut.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{HOST}.{os.getpid()}.tmp")
    try:
        with open_in_folder(temporary) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_in_folder(path: Path) -> BinaryIO:
    """A new binary file; its folder is made where there is none."""
    try:
        return open(path, "wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "wb")


def sweep(*folders: Path) -> None:
    """Removes from folders what processes of this machine that were killed left half-written.

    Only names that `atomic_write` gives: other programs' temporary files stay, and on shared disks
    those of other machines, whose process numbers say nothing here.
    """
    ours = re.compile(rf"\..+\.{re.escape(HOST)}\.(\d+)\.tmp")
    for folder in folders if os.name == "posix" else ():  # elsewhere signal 0 does something else
        for path in folder.glob(".*.tmp"):
            if not (match := ours.fullmatch(path.name)):
                continue
            try:
                os.kill(int(match[1]), 0)  # asks whether it lives
            except (ProcessLookupError, OverflowError):
                path.unlink(missing_ok=True)
            except OSError:  # it lives, and belongs to another user
                continue


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
    """A table as CSV (UTF-8, lines end in \\n); None is an empty field.

    Bytes of a file name that are not UTF-8 are written as \\udcXX.
    """
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


def read_png(path: Path) -> np.ndarray | None:
    """A PNG of `write_png`, grey (H, W) or RGB (H, W, 3); None where it is missing or damaged."""
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error):
        return None
    return pixels[..., ::-1] if pixels is not None and pixels.ndim == 3 else pixels
