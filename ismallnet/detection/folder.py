"""RESULTS/NAME of frames: whether it is one to write to, what an earlier run left there, and how that
is resumed or deleted. No file that a run of detect.py did not write is deleted or replaced."""

import os
from collections.abc import Iterable
from pathlib import Path

from ismallnet.cli import DataError, some
from ismallnet.detection.records import read_records
from ismallnet.detection.sources import Source
from ismallnet.files import read_json, sweep, write_json

ABOUT = "about.json"  # the settings of the run
TABLES = ("detections.csv", "detections.json", "frames.json", "report/index.html")
PICTURES = ("maps/{}.png", "overlays/{}.png")  # of a frame
ALONE = "expected a folder for the results alone; nothing was written. Type another --name or --results"


def results_folder(results: str, name: str | None, paths: list[str]) -> Path:
    """Where results of frames go: RESULTS/NAME, without a name that of the only path, or frames."""
    pattern = len(paths) == 1 and not os.path.exists(paths[0]) and any(c in paths[0] for c in "*?[")
    default = Path(paths[0]).stem if len(paths) == 1 and not pattern else ""
    return Path(results) / (name or (default if default not in ("", "..") else "frames"))


def check_ours(folder: Path, inputs: Iterable[str | Path], resume: bool) -> None:
    """Refuses a folder that holds the input; that holds files and is no folder of detect.py's; or
    without a run to resume."""
    own = folder.resolve()
    for path in map(Path, inputs):
        there = path.resolve()
        if own in (there, *there.parents):
            raise DataError(f"{folder}: holds the input {path}; {ALONE}")
    if "input" in read_json(folder / ABOUT):
        return
    if folder.is_dir() and (names := sorted(p.name for p in folder.iterdir() if p.name != ".lock")):
        raise DataError(
            f"{folder}: found files that detect.py did not write: {some(names, 3)}; {ALONE}"
        )
    if resume:
        raise DataError(f"{folder}: no run to resume there; leave --resume out")


def prepare(folder: Path, identity: dict, sources: list[Source], resume: bool, overwrite: bool) -> None:
    """Makes the results' folder, or checks that it holds what is to be resumed; `identity` is all that
    the results depend on, which about.json keeps."""
    before = read_json(folder / ABOUT)
    if resume:
        check_same(folder, before, identity, sources)
    elif any(path.stat().st_size for path in folder.glob("records-*.jsonl")):
        if not overwrite:
            raise DataError(
                f"{folder}: holds results of {' '.join(before['input'])} already. Type --resume to "
                "continue that run, --overwrite to delete them, or another --name"
            )
        clear(folder)
    sweep(folder, folder / "maps", folder / "overlays")
    for path in folder.glob(".*.tmp.mp4"):  # of a run that was killed
        path.unlink()
    write_json(folder / ABOUT, before | identity if resume else identity)


def check_same(folder: Path, before: dict, identity: dict, sources: list[Source]) -> None:
    """Refuses to resume a run with other settings, or of files that have changed."""
    again = "--overwrite in place of --resume to start again"
    free = {"weights", "confirm"} if identity["confirm"] else {"weights"}  # confirmed anew at the end
    for key in (before.keys() | identity.keys()) - free:
        if before.get(key) != identity.get(key):
            text = f"this run has {key} {before.get(key)}, found {identity.get(key)}"
            raise DataError(f"{folder}: {text}. Type the same to resume it, or {again}")
    now = {source.file: source.state for source in sources if source.state}
    then = {entry["file"]: tuple(entry.get("state") or ()) for entry in read_records(folder)}
    changed = [file for file, state in then.items() if state and now.get(file, state) != state]
    if changed:
        text = "found another size or time than when frames of it were done"
        raise DataError(
            f"{some(changed)}: {text}, expected the file of the run in {folder}. Type {again}"
        )


def clear(folder: Path) -> None:
    """Deletes an earlier run's results, and nothing else."""
    for entry in read_records(folder, skip_damaged=True):
        for kind in PICTURES:
            (folder / kind.format(entry["frame"])).unlink(missing_ok=True)
        if video := entry.get("video"):
            (folder / f"{video}.mp4").unlink(missing_ok=True)
    tables = (folder / name for name in TABLES)
    for path in (*folder.glob("records-*.jsonl"), *folder.glob("mot/*.txt"), *tables):
        path.unlink(missing_ok=True)
