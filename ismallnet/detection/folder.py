"""RESULTS/NAME of frames: whether it is one to write to, what an earlier run left there, and how that
is resumed or deleted. No file that a run of detect.py did not write is deleted or replaced."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ismallnet.cli import DataError, some
from ismallnet.detection.records import checked, read_records
from ismallnet.detection.sources import Source
from ismallnet.evaluation.map_files import UNFINISHED
from ismallnet.files import read_json

TABLES = ("detections.csv", "detections.json", "frames.json")
PICTURES = ("maps/{}.png", "maps/{}.npy", "overlays/{}.png")  # of a frame
# What runs of earlier versions, which do not name it, did.
BEFORE = {"polarity": "bright", "limits": "each", "confirm": None, "raw": None}
ALONE = "expected a folder for the results alone; nothing was written. Type another --name or --results"
REPORT = 'type="application/json" id="data"'  # in each report's page (report/report.html)


def results_folder(results: str, name: str | None, paths: list[str]) -> Path:
    """Where results of frames go: RESULTS/NAME, without a name that of the only path, or frames."""
    pattern = len(paths) == 1 and not os.path.exists(paths[0]) and any(c in paths[0] for c in "*?[")
    default = Path(paths[0]).stem if len(paths) == 1 and not pattern else ""
    return Path(results) / (name or (default if default not in ("", "..") else "frames"))


def check_inputs_apart(
    folder: Path, paths: list[str], sources: list[Source], recursive: bool = False
) -> None:
    """
    Args:
        paths: of the input, as they were typed.

    Raises:
        DataError: files of the input lie in the folder of the results, or that is searched for frames.
    """
    own, typed = folder.resolve(), [path for path in map(Path, paths) if path.exists()]
    places: dict[Path, Path] = {}  # where files of the input are
    for path in (*typed, *(source.path for source in sources)):
        if path.is_symlink():
            places |= {path.parent: path, path.resolve().parent: path}
        places.setdefault(path if path.is_dir() else path.parent, path)
    for place, path in places.items():
        if own in (place.resolve(), *place.resolve().parents):
            raise DataError(f"{folder}: found the input {path} there, {ALONE}")
    for path in typed if recursive else ():
        if path.is_dir() and path.resolve() in own.parents:
            raise DataError(
                f"{folder}: found it in the input {path}, where --recursive would read the results as "
                f"frames; {ALONE}"
            )


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
    if others := [str(path.relative_to(folder)) for path in others if path.name[0] != "."]:
        raise DataError(
            f"{folder}: found files that no run of detect.py wrote ({some(others, 3)}), and that could "
            f"be overwritten; {ALONE}"
        )


def whole_records(folder: Path) -> Iterator[dict]:
    """The records of a folder; damaged lines are left out."""
    for path in sorted(folder.glob("records-*.jsonl")):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                yield checked(line)


def check_same(folder: Path, before: dict, identity: dict) -> None:
    """
    Raises:
        DataError: no run to resume, or one with other settings.
    """
    if not before:
        raise DataError(f"{folder}: no run to resume there; leave --resume out")
    same = {"weights"}
    if "confirm" in before and identity["confirm"]:  # done anew at the end of each run
        same |= {"confirm"}
    before = BEFORE | before
    for key in identity.keys() - same:
        if before.get(key) != identity[key]:
            raise DataError(
                f"{folder}: this run has {key} {before.get(key)}, found {identity[key]}. Type the same "
                "to resume it, or --overwrite in place of --resume to start again"
            )


def check_unchanged(folder: Path, sources: list[Source]) -> None:
    """
    Raises:
        DataError: a file is not the one of which frames are done: its size or time is another.
    """
    then = {entry["file"]: entry.get("state") for entry, _, _ in read_records(folder)}
    changed = []
    for source in sources:
        state = then.get(str(source.path))  # None in records of earlier versions
        if state and source.state and tuple(state) != source.state:
            changed.append(str(source.path))
    if changed:
        raise DataError(
            f"{some(changed)}: found another size or time than when frames of it were done, expected "
            f"the files of the run in {folder}. Type --overwrite in place of --resume to start again"
        )


def clear(folder: Path) -> None:
    """Deletes an earlier run's results, and nothing else."""
    for entry in whole_records(folder):
        for kind in PICTURES:
            (folder / kind.format(entry["frame"])).unlink(missing_ok=True)
        if stem := video_stem(entry):
            (folder / f"{stem}.mp4").unlink(missing_ok=True)
    for path in folder.glob("records-*.jsonl"):
        path.unlink()
    for name in TABLES:
        (folder / name).unlink(missing_ok=True)
    clear_report(folder / "report")


def clear_report(folder: Path) -> None:
    """Deletes the files of a report of visualization.py; their folders where nothing else is there."""
    page = folder / "index.html"
    if not page.is_file() or REPORT not in page.read_text(encoding="utf-8", errors="replace"):
        return
    page.unlink()
    for path in (folder / "images").glob("*.png"):
        if re.fullmatch(r"\d{5}_[a-z]+", path.stem):
            path.unlink()
    for place in (folder / "images", folder):
        with contextlib.suppress(OSError):  # not empty, or not there
            place.rmdir()


def video_stem(entry: dict) -> str:
    """The name of the annotated video that a record's frame is in; empty without one. Records of
    earlier versions name the frame alone: v_000012 or v_000012_2 -> v or v_2."""
    if "video" in entry or entry["seconds"] is None:
        return entry.get("video", "")
    stem = Path(entry["file"]).stem
    return stem + entry["frame"].removeprefix(f"{stem}_{entry['index']:06d}")
