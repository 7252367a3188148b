"""Which files the typed paths name, and the files that appear in a watched folder."""

import glob
import re
import shlex
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ismallnet.cli import DataError, note, some
from ismallnet.detection.sources import KINDS, Source, describe, state_of
from ismallnet.images.arrays import RawLayout

NO_RAW = (*KINDS, ".txt", ".json", ".md")  # files that --raw does not read in folders


def find_sources(
    paths: list[str], recursive: bool = False, raw: RawLayout | None = None
) -> list[Source]:
    """What files, folders, patterns and lists name, each file once, in the order of their names, where
    numbers count as numbers; those of a list first, in its order. What cannot be opened is reported
    when its turn comes.

    Args:
        raw: how files that are no pictures are to be read; only they are read then.

    Raises:
        DataError: a path that is not there, or holds no frames.
    """
    lists = [text for text in paths if text.lower().endswith(".txt") and Path(text).is_file()]
    listed = [file for text in lists for file in in_list(Path(text))]
    named = [file for text in paths if text not in lists for file in named_by(text, recursive, raw)]
    files = dict.fromkeys([*listed, *sorted(named, key=in_number)])
    return [describe(path, raw) for path in files]


def in_list(path: Path) -> list[Path]:
    """The files that a text file names, a line each, beside it or from the current folder."""
    raw, files = path.read_bytes(), []
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    lines = raw.decode(encoding, "surrogateescape").splitlines()
    for name in filter(None, (line.strip().strip("\"'") for line in lines)):
        there = [place for place in (path.parent / name, Path(name)) if place.is_file()]
        if not there and name[0] != "#":  # a comment
            raise DataError(f"{path}: names {name[:100]}, which is not there; expected a file a line")
        files += there[:1]
    if not files:
        raise DataError(f"{path}: names no file; expected a file a line")
    return files


def named_by(text: str, recursive: bool, raw: RawLayout | None) -> list[Path]:
    """The files that a typed path or pattern names."""
    path = Path(text)
    if not text:
        raise DataError("'': found an empty PATH, expected a file, a folder or a pattern")
    if path.is_dir():
        return in_folder(path, recursive, raw)
    if path.exists():
        return [path]
    if "://" in text or text.isdecimal():
        raise DataError(
            f"{text}: no such file; for a camera or a stream type python detect.py --camera {text}"
        )
    files = [Path(p) for p in glob.glob(text, recursive=True) if Path(p).is_file()]
    if not files:
        raise DataError(f"{text}: no such file, folder or pattern")
    return files


def in_folder(folder: Path, recursive: bool, raw: RawLayout | None) -> list[Path]:
    """The frame files of a folder; says what is left out."""
    paths = sorted(p for p in folder.glob("**/*" if recursive else "*") if p.name[0] != ".")
    files = [path for path in paths if not path.is_dir()]  # also a link that leads nowhere
    folders = [p for p in paths if p.is_dir() and p != folder and (p.is_symlink() or not recursive)]
    frames = frame_files(files, raw)
    if not frames and folders:
        first = shlex.quote(str(folders[0]))
        raise DataError(
            f"{folder}: found no frames right in it, but folders: {some([p.name for p in folders])}. "
            f"Type --recursive to read all of them, or name one: python detect.py {first}"
        )
    if not frames:
        raise DataError(
            f"{folder}: found no frames in it, expected {'.raw, .bin, …' if raw else ', '.join(KINDS)}"
        )
    others = {"files that are no frames": set(files) - set(frames), "folders": folders}
    for what, left_out in others.items():
        if names := sorted(path.name for path in left_out):
            why = "; --recursive reads folders, links have to be named" if what == "folders" else ""
            note(f"{what} {folder}", f"{folder}: left out {len(names)} {what}: {some(names, 3)}{why}")
    return frames


def frame_files(files: Iterable[Path], raw: RawLayout | None = None) -> list[Path]:
    """Those files of a folder that are frames, by their names. A .csv is one only where there are no
    others: it may be a table of pixels, and beside pictures it is a log."""
    if raw is not None:
        return [path for path in files if path.suffix.lower() not in NO_RAW]
    frames = [path for path in files if path.suffix.lower() in KINDS]
    return [path for path in frames if path.suffix.lower() != ".csv"] or frames


def in_number(path: str | Path) -> list:
    """Sorts frame_2 before frame_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]


def arriving(folder: Path, seconds: float = 0.5) -> Iterator[Source | None]:
    """The files of a folder as they appear or change, each once it has stopped growing; None after
    each look, so that the one who waits can leave. Files that leave are forgotten.

    Raises:
        DataError: the folder cannot be read any more.
    """
    before: dict[Path, tuple[int, int] | None] = {}
    given: dict[Path, tuple[int, int] | None] = {}
    while True:
        try:
            paths = sorted(folder.iterdir(), key=in_number)
        except OSError as error:  # removed, or a disk of the network that was disconnected
            raise DataError(f"{folder}: cannot be read any more: {error.strerror}") from None
        files = frame_files(path for path in paths if path.name[0] != "." and path.is_file())
        now = {path: state_of(path) for path in files}
        for path, state in now.items():
            if state and state[0] and before.get(path) == state != given.get(path):
                given[path] = state
                yield describe(path)
        before, given = now, {path: state for path, state in given.items() if path in now}
        yield None
        time.sleep(seconds)
