"""Files that are whole on disk, or not there."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, sync: bool = False) -> Iterator:
    """A binary file to write to that becomes `path` when all of it is written, or never.

    Args:
        sync: wait until the disk has it, for what must outlive a power cut.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    """Removes what processes that were killed left half-written (`atomic_write`) in folders."""
    for folder in folders if os.name == "posix" else ():  # elsewhere signal 0 does something else
        for path in folder.glob(".*.tmp"):
            number = path.name.split(".")[-2]
            try:
                os.kill(int(number), 0)  # asks whether it lives
            except (ProcessLookupError, ValueError, OverflowError):
                path.unlink(missing_ok=True)
            except OSError:  # it lives, and is somebody else's
                continue


def write_json(path: Path, content, indent: int | None = 1) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=indent) + "\n").encode())
