"""The report of frames of one's own, after `test.py --input`: RESULTS/NAME/report/index.html."""

import itertools
import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from cli import DataError, progress, read_ahead
from dataset import read_map
from detections import read_records
from frames import Frame, describe, read_frames
from images import to_units
from report import frame_entry, write_page, write_pictures

MOST = 1000  # frames in a report; a browser shows them all at once


def chosen_records(folder: Path, most: int) -> tuple[list[dict], int]:
    """The records of at most so many frames, in order: those whose best targets have the highest
    scores; and the number of all.

    Raises:
        DataError: there are none.
    """
    places = []  # (score, position, file, where in it): of 100,000 frames not all targets in memory
    for found, path, at in read_records(folder):
        score = found["targets"][0]["score"] if found["targets"] else 0.0
        places.append((-score, found["position"], path, at))
    if not places:
        raise DataError(f"{folder}: found no frames of test.py in it; type python test.py --input PATH")
    records = []
    for _, _, path, at in sorted(places)[:most]:
        with open(path, "rb") as file:
            file.seek(at)
            records.append(json.loads(file.readline()))
    return sorted(records, key=lambda found: found["position"]), len(places)


def draw_frame(numbered: tuple[int, dict, Frame], folder: Path) -> dict | DataError:
    """Writes a frame's pictures for the report; returns what the report knows of it."""
    order, found, frame = numbered
    name = found["frame"]
    if frame.pixels is None or frame.pixels.shape[:2] != (found["height"], found["width"]):
        problem = frame.problem or f"{found['file']}: found {frame.pixels.shape}"
        return DataError(f"{problem}; the frames must lie where test.py found them")
    try:
        pred = read_map(folder / "maps" / f"{name}.png", frame.pixels.shape[:2])
    except DataError as error:
        return error
    overlay = cv2.imread(str(folder / "overlays" / f"{name}.png"))
    image = np.ascontiguousarray(to_units(frame.pixels, found["range"]).astype(np.uint8))
    pictures = {"image": image, "prediction": pred}
    pictures["overlay"] = image if overlay is None else overlay[..., ::-1]
    write_pictures(folder / "report" / "images", order, pictures)
    return frame_entry(order, found, image, pred)


def write_gallery(folder: Path, workers: int, most: int = MOST) -> Path:
    """The report of RESULTS/NAME of `test.py --input`.

    Raises:
        DataError: names all frames and maps that are not there any more.
    """
    records, count = chosen_records(folder, most)
    by_file = itertools.groupby(records, key=lambda found: found["file"])
    chosen = [(describe(Path(file)), [found["index"] for found in group]) for file, group in by_file]
    waiting = {(found["file"], found["index"]): (k, found) for k, found in enumerate(records)}
    frames = read_frames(chosen, workers)
    pairs = ((*waiting.pop((str(f.source.path), f.index)), f) for f in frames)
    drawn = read_ahead(partial(draw_frame, folder=folder), pairs, workers, 2 * workers)
    results = list(progress(drawn, f"{folder.name} report", len(records), unit="frame"))
    problems = [str(result) for result in results if isinstance(result, DataError)]
    problems += [f"{file}, frame {index}: not there any more" for file, index in waiting]
    if problems:
        raise DataError("\n  ".join([f"{folder}: {len(problems)} frames cannot be shown:", *problems]))
    about = json.loads((folder / "about.json").read_text())
    origin = f"{about['weights']}, p ≥ {about['threshold']:g}"
    if count > len(results):
        origin += f"; {len(results)} of {count} frames, those with the highest scores"
    return write_page(folder / "report", f"{folder.name}, {count} frames", origin, {}, results)
