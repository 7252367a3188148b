"""What was detected in frames, on disk: records, pictures and their names, tables.

Each frame's targets are a line of records-RANK.jsonl as soon as its pictures are written: what is
interrupted continues from there, and several processes write a file each. At the end
`write_tables` makes detections.csv, and detections.json and frames.json, of them.
"""

import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from ismallnet.cli import DataError
from ismallnet.detection.detector import Target, spike
from ismallnet.detection.sources import Frame, Source
from ismallnet.files import atomic_write, write_csv, write_json, write_png
from ismallnet.images.grey import Limits, to_units
from ismallnet.images.picture import decode

AGAIN = "To start again delete the folder, or type another --name"
REQUIRED = {"frame", "file", "index", "height", "width", "targets"}  # of a record
CATEGORY = {"id": 1, "name": "target"}
IMAGE_KEYS = ("index", "seconds", "height", "width", "range")
COLUMNS = (
    *("frame", "file", "index", "seconds", "target", "x", "y", "left", "top", "width", "height"),
    *("area", "score", "mean", "snr"),
)
MOST_FPS = 655.0  # that MPEG-4 holds with hundredths
FONT = cv2.FONT_HERSHEY_SIMPLEX
COLOURS = {"bright": (255, 215, 0), "dark": (0, 220, 255)}  # of boxes: yellow, cyan


# --- one frame ----------------------------------------------------------------------------------------


def record(frame: Frame, name: str, limits: Limits | None, targets: list[Target]) -> dict:
    """A frame and its targets as plain values, a line of the records."""
    height, width = frame.pixels.shape[:2]
    return {
        "frame": name,
        "file": frame.source.file,
        "index": frame.index,
        "seconds": frame.seconds,
        "height": height,
        "width": width,
        "range": limits,
        "targets": [target_values(target, frame.pixels) for target in targets],
        "sequence": frame.source.sequence,
        "dtype": str(frame.pixels.dtype),
        "state": frame.source.state,
    }


def target_values(t: Target, pixels: np.ndarray) -> dict:
    place = spike(pixels, t)
    return ({"spike": place} if place else {}) | {
        "x": round(t.x, 3),
        "y": round(t.y, 3),
        "box": t.box,
        "area": t.area,
        "score": round(t.score, 6),
        "mean": round(t.mean, 6),
        "snr": None if t.snr is None else round(t.snr, 3),
        "polarity": t.polarity,
    }


def write_overlay(folder: Path, pixels: np.ndarray, entry: dict) -> None:
    """Writes a frame with a box around each target of its record, a little off it, and its score."""
    picture = np.ascontiguousarray(to_units(pixels, entry["range"]).astype(np.uint8))
    height, width = picture.shape[:2]
    for target in entry["targets"]:
        left, top, w, h = target["box"]
        colour = COLOURS[target["polarity"]]
        cv2.rectangle(picture, (left - 4, top - 4), (left + w + 3, top + h + 3), colour, 1)
        text = f"#{target['track']} " if "track" in target else ""
        text += f"{target['score']:.2f}"
        x = min(max(left - 4, 2), max(width - 8 * len(text), 2))
        y = top - 7 if top > 20 else min(top + h + 15, height - 2)
        for ink, thickness in (((0, 0, 0), 3), (colour, 1)):
            cv2.putText(picture, text, (x, y), FONT, 0.35, ink, thickness, cv2.LINE_AA)
    write_png(folder / "overlays" / f"{entry['frame']}.png", picture)


# --- the records --------------------------------------------------------------------------------------


def open_records(folder: Path, rank: int) -> io.FileIO:
    """The records of one process, to append to; a line that was cut off is cut away."""
    path = folder / f"records-{rank}.jsonl"
    file = open(path, "ab", buffering=0)  # noqa: SIM115
    file.truncate(path.read_bytes().rfind(b"\n") + 1)
    return file


def read_records(folder: Path) -> Iterator[dict]:
    """The records of a folder. A line that was cut off by an interruption does not count.

    Raises:
        DataError: a line is damaged.
    """
    for path in sorted(folder.glob("records-*.jsonl")):
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict) or not entry.keys() >= REQUIRED:
                raise DataError(f"{path}, line {number}: damaged, expected a frame's record. {AGAIN}")
            yield entry


def key_of(entry: dict) -> tuple[str, int]:
    """The frame of a record: its file, and its index there."""
    return entry["file"], entry["index"]


def ordered(entries: Iterable[dict], order: Iterable[str]) -> list[dict]:
    """Records, each frame's once, in the order of the files that are named now, then of others."""
    frames = {key_of(entry): entry for entry in entries}
    files = dict.fromkeys([*order, *(file for file, _ in frames)])
    places = {file: place for place, file in enumerate(files)}
    return [frames[key] for key in sorted(frames, key=lambda key: (places[key[0]], key[1]))]


def replace_records(folder: Path, entries: list[dict]) -> None:
    """Puts the records of all processes into one file."""
    with atomic_write(folder / "records-0.jsonl") as file:
        file.writelines(json.dumps(entry).encode() + b"\n" for entry in entries)
    for path in set(folder.glob("records-*.jsonl")) - {folder / "records-0.jsonl"}:
        path.unlink()


# --- names --------------------------------------------------------------------------------------------


def results_folder(results: str, name: str | None, paths: list[str]) -> Path:
    """Where results of frames go: RESULTS/NAME, without a name that of the only path, or frames."""
    pattern = len(paths) == 1 and not os.path.exists(paths[0]) and any(c in paths[0] for c in "*?[")
    default = Path(paths[0]).stem if len(paths) == 1 and not pattern else ""
    return Path(results) / (name or (default if default not in ("", "..") else "frames"))


class Names:
    """Names for the results of files: a frame of a picture has the file's name, one of several the
    file's name and its number. Where names are alike, those of the second file end in _2.

    Args:
        done: records; their files keep their names.
        sources: other files, which get theirs at once, in this order: all processes name all files, so
            that they agree. A file that arrives later gets its name with its first frame.
    """

    def __init__(self, done: list[dict], sources: Iterable[Source] = ()):
        self.endings: dict[str, str] = {}  # by file
        self.taken: set[str] = set()  # names of files
        self.frames: dict[str, bool] = {}  # clip_# of clip_000001 -> whether a file has several frames
        for entry in done:
            name, stem = entry["frame"], Path(entry["file"]).stem
            numbered = f"{stem}_{entry['index']:06d}"
            several = name.startswith(numbered)
            ending = name.removeprefix(numbered if several else stem)
            self.endings.setdefault(entry["file"], ending)
            self.claim(stem, ending, several)
        for source in sources:
            self.ending(source)

    def of(self, source: Source, index: int) -> str:
        """The name of a frame's pictures."""
        number = "" if source.kind == "image" else f"_{index:06d}"
        return f"{source.path.stem}{number}{self.ending(source)}"

    def ending(self, source: Source) -> str:
        """What is behind the names of a file's frames: nothing, _2, _3, …"""
        file, stem, several = source.file, source.path.stem, source.kind != "image"
        if file not in self.endings:
            endings = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
            self.endings[file] = next(end for end in endings if self.claim(stem, end, several))
        return self.endings[file]

    def claim(self, stem: str, ending: str, several: bool) -> bool:
        """Takes a name for a file; False if frames of another file have it, or may have it."""
        name = stem + ending
        frames = f"{stem}_#{ending}" if several else re.sub(r"_\d{6,}(?=(_\d+)?$)", "_#", name)
        other = self.frames.get(frames)
        if name in self.taken or (other is not None and (several or other)):
            return False
        self.taken.add(name)
        self.frames[frames] = several
        return True


# --- tables and videos --------------------------------------------------------------------------------


def write_tables(folder: Path, entries: list[dict], extras: Sequence[str] = ()) -> int:
    """Writes detections.csv; detections.json, COCO's results, and frames.json, the images and the
    category of these; returns how many targets there are. `extras` is what is written of targets beside
    the usual, of "polarity" and "track"."""
    images, rows, results = [], [], []
    for image_id, entry in enumerate(entries, start=1):
        image = {"id": image_id, "file_name": entry["file"], "frame": entry["frame"]}
        images.append(image | {key: entry[key] for key in IMAGE_KEYS})
        rows += [row(entry, *numbered, extras) for numbered in enumerate(entry["targets"], start=1)]
        keys = {"image_id": image_id, "category_id": CATEGORY["id"]}
        results += [keys | {"bbox": t["box"], "score": t["score"]} for t in entry["targets"]]
    write_csv(folder / "detections.csv", (*COLUMNS, *extras), rows)
    write_json(folder / "detections.json", results, indent=None)
    write_json(folder / "frames.json", {"categories": [CATEGORY], "images": images}, indent=None)
    return len(rows)


def row(entry: dict, number: int, t: dict, extras: Sequence[str]) -> list:
    """A line of the CSV."""
    frame = [entry[key] for key in ("frame", "file", "index", "seconds")]
    values = [t[key] for key in ("area", "score", "mean", "snr", *extras)]
    return [*frame, number, t["x"], t["y"], *t["box"], *values]


def write_mot(folder: Path, sequences: dict[str, list[dict]]) -> None:
    """mot/SEQUENCE.txt, as MOTChallenge has it: a line a target, with the number of its frame in the
    sequence, its track (-1 without --confirm), left and top, all from 1, width, height and score. Of
    sequences of one name the second is SEQUENCE_2.txt."""
    names: list[str] = []
    for sequence, entries in sequences.items():
        lines = []
        for number, entry in enumerate(entries, start=1):
            for t in entry["targets"]:
                left, top, *size = t["box"]
                place = (number, t.get("track", -1), left + 1, top + 1, *size)
                lines.append(",".join(map(str, (*place, t["score"], -1, -1, -1))) + "\n")
        stem = Path(sequence).stem or "frames"
        numbered = (f"{stem}_{number}" for number in itertools.count(2))
        names.append(next(name for name in itertools.chain([stem], numbered) if name not in names))
        with atomic_write(folder / "mot" / f"{names[-1]}.txt") as file:
            file.write("".join(lines).encode())


def write_video(folder: Path, name: str, entries: list[dict]) -> None:
    """The overlays of an input video as a video, as fast as it was."""
    temporary = folder.absolute() / f".{name}.tmp.mp4"  # the ending tells OpenCV the format
    writer = None
    for entry in entries:
        try:
            picture = decode(folder / "overlays" / f"{entry['frame']}.png")
        except DataError:  # not there any more, or damaged
            continue
        height, width = picture.shape[:2]  # MPEG-4 has even sides alone
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        if writer is None:
            code, rate = cv2.VideoWriter_fourcc(*"mp4v"), min(round(entries[0]["fps"], 2), MOST_FPS)
            writer = cv2.VideoWriter(str(temporary), code, rate, picture.shape[1::-1])
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    if writer is None or not writer.isOpened():
        print(f"note: OpenCV writes no video {name}; the pictures are in {folder}/overlays/")
        return
    writer.release()
    os.replace(temporary, folder / f"{name}.mp4")
    print(f"video: {folder / f'{name}.mp4'}")
