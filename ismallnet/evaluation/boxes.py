"""Detections against boxes: recall, false alarms a frame, precision, and their curve over the score.

A target's box is hit if the centre of a detection lies in it, grown by MARGIN; a detection whose
centre lies in no box is a false alarm. A second detection in one box is neither.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError, counted
from ismallnet.evaluation.metrics import ratio
from ismallnet.evaluation.tables import lay_out
from ismallnet.files import read_json, write_csv, write_json

MARGIN = 3.0  # px; boxes drawn by hand are often a little off their targets
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the scores
RATES = (0.1, 0.2, 0.3, 0.5, 1.0)  # false alarms a frame at which the recall is reported
CURVE_COLUMNS = ("score", "recall", "false_alarms", "precision")
Key = tuple[str, int]  # a frame: the name of its file without the ending, and its number in the file
Box = tuple[float, ...]  # left, top, width, height, px


@dataclass
class BoxedFrame:
    """Boxes and detections (x, y, score) of a frame, px; of `detect.py --confirm` also their tracks."""

    boxes: list[Box] = field(default_factory=list)
    detections: list[tuple[float, float, float]] = field(default_factory=list)
    tracks: list[str] = field(default_factory=list)


def in_box(x: float, y: float, box: Box) -> bool:
    """Whether (x, y) lies in a box, grown by MARGIN to each side."""
    left, top, width, height = box
    return -MARGIN <= x - left <= width + MARGIN and -MARGIN <= y - top <= height + MARGIN


@dataclass(frozen=True)
class Scores:
    """The highest score in each box, -1 where there is none; and those of the false alarms."""

    best: np.ndarray
    false: np.ndarray
    frames: int

    def at(self, threshold: float) -> dict[str, float | None]:
        """Recall, false alarms a frame and precision of all detections from that score up."""
        hits, alarms = (int((scores >= threshold).sum()) for scores in (self.best, self.false))
        recall, precision = ratio(hits, len(self.best)), ratio(hits, hits + alarms)
        return dict(zip(CURVE_COLUMNS, (threshold, recall, alarms / self.frames, precision)))

    def curve(self) -> list[dict[str, float | None]]:
        """A point for each score at which a box or a false alarm is added, the highest first."""
        scores = np.unique([*self.best[self.best >= 0], *self.false])
        return [self.at(score) for score in scores[::-1].tolist()]


def scores_of(frames: Sequence[BoxedFrame]) -> Scores:
    best, false = [], []
    for frame in frames:
        highest = [-1.0] * len(frame.boxes)
        for x, y, score in frame.detections:
            hit = [k for k, box in enumerate(frame.boxes) if in_box(x, y, box)]
            for k in hit:
                highest[k] = max(highest[k], score)
            false += [] if hit else [score]
        best += highest
    return Scores(np.array(best), np.array(false), len(frames))


def recall_at(points: list[dict], rate: float) -> float:
    """The highest recall with at most so many false alarms a frame."""
    return max((p["recall"] for p in points if p["false_alarms"] <= rate), default=0.0)


def count_tracks(videos: Iterable[Sequence[BoxedFrame]]) -> dict[str, int]:
    """Tracks; false ones, which lie in no box of any frame; and switches: how often the target's box is
    hit by another track than when it was hit before. A video is taken to show one target."""
    tracks, true, switches = set(), set(), 0
    for video, frames in enumerate(videos):
        last = None
        for frame in frames:
            hits = [
                track
                for (x, y, _), track in zip(frame.detections, frame.tracks)
                if any(in_box(x, y, box) for box in frame.boxes)
            ]
            tracks |= {(video, track) for track in frame.tracks}
            true |= {(video, track) for track in hits}
            if hits and last not in hits:
                switches += last is not None
                last = hits[0]
    return {"tracks": len(tracks), "false_tracks": len(tracks - true), "switches": switches}


# --- files -------------------------------------------------------------------------------------------


def read_boxes(path: Path) -> dict[Key, list[Box]]:
    """The boxes of each frame: a COCO JSON file, or CSV with the columns file (or clip), x, y, width
    and height, and, for videos and stacks, frame (from 0).

    Raises:
        DataError: neither, or a value is no number.
    """
    boxes: dict[Key, list[Box]] = {}
    rows = coco_rows if path.suffix.lower() == ".json" else csv_rows
    try:
        for file, frame, (left, top, width, height) in rows(path):
            box = float(left), float(top), float(width), float(height)
            boxes.setdefault((stem(file), int(frame)), []).append(box)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: found {error!r}; expected COCO's JSON, or CSV with the columns file, x, y, width "
            "and height, and frame for videos"
        ) from error
    return boxes


def csv_rows(path: Path) -> Iterator[tuple[str, str | int, list[str]]]:
    """File, frame and box."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            box = [row[key] for key in ("x", "y", "width", "height")]
            yield row.get("file") or row["clip"], row.get("frame") or 0, box


def coco_rows(path: Path) -> Iterator[tuple[str, int, list[float]]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for annotation in content["annotations"]:
        yield names[annotation["image_id"]], 0, annotation["bbox"]


def stem(file: str) -> str:
    """`clips/a.b.mp4` -> `a.b`; a name without an ending stays."""
    return Path(file.replace("\\", "/")).stem


def read_detections(folder: Path) -> dict[Key, BoxedFrame]:
    """All frames in a folder of detect.py's results, with their detections."""
    if not (folder / "frames.json").is_file():
        raise DataError(
            f"{folder}: found no frames.json, expected results of detect.py; type: "
            f"python detect.py FRAMES --name {folder.name}"
        )
    frames = {}
    for image in read_json(folder / "frames.json")["images"]:
        key = stem(image["file_name"]), int(image["index"])
        if key in frames:
            raise DataError(f"{folder}: found two files called {key[0]}; detect them separately")
        frames[key] = BoxedFrame()
    with open(folder / "detections.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            target = float(row["x"]), float(row["y"]), float(row["score"])
            frame = frames[stem(row["file"]), int(row["index"])]
            frame.detections.append(target)
            if "track" in row:
                frame.tracks.append(row["track"])
    return frames


def boxed_frames(folder: Path, boxes: Path) -> dict[Key, BoxedFrame]:
    """The frames in a folder of detect.py's results with their boxes; those without a box have no
    target. Boxes of frames that were not detected in do not count."""
    frames, truth = read_detections(folder), read_boxes(boxes)
    if not truth.keys() & frames.keys():
        (name, number), (other, index) = (next(iter(k), ("nothing", 0)) for k in (truth, frames))
        raise DataError(
            f"{boxes}: no box belongs to a frame of {folder}: found boxes of {name}, frame {number}, "
            f"and the results of {other}, frame {index}; the names have to agree"
        )
    for key, frame in frames.items():
        frame.boxes = truth.get(key, [])
    return frames


def videos_of(frames: dict[Key, BoxedFrame]) -> list[list[BoxedFrame]]:
    """The frames of each video, in order; pictures are together one."""
    videos: dict[str, list[BoxedFrame]] = {}
    counts = Counter(name for name, _ in frames)
    for (name, _), frame in frames.items():
        videos.setdefault(name if counts[name] > 1 else "", []).append(frame)
    return list(videos.values())


def compare_boxes(folder: Path, boxes: Path) -> str:
    """Compares the results of detect.py in a folder with boxes; writes boxes.csv (the curve) and
    boxes.json (what the returned table shows, as fractions) there.

    Raises:
        DataError: a file cannot be used, or no box belongs to any of the frames.
    """
    frames = boxed_frames(folder, boxes)
    scores = scores_of(list(frames.values()))
    points, rows = scores.curve(), [scores.at(threshold) for threshold in THRESHOLDS]
    recalls = {str(rate): recall_at(points, rate) for rate in RATES}
    counts = {"frames": scores.frames, "targets": len(scores.best)}
    write_csv(folder / "boxes.csv", CURVE_COLUMNS, [point.values() for point in points])
    if any(frame.tracks for frame in frames.values()):
        counts |= count_tracks(videos_of(frames))
    write_json(folder / "boxes.json", counts | {"thresholds": rows, "recall_at": recalls})
    cells = [["score from", "recall", "false alarms a frame", "precision"]]
    for score, recall, alarms, precision in (row.values() for row in rows):
        precise = "n/a" if precision is None else f"{100 * precision:.1f}"
        cells.append([f"{score:g}", f"{100 * recall:.1f}", f"{alarms:.2f}", precise])
    at = [["false alarms a frame", *recalls], ["recall", *(f"{100 * r:.1f}" for r in recalls.values())]]
    head = f"{folder}: {counted(scores.frames, 'frame')}, {counted(len(scores.best), 'target')}"
    if "tracks" in counts:
        false, switches = counts["false_tracks"], counts["switches"]
        head += f", {counted(counts['tracks'], 'track')}: {false} of no target, {switches} switches"
    return "\n\n".join([head, lay_out(cells), lay_out(at)])
