"""Detections against boxes: recall, false alarms a frame, precision, and their curve over the score.

A target's box is hit if the centre of a detection lies in it, grown by MARGIN; a detection whose
centre lies in no box is a false alarm. A second detection in one box is neither.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError
from ismallnet.evaluation.tables import lay_out
from ismallnet.files import read_json, write_csv, write_json

MARGIN = 3.0  # px; boxes drawn by hand are often a little off their targets
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the scores
RATES = (0.1, 0.2, 0.3, 0.5, 1.0)  # false alarms a frame at which the recall is reported
COLUMNS = ("score", "recall", "false_alarms", "precision")
Key = tuple[str, int]  # a frame: the name of its file without the ending, and its number in the file
Box = tuple[float, ...]  # left, top, width, height, px


@dataclass
class BoxedFrame:
    """Boxes and detections (x, y, score) of a frame, px."""

    boxes: list[Box] = field(default_factory=list)
    detections: list[tuple[float, float, float]] = field(default_factory=list)

    def scores(self) -> tuple[list[float], list[float]]:
        """The highest score in each box, -1 where there is none; and those of the false alarms."""
        best, false = [-1.0] * len(self.boxes), []
        for x, y, score in self.detections:
            hit = [k for k, box in enumerate(self.boxes) if inside(x, y, box)]
            for k in hit:
                best[k] = max(best[k], score)
            if not hit:
                false.append(score)
        return best, false


def inside(x: float, y: float, box: Box) -> bool:
    """Whether (x, y) lies in a box, grown by MARGIN to each side."""
    left, top, width, height = box
    return -MARGIN <= x - left <= width + MARGIN and -MARGIN <= y - top <= height + MARGIN


def curve(frames: Iterable[BoxedFrame]) -> list[dict[str, float | None]]:
    """A point for each score at which a box or a false alarm is added, the highest score first:
    score, recall, false_alarms (a frame) and precision."""
    pairs = [frame.scores() for frame in frames]
    best = np.array([score for boxes, _ in pairs for score in boxes])
    false = np.array([score for _, alarms in pairs for score in alarms])
    points = []
    for score in np.unique([*best[best >= 0], *false])[::-1].tolist():
        hits, alarms = int((best >= score).sum()), int((false >= score).sum())
        recall = hits / len(best) if len(best) else None
        values = score, recall, alarms / len(pairs), hits / (hits + alarms)
        points.append(dict(zip(COLUMNS, values)))
    return points


def at_threshold(points: list[dict], threshold: float) -> dict[str, float | None]:
    """The point of a curve with all detections from that score up; recall 0 where there is none."""
    nothing = dict(zip(COLUMNS, (threshold, 0.0, 0.0, None)))
    reported = [point for point in points if point["score"] >= threshold]
    return (reported or [nothing])[-1] | {"score": threshold}


def recall_at(points: list[dict], rate: float) -> float:
    """The highest recall with at most so many false alarms a frame."""
    return max((p["recall"] or 0.0 for p in points if p["false_alarms"] <= rate), default=0.0)


# --- files -------------------------------------------------------------------------------------------


def read_boxes(path: Path) -> dict[Key, list[Box]]:
    """The boxes of each frame: a COCO JSON file, or CSV with the columns file (or clip), x, y, width
    and height, and, for videos and stacks, frame (from 0).

    Raises:
        DataError: neither, or a value is no number.
    """
    boxes: dict[Key, list[Box]] = {}
    try:
        for file, frame, box in (coco_rows if path.suffix.lower() == ".json" else csv_rows)(path):
            left, top, width, height = map(float, box)
            boxes.setdefault((stem(file), int(frame)), []).append((left, top, width, height))
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
    frames: dict[Key, BoxedFrame] = {}
    for image in read_json(folder / "frames.json")["images"]:
        key = stem(image["file_name"]), int(image["index"])
        if key in frames:
            raise DataError(f"{folder}: found two files called {key[0]}; detect them separately")
        frames[key] = BoxedFrame()
    with open(folder / "detections.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            target = float(row["x"]), float(row["y"]), float(row["score"])
            frames[stem(row["file"]), int(row["index"])].detections.append(target)
    return frames


def boxed_frames(folder: Path, boxes: Path) -> list[BoxedFrame]:
    """The frames in a folder of detect.py's results with their boxes; those without a box have no
    target. Boxes of frames that were not detected in do not count."""
    frames, truth = read_detections(folder), read_boxes(boxes)
    if not (shared := truth.keys() & frames.keys()):
        example, other = (next(iter(keys), ("nothing", 0)) for keys in (truth, frames))
        raise DataError(
            f"{boxes}: no box belongs to a frame of {folder}: found boxes of {example[0]}, frame "
            f"{example[1]}, and the results of {other[0]}, frame {other[1]}; the names have to agree"
        )
    for key in shared:
        frames[key].boxes = truth[key]
    return list(frames.values())


def report(folder: Path, boxes: Path) -> str:
    """Compares the results of detect.py in a folder with boxes; writes boxes.csv (the curve) and
    boxes.json (what the returned table shows, as fractions) there.

    Raises:
        DataError: a file cannot be used, or no box belongs to any of the frames.
    """
    frames = boxed_frames(folder, boxes)
    points, targets = curve(frames), sum(len(frame.boxes) for frame in frames)
    rows = [at_threshold(points, threshold) for threshold in THRESHOLDS]
    recalls = {str(rate): recall_at(points, rate) for rate in RATES}
    write_csv(folder / "boxes.csv", COLUMNS, [point.values() for point in points])
    content = {"frames": len(frames), "targets": targets, "thresholds": rows, "recall_at": recalls}
    write_json(folder / "boxes.json", content)
    cells = [["score from", "recall", "false alarms a frame", "precision"]]
    for score, recall, alarms, precision in (row.values() for row in rows):
        precise = "n/a" if precision is None else f"{100 * precision:.1f}"
        cells.append([f"{score:g}", f"{100 * (recall or 0):.1f}", f"{alarms:.2f}", precise])
    at = [["false alarms a frame", *recalls], ["recall", *(f"{100 * r:.1f}" for r in recalls.values())]]
    head = f"{folder}: {len(frames)} frames, {targets} targets"
    return "\n\n".join([head, lay_out(cells), lay_out(at)])
