"""What was found in frames, on disk: probability maps, overlays, and detections as CSV and COCO JSON.

Each frame's targets are a line of records-RANK.jsonl as soon as its pictures are written: what is
interrupted continues from there, and several processes write a file each. `merge` makes
detections.csv, detections.json (COCO results) and frames.json (its images and category) of them.
"""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ismallnet.cli import DataError
from ismallnet.detection.detector import Target
from ismallnet.detection.sources import Frame
from ismallnet.detection.tracks import Confirmation, Sighting
from ismallnet.files import atomic_write
from ismallnet.images.grey import to_units

CATEGORY = {"id": 1, "name": "target"}
REQUIRED = ("position", "frame", "file", "index", "seconds", "height", "width", "range", "targets")
IMAGE_KEYS = ("index", "seconds", "height", "width", "range", "dark_range")
COLUMNS = (
    *("frame", "file", "index", "seconds", "target", "x", "y", "left", "top", "width", "height"),
    *("area", "score", "mean", "snr"),
)
COLOURS = {"bright": (255, 215, 0), "dark": (0, 220, 255)}  # of boxes: yellow, cyan


def run_length(pixels: np.ndarray, height: int, width: int) -> str:
    """COCO's compressed run lengths of a mask. Our own, since pycocotools has to be compiled on many
    machines; where it is installed the tests compare the two.

    Args:
        pixels: (n, 2) y, x of the mask's pixels.
        height, width: of the frame; runs go down its columns.

    Returns:
        Lengths of runs of 0 and 1 in turn, the first of 0; each one, from the fourth on as the
        difference to the one two before, in groups of 5 bits from the low end, a sixth bit says that
        more follow, 48 makes it a character.
    """
    at = np.sort(pixels[:, 1].astype(np.int64) * height + pixels[:, 0])
    starts = at[np.diff(at, prepend=-2) > 1]
    ends = at[np.diff(at, append=at[-1] + 2) > 1] + 1
    edges = [*np.stack([starts, ends], axis=1).ravel().tolist(), height * width]
    runs = np.diff(edges, prepend=0).tolist()
    runs = runs if runs[-1] else runs[:-1]
    text = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            low, value = value & 31, value >> 5
            done = value == (-1 if low & 16 else 0)
            text.append(chr(48 + low + (0 if done else 32)))
            if done:
                break
    return "".join(text)


def record(
    name: str,
    position: int,
    frame: Frame,
    limits: tuple[float, float] | None,
    targets: list[Target],
) -> dict:
    """A frame and its targets as plain values, a line of the records."""
    height, width = frame.pixels.shape[:2]
    return {
        "position": position,
        "frame": name,
        "file": str(frame.source.path),
        "index": frame.index,
        "seconds": frame.seconds,
        "height": height,
        "width": width,
        "range": limits,
        "targets": [
            {
                "x": round(t.x, 3),
                "y": round(t.y, 3),
                "box": t.box,
                "area": t.area,
                "score": round(t.score, 6),
                "mean": round(t.mean, 6),
                "snr": None if t.snr is None else round(t.snr, 3),
                "polarity": t.polarity,
                "counts": run_length(t.pixels, height, width),
            }
            for t in targets
        ],
    }


def overlay(
    pixels: np.ndarray,
    limits: tuple[float, float] | None,
    targets: list[dict],
    extras: tuple[str, ...] = (),
) -> np.ndarray:
    """The frame as RGB uint8 with a box around each target, a little off it, and its score.

    Args:
        targets: as `record` has them.
        extras: what else is written beside a box, of "polarity" and "track".
    """
    picture = np.ascontiguousarray(to_units(pixels, limits).astype(np.uint8))
    height, width = picture.shape[:2]
    for target in targets:
        left, top, w, h = target["box"]
        colour = COLOURS[target["polarity"]]
        cv2.rectangle(picture, (left - 4, top - 4), (left + w + 3, top + h + 3), colour, 1)
        text = f"{target['score']:.2f}"
        text = f"#{target['track']} {text}" if "track" in extras else text
        text = f"{text} {target['polarity']}" if "polarity" in extras else text
        x = min(max(left - 4, 2), max(width - 8 * len(text), 2))
        y = top - 7 if top > 20 else min(top + h + 15, height - 2)
        for ink, thickness in (((0, 0, 0), 3), (colour, 1)):
            cv2.putText(
                picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.35, ink, thickness, cv2.LINE_AA
            )
    return picture


# --- records ---------------------------------------------------------------------------------------


def read_records(folder: Path) -> Iterator[tuple[dict, Path, int]]:
    """All whole lines of all records: (record, file, where in it). A line that was cut off by an
    interruption does not count."""
    for path in sorted(folder.glob("records-*.jsonl")):
        for entry, at in whole_lines(path):
            yield entry, path, at


def whole_lines(path: Path) -> Iterator[tuple[dict, int]]:
    """The records of a file, and where in it they begin."""
    with open(path, "rb") as file:
        at = 0
        for line in file:
            if line.endswith(b"\n"):
                try:
                    yield checked(line), at
                except ValueError as error:
                    raise DataError(
                        f"{path}: damaged at byte {at} ({error}), expected the record of a frame. Type "
                        "detect.py's command with --overwrite to start again"
                    ) from error
            at += len(line)


def checked(line: bytes) -> dict:
    """The record in a line.

    Raises:
        ValueError: damaged, or no record.
    """
    entry = json.loads(line)
    if not isinstance(entry, dict):
        raise ValueError(f"found {type(entry).__name__}")
    if lacks := [key for key in REQUIRED if key not in entry]:
        raise ValueError(f"found no {', '.join(lacks)}")
    for key, kind in (("position", int), ("index", int), ("file", str), ("targets", list)):
        if not isinstance(entry[key], kind):
            raise ValueError(f"found {key} {entry[key]!r}")
    for name in (entry["frame"], entry.get("video", "")):
        if os.path.basename(str(name)) != name:  # it would lead to files elsewhere
            raise ValueError(f"found the name {name!r}")
    return entry


def open_records(folder: Path, rank: int) -> io.FileIO:
    """The records of one process, to append to; a line that was cut off is cut away."""
    path = folder / f"records-{rank}.jsonl"
    file = open(path, "ab")  # noqa: SIM115
    raw = path.read_bytes()
    file.truncate(raw.rfind(b"\n") + 1)
    return file


class Place(NamedTuple):
    """Where a record is; in the order of the frames."""

    later: bool  # the frame is not among those that are named now
    position: int
    path: str
    at: int


class Records:
    """The records of a folder in the order of their frames; a context manager. The memory it takes
    grows with the number of frames alone, by some bytes each.

    Args:
        positions: where the frames of a file and index belong now; others come after them, in the
            order of their records.
    """

    def __init__(self, folder: Path, positions: dict[tuple[str, int], int]):
        self.places = []
        for entry, path, at in read_records(folder):
            position = positions.get((entry["file"], entry["index"]))
            place = entry["position"] if position is None else position
            self.places.append(Place(position is None, place, str(path), at))
        self.places.sort()
        paths = {place.path for place in self.places}
        self.files = {path: open(path, "rb") for path in paths}  # noqa: SIM115

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_) -> None:
        for file in self.files.values():
            file.close()

    def read(self, place: Place) -> dict:
        self.files[place.path].seek(place.at)
        return json.loads(self.files[place.path].readline())

    def __iter__(self) -> Iterator[dict]:
        return map(self.read, self.places)


def confirm(folder: Path, positions: dict[tuple[str, int], int], rule: Confirmation) -> int:
    """Gives the targets in the records the numbers of their tracks, and sets those that are not
    confirmed aside, as `unconfirmed`; returns the number of tracks. Again after more frames it begins
    anew: the result is that of all frames at once."""
    frames: dict[str, list[list[Sighting]]] = {}
    numbers: dict[tuple[str, int], list[int | None]] = {}
    with Records(folder, positions) as records:
        order: dict[str, list[tuple[str, int]]] = {}
        for place, entry in zip(records.places, records):
            sightings = [(t["x"], t["y"], t["polarity"]) for t in all_targets(entry)]
            frames.setdefault(entry["sequence"], []).append(sightings)
            order.setdefault(entry["sequence"], []).append((place.path, place.at))
    tracks = 0
    for sequence, sightings in frames.items():
        found = rule.numbers(sightings)
        for place, own in zip(order[sequence], found):
            numbers[place] = [number and number + tracks for number in own]
        tracks += max((number or 0 for own in found for number in own), default=0)
    for path in sorted(folder.glob("records-*.jsonl")):
        with atomic_write(path) as file:
            for entry, at in whole_lines(path):
                pairs = list(zip(all_targets(entry), numbers[str(path), at], strict=True))
                entry["targets"] = [t | {"track": number} for t, number in pairs if number]
                entry["unconfirmed"] = [t for t, number in pairs if not number]
                file.write(json.dumps(entry).encode() + b"\n")
    return tracks


def all_targets(entry: dict) -> list[dict]:
    """The targets of a record, the unconfirmed too, without tracks; the highest score first."""
    targets = [*entry["targets"], *entry.get("unconfirmed", ())]
    targets = [{key: value for key, value in t.items() if key != "track"} for t in targets]
    return sorted(targets, key=lambda t: (-t["score"], t["y"], t["x"]))


def merge(
    folder: Path, positions: dict[tuple[str, int], int], extras: tuple[str, ...] = ()
) -> tuple[int, int]:
    """Writes detections.csv, detections.json and frames.json; returns frames and targets.

    Args:
        positions: as of `Records`.
        extras: what is written of targets beside the usual, of "polarity" and "track".
    """
    count = 0
    with (
        Records(folder, positions) as records,
        atomic_write(folder / "detections.csv") as table,
        atomic_write(folder / "detections.json") as results,
        atomic_write(folder / "frames.json") as companion,
    ):
        text = io.TextIOWrapper(
            table,
            encoding="utf-8",
            errors="backslashreplace",  # names of files that are not UTF-8
            newline="",
            write_through=True,
        )
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow((*COLUMNS, *extras))
        results.write(b"[")
        companion.write(b'{"categories": [' + json.dumps(CATEGORY).encode() + b'],\n"images": [')
        for image_id, entry in enumerate(records, start=1):
            image = {"id": image_id, "file_name": entry["file"], "frame": entry["frame"]}
            image |= {key: entry[key] for key in IMAGE_KEYS if key in entry}
            companion.write((b",\n" if image_id > 1 else b"\n") + json.dumps(image).encode())
            for number, t in enumerate(entry["targets"], start=1):
                count += 1
                mask = {"size": [entry["height"], entry["width"]], "counts": t["counts"]}
                found = {"image_id": image_id, "category_id": CATEGORY["id"], "bbox": t["box"]}
                found |= {"score": t["score"], "segmentation": mask}
                found |= {key: t[key] for key in extras}
                results.write((b",\n" if count > 1 else b"\n") + json.dumps(found).encode())
                where = [entry["frame"], entry["file"], entry["index"], entry["seconds"], number]
                values = [t[key] for key in ("area", "score", "mean", "snr", *extras)]
                rows.writerow([*where, t["x"], t["y"], *t["box"], *values])
        results.write(b"\n]\n")
        companion.write(b"\n]}\n")
        text.detach()
    return len(records.places), count
