"""RESULTS/NAME of frames: whether it is one to write to, what an earlier run left there, and how that
is resumed or deleted. No file that a run of detect.py did not write is deleted or replaced."""

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ismallnet.cli import DataError, some
from ismallnet.detection.records import checked, read_records
from ismallnet.detection.sources import Source
from ismallnet.evaluation.map_files import UNFINISHED
from ismallnet.files import lock, read_json, sweep, write_json

TABLES = ("detections.csv", "detections.json", "frames.json")
PICTURES = ("maps/{}.png", "maps/{}.npy", "overlays/{}.png")  # of a frame
ALONE = "expected a folder for the results alone; nothing was written. Type another --name or --results"
REPORT = 'type="application/json" id="data"'  # in each report's page (report/report.html)


def results_folder(results: str, name: str | None, paths: list[str]) -> Path:
    """Where results of frames go: RESULTS/NAME, without a name that of the only path, or frames."""
    pattern = len(paths) == 1 and not os.path.exists(paths[0]) and any(c in paths[0] for c in "*?[")
    default = Path(paths[0]).stem if len(paths) == 1 and not pattern else ""
    return Path(results) / (name or (default if default not in ("", "..") else "frames"))


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Keeps other calls out of a folder. One without any result in the end is removed again."""
    with lock(folder, "another detect.py is at work"):
        try:
            yield
        finally:
            results = [*folder.glob("records-*.jsonl"), *(folder / name for name in TABLES)]
            if not any(path.exists() and path.stat().st_size for path in results):
                for path in (*results, folder / "about.json", folder / ".lock"):
                    path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # somebody's files are in there
                    folder.rmdir()


def prepare(folder: Path, identity: dict, sources: list[Source], resume: bool, overwrite: bool) -> None:
    """Makes the results' folder, or checks that it holds what is to be resumed.

    Args:
        identity: all that the results depend on, which about.json keeps.

    Raises:
        DataError: it holds other results; nothing in it was changed.
    """
    before = read_json(folder / "about.json")
    if resume:
        check_same(folder, before, identity, sources)
    elif any(path.stat().st_size for path in folder.glob("records-*.jsonl")):
        if not overwrite:
            of = f" of {' '.join(before['input'])}" if before else ""
            raise DataError(
                f"{folder}: holds results{of} already. Type --resume to continue that run, "
                "--overwrite to delete them, or another --name"
            )
        clear(folder)
    sweep(folder, folder / "maps", folder / "overlays")
    for path in folder.glob(".*.tmp.mp4"):  # of a run that was killed
        path.unlink()
    write_json(folder / "about.json", before | identity if resume else identity)


def check_apart(folder: Path, paths: list[str], sources: list[Source], recursive: bool) -> None:
    """
    Args:
        paths: of the input, as they were typed.

    Raises:
        DataError: files of the input lie in the folder of the results, or that is searched for frames.
    """
    own, typed = folder.resolve(), [path for path in map(Path, paths) if path.exists()]
    files = [*typed, *(source.path for source in sources)]
    for place in {path if path.is_dir() else path.parent for path in files}:
        if own in (place.resolve(), *place.resolve().parents):
            raise DataError(f"{folder}: found the input {place} there, {ALONE}")
        if recursive and place in typed and place.resolve() in own.parents:
            raise DataError(f"{folder}: found it in the input {place}, which is searched; {ALONE}")


def check_ours(folder: Path) -> None:
    """
    Raises:
        DataError: there are maps of a data set, or files of names that would be written, and no run of
            detect.py wrote them.
    """
    about = read_json(folder / "about.json")
    if (folder / UNFINISHED).exists() or (about and "input" not in about):
        raise DataError(f"{folder}: holds the maps of a data set; type another --name")
    if about or any(True for _ in whole_records(folder)):
        return
    patterns = ("about.json", *TABLES, "records-*.jsonl", "maps/*", "overlays/*", "*.mp4")
    others = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    if names := [str(path.relative_to(folder)) for path in others if path.name[0] != "."]:
        raise DataError(
            f"{folder}: found files that detect.py did not write: {some(names, 3)}; {ALONE}"
        )


def whole_records(folder: Path) -> Iterator[dict]:
    """The records of a folder; damaged lines are left out."""
    for path in sorted(folder.glob("records-*.jsonl")):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                yield checked(line)


def check_same(folder: Path, before: dict, identity: dict, sources: list[Source]) -> None:
    """
    Raises:
        DataError: no run to resume, one with other settings, or of files that have changed.
    """
    if not before:
        raise DataError(f"{folder}: no run to resume there; leave --resume out")
    again = "--overwrite in place of --resume to start again"
    free = {"weights", "confirm"} if identity["confirm"] else {"weights"}  # confirmed anew at the end
    for key in identity.keys() - free:
        if before.get(key) != identity[key]:
            text = f"this run has {key} {before.get(key)}, found {identity[key]}"
            raise DataError(f"{folder}: {text}. Type the same to resume it, or {again}")
    now = {str(source.path): source.state for source in sources if source.state}
    then = {entry["file"]: tuple(entry.get("state") or ()) for entry in read_records(folder, {})}
    changed = [file for file, state in then.items() if state and now.get(file, state) != state]
    if changed:
        text = "found another size or time than when frames of it were done"
        raise DataError(
            f"{some(changed)}: {text}, expected the file of the run in {folder}. Type {again}"
        )


def clear(folder: Path) -> None:
    """Deletes an earlier run's results, and nothing else."""
    for entry in whole_records(folder):
        for kind in PICTURES:
            (folder / kind.format(entry["frame"])).unlink(missing_ok=True)
        if video := entry.get("video"):
            (folder / f"{video}.mp4").unlink(missing_ok=True)
    for path in (*folder.glob("records-*.jsonl"), *(folder / name for name in TABLES)):
        path.unlink(missing_ok=True)
    page = folder / "report" / "index.html"
    if page.is_file() and REPORT in page.read_text(encoding="utf-8", errors="replace"):
        page.unlink()
        for path in (folder / "report" / "images").glob("*.png"):
            if re.fullmatch(r"\d{5}_[a-z]+", path.stem):
                path.unlink()


class Names:
    """Names for the results of files: a frame of a picture has the file's name, one of several the
    file's name and its number. Where names are alike, those of the second file end in _2.

    Args:
        done: the records of frames that are done, whose files keep their names.
    """

    def __init__(self, done: list[dict]):
        self.endings: dict[str, str] = {}  # by file
        self.taken: dict[str, bool] = {}  # names of files -> whether a file has several frames
        self.heads: set[str] = set()  # names of pictures without the number at their end
        self.untried: dict[tuple[str, bool], Iterator[str]] = {}  # endings: a refused one stays so
        for entry in done:
            name, stem = entry["frame"], Path(entry["file"]).stem
            numbered = f"{stem}_{entry['index']:06d}"
            several = name.startswith(numbered)
            ending = name.removeprefix(numbered if several else stem)
            self.endings.setdefault(entry["file"], ending)
            self.claim(stem + ending, several)

    def of(self, source: Source, index: int) -> str:
        """The name of a frame's pictures."""
        number = "" if source.kind == "image" else f"_{index:06d}"
        return f"{source.path.stem}{number}{self.ending(source)}"

    def ending(self, source: Source) -> str:
        """What is behind the names of a file's frames: nothing, _2, _3, …"""
        file, stem, several = str(source.path), source.path.stem, source.kind != "image"
        if file not in self.endings:
            new = itertools.chain([""], (f"_{k}" for k in itertools.count(2)))
            endings = self.untried.setdefault((stem, several), new)
            self.endings[file] = next(e for e in endings if self.claim(stem + e, several))
        return self.endings[file]

    def claim(self, name: str, several: bool) -> bool:
        """Takes a name of a file; False if it is taken, or frames of both would be clip_000001."""
        head = re.sub(r"_\d{6,}$", "", name)
        if name in self.taken or (name in self.heads if several else self.taken.get(head)):
            return False
        self.taken[name] = several
        self.heads |= set() if several else {head}
        return True
