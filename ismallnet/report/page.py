"""The report of a test list or of your own frames: RESULTS/NAME/report/index.html, one folder that
opens from disk.

Figures under all protocols, what hIoU loses by cause, a threshold slider, curves, and a gallery of
all images; of frames, which have no masks, the gallery alone. The page is report.html; what it shows
comes from here as JSON, the pictures as PNG beside it.
"""

import base64
import html
import itertools
import json
import re
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError, progress
from ismallnet.detection.detector import snr_of
from ismallnet.detection.records import read_records
from ismallnet.detection.sources import Frame, describe, read_frames
from ismallnet.evaluation.map_files import read_map
from ismallnet.evaluation.metrics import (
    PD_FA_THRESHOLDS,
    THRESHOLD,
    count_levels,
    count_pd_fa,
    pd_fa_curve,
    pixel_curves,
)
from ismallnet.evaluation.protocols import PROTOCOLS, count_hiou, figures_hiou
from ismallnet.evaluation.tables import LOCALISATION, NAMES, SEGMENTATION, columns, shown
from ismallnet.files import atomic_write, read_json, read_png, write_png
from ismallnet.images.arrays import RawLayout
from ismallnet.images.grey import to_units
from ismallnet.parallel import read_ahead
from ismallnet.report.outcome import COLOURS, Layers, Outcome, Region, outcome, window_around

TEMPLATE = Path(__file__).parent / "report.html"
LAYERS = (*Layers._fields, "difference")
FRAME_LAYERS = ("image", "prediction", "overlay")
WINDOW = 40  # px of the surface plots
BARS = {  # of the error split, and what their parts are
    "Segmentation: pixels of the targets that are found": SEGMENTATION,
    "Localisation: targets and components": LOCALISATION,
}
CAUSES = {
    "seg_iou": "pixels that a target and its component share",
    "seg_mrg_err": "pixels of the component that lie on other targets",
    "seg_itf_err": "pixels of the component that lie on no target",
    "seg_pcp_err": "pixels of the target that its component misses",
    "loc_iou": "targets and components that are paired",
    "loc_itf_err": "components that no target is near",
    "loc_pcp_err": "targets that no component is near",
    "loc_m2s_err": "components near a target that has another one",
    "loc_s2m_err": "targets near a component that another one has",
}


def difference(image: np.ndarray, pred: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image, darkened, with what is right in green, missed in red, false in yellow, by pixel."""
    picture = (0.5 * image).astype(np.uint8)
    p, g = pred >= THRESHOLD, mask >= THRESHOLD
    for kind, pixels in (("hit", p & g), ("miss", g & ~p), ("false alarm", p & ~g)):
        picture[pixels] = COLOURS[kind]
    return picture


def entry(order: int, name: str, layers: Layers, found: Outcome, others: list[np.ndarray] = ()) -> dict:
    """What the page knows of an image, and what the figures are summed up from.

    Args:
        order: its place in the list.
        found: of the prediction and the mask.
        others: the predictions of other runs, to be compared.
    """
    grey = layers.image.mean(axis=2)
    levels = count_levels(layers.prediction, layers.mask)
    false, right = (levels[:, ::-1].cumsum(axis=1)[:, ::-1][row] for row in (0, 1))
    splits = [count_hiou(pred, layers.mask) for pred in (layers.prediction, *others)]
    unions = [int(right[0] + false[t]) for t in PD_FA_THRESHOLDS]  # right[0]: all target pixels
    ious = [int(right[t]) / union if union else 1.0 for t, union in zip(PD_FA_THRESHOLDS, unions)]
    return {
        "page": {
            "id": f"{order:05d}",
            "name": name,
            "order": order,
            "width": found.shape[1],
            "height": found.shape[0],
            "iou": found.iou,
            "miss": found.count("miss"),
            "false": found.count("false alarm"),
            "targets": [described(target, grey) for target in found.targets],
            "others": [compared(outcome(other, layers.mask)) for other in others],
            "parts": [occurring(counts) for counts in splits],
            "window": window(grey, layers.prediction, found.centre),
        },
        "centre": found.centre,
        "empty": found.empty,
        "levels": levels,
        "splits": splits,
        "pd_fa": count_pd_fa(layers.prediction, layers.mask),
        "ious": np.array(ious),
    }


def described(target: Region, grey: np.ndarray) -> dict:
    """What the page knows of a target."""
    y, x = np.nonzero(target.pixels)
    top, left = (part.start for part in target.box)
    return {"area": len(y), "snr": snr_of(grey, y + top, x + left), "hit": target.kind == "hit"}


def compared(other: Outcome) -> dict:
    """What the page knows of another run's map: IoU, and which targets it hits."""
    hits = [k for k, target in enumerate(other.targets) if target.kind == "hit"]
    return {"iou": other.iou, "hits": hits, "false": other.count("false alarm")}


def occurring(counts: dict[str, int]) -> list[str]:
    """The parts of the error split that an image adds something to."""
    return [key for key in CAUSES if counts["pairs" if key == "loc_iou" else key]]


def split_figures(entries: list[dict], runs: list[str]) -> list[dict]:
    """hIoU and the error split of each run, for the bars."""
    found = []
    for k, name in enumerate(runs):
        total: Counter = Counter()
        for e in entries:
            total.update(e["splits"][k])
        found.append({"name": name, **figures_hiou(total)})
    return found


def window(grey: np.ndarray, pred: np.ndarray, centre: tuple[float, float]) -> dict:
    """The grey values and the map around a centre (y, x), for the surface plots."""
    near = window_around(centre, pred.shape, WINDOW)
    parts = {"image": grey[near].astype(np.uint8), "prediction": pred[near]}
    packed = {key: base64.b64encode(part.tobytes()).decode() for key, part in parts.items()}
    return packed | {"side": parts["image"].shape[1]}


def write_layers(folder: Path, order: int, layers: Layers, others: list[np.ndarray] = ()) -> None:
    """The pictures of an image, under its number: no name of a file gets into a path or the page's
    addresses. Grey ones are written as grey."""
    image, mask = layers.image, layers.mask
    pictures = layers._asdict() | {"difference": difference(image, layers.prediction, mask)}
    for k, other in enumerate(others, start=1):
        pictures |= {f"prediction{k}": other, f"difference{k}": difference(image, other, mask)}
    write_pictures(folder, order, pictures)


def write_pictures(folder: Path, order: int, pictures: dict[str, np.ndarray]) -> None:
    for name, pixels in pictures.items():
        if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]
        write_png(folder / f"{order:05d}_{name}.png", pixels)


def frame_entry(order: int, found: dict, image: np.ndarray, pred: np.ndarray) -> dict:
    """What the page knows of a frame of one's own, which has no mask.

    Args:
        order: its place among all.
        found: its record (detections.py).
        image, pred: HxWx3 and its probability map HxW, uint8.
    """
    centre = tuple(size // 2 for size in pred.shape)
    for left, top, width, height in (target["box"] for target in found["targets"][:1]):
        centre = top + (height - 1) / 2, left + (width - 1) / 2
    return {
        "page": {
            "id": f"{order:05d}",
            "name": found["frame"],
            "order": order,
            "width": image.shape[1],
            "height": image.shape[0],
            "targets": [{key: t[key] for key in ("area", "snr", "score")} for t in found["targets"]],
            "others": [],
            "window": window(image.mean(axis=2), pred, centre),
        }
    }


def thresholds(entries: list[dict]) -> list[dict]:
    """IoU, nIoU, Pd and Fa of the set at each of the 33 thresholds, as eval.py defines them."""
    levels = sum(e["levels"] for e in entries)
    curve = pd_fa_curve(sum(e["pd_fa"] for e in entries))
    nious = np.mean([e["ious"] for e in entries], axis=0)
    for point, niou in zip(curve, nious.tolist()):
        false, right = (int(row[point["threshold"] :].sum()) for row in levels)
        union = int(levels[1].sum()) + false
        point |= {"iou": right / union if union else 1.0, "niou": niou}
    return curve


def figures_table(figures: dict[str, dict], evaluation: str) -> str:
    """The figures of eval.py as an HTML table; nothing where it has not run."""
    rows = {name: figures[name] for name in PROTOCOLS if name in figures}
    if not rows:
        text = html.escape(f"{evaluation} --protocol all")
        return f"<p>None yet: type <code>{text}</code>, then this again.</p>"
    keys = columns(NAMES, rows.values())
    head = "".join(f"<th scope=col>{html.escape(NAMES[key])}</th>" for key in keys)
    body = "".join(
        f"<tr><th scope=row>{name}</th>"
        + "".join(f"<td>{table_cell(key, row)}</td>" for key in keys)
        + "</tr>"
        for name, row in rows.items()
    )
    head = f"<thead><tr><th scope=col>protocol</th>{head}</tr></thead>"
    return f"<table>{head}<tbody>{body}</tbody></table>"


def table_cell(key: str, figures: dict) -> str:
    """A figure, and below it its 95 % interval where there is one."""
    if key not in figures:
        return "–"
    ends = figures.get("interval", {}).get(key)
    below = (
        f'<br><small class="dim">{"–".join(shown(key, end) for end in ends)}</small>' if ends else ""
    )
    return shown(key, figures[key]) + below


def write_page(
    folder: Path,
    title: str,
    about: str,
    figures: dict,
    entries: list[dict],
    others: list[str] = (),
    run: str = "",
    evaluation: str = "python eval.py",
) -> Path:
    """index.html beside images/. File names reach the page as JSON alone, and get into it as text.

    Args:
        about: a line on where the maps come from.
        figures: by protocol, as eval.py wrote them.
        entries: of `entry`, or of `frame_entry`.
        others: the names of the runs that are compared.
        run: the name of the run that the report is of.
        evaluation: the command that makes the figures.
    """
    labelled = all("levels" in e for e in entries)
    layers = [[name, name] for name in (LAYERS if labelled else FRAME_LAYERS)]
    for k, other in enumerate(others, start=1):
        layers += [[f"{kind}{k}", f"{kind}, {other}"] for kind in LAYERS[-2:]]
    content = {
        "layers": layers,
        "others": list(others),
        "splits": split_figures(entries, [run, *others]) if labelled else [],
        "bars": [
            [title, [[key, parts[key], CAUSES[key]] for key in parts]] for title, parts in BARS.items()
        ],
        "thresholds": thresholds(entries) if labelled else [],
        "pixels": pixel_curves(sum(e["levels"] for e in entries)) if labelled else [],
        "images": [e["page"] for e in entries],
    }
    parts = {
        "TITLE": html.escape(title),
        "ABOUT": html.escape(about),
        "TABLE": figures_table(figures, evaluation),
        "DATA": json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"),
    }
    page = re.sub(r"%%(\w+)%%", lambda found: parts[found[1]], TEMPLATE.read_text(encoding="utf-8"))
    with atomic_write(folder / "index.html") as file:
        file.write(page.encode())
    known = {e["page"]["id"] for e in entries}
    for path in (folder / "images").glob("*.png"):  # of a longer list before
        if path.name.split("_")[0] not in known:
            path.unlink()
    return folder / "index.html"


# --- your own frames --------------------------------------------------------------------------------


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
        raise DataError(f"{folder}: found no frames of detect.py in it; type python detect.py PATH")
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
        return DataError(f"{problem}; the frames must lie where detect.py found them")
    try:
        pred = read_map(folder / "maps" / f"{name}.png", frame.pixels.shape[:2])
    except DataError as error:
        return error
    overlay = read_png(folder / "overlays" / f"{name}.png")
    image = np.ascontiguousarray(to_units(frame.pixels, found["range"]).astype(np.uint8))
    pictures = {"image": image, "prediction": pred}
    pictures["overlay"] = image if overlay is None else overlay
    write_pictures(folder / "report" / "images", order, pictures)
    return frame_entry(order, found, image, pred)


def write_gallery(folder: Path, workers: int, most: int = MOST) -> Path:
    """The report of RESULTS/NAME of `detect.py`.

    Raises:
        DataError: names all frames and maps that are not there any more.
    """
    records, count = chosen_records(folder, most)
    about = read_json(folder / "about.json")
    raw = RawLayout(about["raw"]) if about.get("raw") else None
    by_file = itertools.groupby(records, key=lambda found: found["file"])
    chosen = [(describe(Path(f), raw), [found["index"] for found in group]) for f, group in by_file]
    waiting = {(found["file"], found["index"]): (k, found) for k, found in enumerate(records)}
    frames = read_frames(chosen, workers)
    pairs = ((*waiting.pop((str(f.source.path), f.index)), f) for f in frames)
    drawn = read_ahead(partial(draw_frame, folder=folder), pairs, workers, 2 * workers)
    results = list(progress(drawn, f"{folder.name} report", len(records), unit="frame"))
    problems = [str(result) for result in results if isinstance(result, DataError)]
    problems += [f"{file}, frame {index}: not there any more" for file, index in waiting]
    if problems:
        raise DataError("\n  ".join([f"{folder}: {len(problems)} frames cannot be shown:", *problems]))
    origin = f"{about.get('weights', 'unknown weights')}, p ≥ {about.get('threshold', 0.5):g}"
    if count > len(results):
        origin += f"; {len(results)} of {count} frames, those with the highest scores"
    return write_page(folder / "report", f"{folder.name}, {count} frames", origin, {}, results)
