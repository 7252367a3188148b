"""The report of a test list or of your own frames: RESULTS/NAME/report/index.html, one folder that
opens from disk.

Metrics under all protocols, what hIoU loses by cause, a threshold slider, curves, and a gallery of
all images, of one run or of several; of frames, which have no masks, the gallery alone. The page is
report.html; what it shows comes from here as JSON, the pictures as PNG beside it.
"""

import base64
import html
import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ismallnet.cli import DataError, counted, progress
from ismallnet.detection.detector import snr_of
from ismallnet.detection.records import read_records
from ismallnet.detection.sources import Frame, read_frames, source_of
from ismallnet.evaluation import metrics
from ismallnet.evaluation.map_files import Maps, read_map
from ismallnet.evaluation.protocols import PROTOCOLS, count_hiou, metrics_hiou
from ismallnet.evaluation.tables import LOCALISATION, NAMES, SEGMENTATION, cells_of
from ismallnet.files import atomic_write, printable, read_json, read_png, write_png
from ismallnet.images.grey import to_units
from ismallnet.parallel import read_ahead, result_or_error
from ismallnet.report.outcome import COLOURS, Layers, Outcome, Region, outcome, window_around

TEMPLATE = Path(__file__).parent / "report.html"
LAYERS = (*Layers._fields, "difference")  # of images with masks
FRAME_LAYERS = ("image", "prediction", "overlay")
WINDOW = 40  # px of the surface plots
MOST = 1000  # frames in a report; a browser shows them all at once


class ShownRun(NamedTuple):
    """A run in the report: its name, its maps, the folder where eval.py wrote, its metrics by protocol,
    {} where there are none of these maps, and the command that makes them."""

    name: str
    maps: Maps
    folder: Path
    metrics: dict[str, dict]
    evaluation: str


class Counts(NamedTuple):
    """What an image adds to a run's curves and error split."""

    levels: np.ndarray
    pd_fa: np.ndarray
    split: dict


class Entry(NamedTuple):
    """What the page knows of an image; what each run's sums are made of; the (y, x) of the worst that
    became of it, and whether there is neither target nor prediction. Of frames the first alone."""

    page: dict
    counts: Sequence[Counts] = ()
    centre: tuple[float, float] = (0, 0)
    empty: bool = False


# --- an image ----------------------------------------------------------------------------------------


def entry_of(
    order: int, name: str, layers: Layers, own: Outcome, others: Sequence[np.ndarray] = ()
) -> Entry:
    """
    Args:
        order: its place in the list.
        own: the outcome of the prediction and the mask.
        others: the predictions of other runs, to be compared.
    """
    grey, mask = layers.image.mean(axis=2), layers.mask
    count = metrics.count_levels, metrics.count_pd_fa, count_hiou
    counts = [Counts(*(c(pred, mask) for c in count)) for pred in (layers.prediction, *others)]
    keys = SEGMENTATION | LOCALISATION
    parts = [[k for k in keys if n.split["pairs" if k == "loc_iou" else k]] for n in counts]
    page = {
        **common(order, name, grey, layers.prediction, own.centre),
        "iou": own.iou,
        "miss": own.count("miss"),
        "false": own.count("false alarm"),
        "targets": [described(target, grey) for target in own.targets],
        "others": [compared(outcome(other, mask)) for other in others],
        "parts": parts,
    }
    return Entry(page, counts, own.centre, own.empty)


def common(
    order: int, name: str, grey: np.ndarray, pred: np.ndarray, centre: tuple[float, float]
) -> dict:
    """What the page knows of any image: its pictures' number, name, size, and the window around a
    centre (y, x) that is drawn as a surface."""
    height, width = pred.shape
    facts = {"id": f"{order:05d}", "name": printable(name), "order": order}
    return facts | {"width": width, "height": height, "window": window(grey, pred, centre)}


def described(target: Region, grey: np.ndarray) -> dict:
    """What the page knows of a target."""
    y, x = np.nonzero(target.pixels)
    top, left = (side.start for side in target.box)
    return {"area": len(y), "snr": snr_of(grey, y + top, x + left), "hit": target.kind == "hit"}


def compared(other: Outcome) -> dict:
    """What the page knows of another run's map: IoU, and which targets it hits."""
    hits = [k for k, target in enumerate(other.targets) if target.kind == "hit"]
    return {"iou": other.iou, "hits": hits, "false": other.count("false alarm")}


def window(grey: np.ndarray, pred: np.ndarray, centre: tuple[float, float]) -> dict:
    """The grey values and the map around a centre (y, x), for the surface plots."""
    near = window_around(centre, pred.shape, WINDOW)
    cuts = {"image": grey[near].astype(np.uint8), "prediction": pred[near]}
    packed = {key: base64.b64encode(cut.tobytes()).decode() for key, cut in cuts.items()}
    return packed | {"side": cuts["image"].shape[1]}


def difference(image: np.ndarray, pred: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image, darkened, with what is right in green, missed in red, false in yellow, by pixel."""
    picture = (0.5 * image).astype(np.uint8)
    p, g = pred >= metrics.THRESHOLD, mask >= metrics.THRESHOLD
    for kind, pixels in (("hit", p & g), ("miss", g & ~p), ("false alarm", p & ~g)):
        picture[pixels] = COLOURS[kind]
    return picture


def write_layers(folder: Path, order: int, layers: Layers, others: Sequence[np.ndarray]) -> None:
    """The pictures of an image, under its number: no name of a file gets into a path or the page's
    addresses."""
    pictures = layers._asdict()
    for k, pred in enumerate((layers.prediction, *others)):
        number = k or ""
        pictures |= {f"prediction{number}": pred}
        pictures |= {f"difference{number}": difference(layers.image, pred, layers.mask)}
    write_pictures(folder, order, pictures)


def write_pictures(folder: Path, order: int, pictures: dict[str, np.ndarray]) -> None:
    """Grey ones are written as grey."""
    for name, pixels in pictures.items():
        if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]
        write_png(folder / f"{order:05d}_{name}.png", pixels)


# --- the page ----------------------------------------------------------------------------------------


def thresholds(counts: list[Counts]) -> list[dict]:
    """IoU, nIoU, Pd and Fa of a run at each of the 33 thresholds, as eval.py defines them."""
    curve = metrics.pd_fa_curve(sum(n.pd_fa for n in counts))
    levels = np.stack([n.levels for n in counts])  # (images, 2, 256)
    for point in curve:
        false, right = levels[:, :, point["threshold"] :].sum(axis=2).T
        unions = levels[:, 1].sum(axis=1) + false  # all target pixels, and what is beside them
        point["iou"] = metrics.ratio(int(right.sum()), int(unions.sum()), empty=1.0)
        point["niou"] = float(metrics.ratio(right, unions, empty=1.0).mean())
    return curve


def run_content(name: str, counts: list[Counts]) -> dict:
    """What the page knows of a run: its curves, hIoU and the error split."""
    return {
        "name": name,
        "thresholds": thresholds(counts),
        "pixels": metrics.pixel_curves(sum(n.levels for n in counts)),
        "split": metrics_hiou(metrics.total(n.split for n in counts)),
    }


def metrics_html(runs: list[ShownRun]) -> str:
    """The metrics of eval.py, `standard` first and the others folded; for runs without metrics the
    command that makes them."""
    first, *others = PROTOCOLS
    text = metrics_table(runs, [first])
    if folded := metrics_table(runs, others):
        names = ", ".join(others)
        text += f"<details><summary>other protocols: {names}</summary>{folded}</details>"
    for run in runs:
        if not run.metrics:
            command = f"<code>{html.escape(run.evaluation)} --protocol all</code>"
            text += f"<p>{html.escape(run.name)}: no metrics yet; type {command}, then this again.</p>"
    return text


def metrics_table(runs: list[ShownRun], protocols: list[str]) -> str:
    """A row for each protocol and run, each metric's interval below it; "" where there is none."""
    rows = {
        f"{protocol}, {run.name}" if len(runs) > 1 else protocol: run.metrics[protocol]
        for protocol in protocols
        for run in runs
        if protocol in run.metrics
    }
    if not rows:
        return ""
    (_, *names), *lines = cells_of(NAMES, rows)
    table = "<tr><th></th>" + "".join(f"<th scope=col>{html.escape(name)}</th>" for name in names)
    for name, *texts in lines:
        table += f"<tr><th scope=row>{html.escape(name)}</th>"
        for value, _, interval in (text.partition(" ") for text in texts):
            table += f'<td>{value}<br><small class="dim">{interval}</small></td>'
    return f'<div class="wide" tabindex="0"><table>{table}</table></div>'


def training_html(folder: Path) -> str:
    if not (folder.parent / "training.png").exists():
        return ""
    picture = '<img src="../training.png" alt="Loss and metrics by epoch" style="max-width: 100%">'
    return f"<details><summary>training</summary>{picture}</details>"


def write_page(
    folder: Path, title: str, about: str, entries: list[Entry], runs: Sequence[ShownRun] = ()
) -> Path:
    """index.html beside images/. File names reach the page as JSON alone, and get into it as text.

    Args:
        about: a line on where the maps come from.
        runs: the one that the report is of, and those that are compared; none of frames.
    """
    layers = [[name, name] for name in (LAYERS if runs else FRAME_LAYERS)]
    for k, other in enumerate(runs[1:], start=1):
        layers += [[f"{kind}{k}", f"{kind}, {other.name}"] for kind in LAYERS[-2:]]
    pages, counts = [e.page for e in entries], zip(*(e.counts for e in entries))
    content = {
        "layers": layers,
        "runs": [run_content(run.name, list(of_run)) for run, of_run in zip(runs, counts)],
        "bars": [list(names.items()) for names in (SEGMENTATION, LOCALISATION)],  # of the error split
        "images": pages,
    }
    kind = "images" if runs else "frames"
    targets = sum(len(page["targets"]) for page in pages)
    colours = {kind.split()[0].upper(): f"rgb{colour}" for kind, colour in COLOURS.items()}
    texts = colours | {
        "TITLE": html.escape(title),
        "ABOUT": html.escape(f"{len(pages)} {kind}, {targets} targets · {about}"),
        "TABLE": metrics_html(runs) + training_html(folder) if runs else "",
        "DATA": json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    page = re.sub(r"%%(\w+)%%", lambda match: texts[match[1]], TEMPLATE.read_text(encoding="utf-8"))
    with atomic_write(folder / "index.html") as file:
        file.write(page.encode("utf-8", "replace"))  # names of folders may be anything
    known = {page["id"] for page in pages}
    for path in (folder / "images").glob("*.png"):  # of a longer list before
        if path.name.split("_")[0] not in known:
            path.unlink()
    return folder / "index.html"


# --- your own frames --------------------------------------------------------------------------------


def chosen_records(folder: Path, most: int) -> tuple[list[dict], int]:
    """The records of at most so many frames, in order: those whose best targets have the highest
    scores; and the number of all."""
    records = list(read_records(folder))
    if not records:
        raise DataError(f"{folder}: found no frames of detect.py in it; type python detect.py PATH")
    scores = [max((t["score"] for t in record["targets"]), default=0.0) for record in records]
    best = sorted(range(len(records)), key=lambda k: (-scores[k], k))[:most]
    return [records[k] for k in sorted(best)], len(records)


def draw_frame(numbered: tuple[int, dict, Frame], folder: Path) -> Entry:
    """Writes a frame's pictures for the report."""
    order, found, frame = numbered
    name = found["frame"]
    if frame.pixels is None or frame.pixels.shape[:2] != (found["height"], found["width"]):
        problem = frame.problem or f"{found['file']}: found {frame.pixels.shape}"
        raise DataError(f"{problem}; the frames must lie where detect.py found them")
    pred = read_map(folder / "maps" / f"{name}.png", frame.pixels.shape[:2])
    overlay = read_png(folder / "overlays" / f"{name}.png")
    image = np.ascontiguousarray(to_units(frame.pixels, found["range"]).astype(np.uint8))
    pictures = {"image": image, "prediction": pred, "overlay": image if overlay is None else overlay}
    write_pictures(folder / "report" / "images", order, pictures)
    centre = tuple(size // 2 for size in pred.shape)
    for left, top, width, height in (target["box"] for target in found["targets"][:1]):
        centre = top + (height - 1) / 2, left + (width - 1) / 2
    targets = [{key: t[key] for key in ("area", "snr", "score")} for t in found["targets"]]
    page = common(order, name, image.mean(axis=2), pred, centre)
    return Entry(page | {"targets": targets, "others": []})


def write_gallery(folder: Path, workers: int, most: int = MOST) -> Path:
    """The report of RESULTS/NAME of `detect.py`.

    Raises:
        DataError: names all frames and maps that are not there any more.
    """
    records, count = chosen_records(folder, most)
    about = read_json(folder / "about.json")
    waiting = {(found["file"], found["index"]): (k, found) for k, found in enumerate(records)}
    sources = [source_of(Path(file)) for file in dict.fromkeys(file for file, _ in waiting)]
    chosen = set(waiting)
    frames = read_frames(sources, lambda s, index: (str(s.path), index) in chosen, workers)
    pairs = ((*waiting.pop(f.key), f) for f in frames)
    draw = partial(result_or_error, partial(draw_frame, folder=folder))
    drawn = read_ahead(draw, pairs, workers, 2 * workers)
    results = list(progress(drawn, f"{folder.name} report", len(records), unit="frame"))
    problems = [str(result) for result in results if isinstance(result, DataError)]
    problems += [f"{file}, frame {index}: not there any more" for file, index in waiting]
    if problems:
        raise DataError(
            "\n  ".join([f"{folder}: {counted(len(problems), 'frame')} cannot be shown:", *problems])
        )
    origin = f"{about.get('weights', 'unknown weights')}, p ≥ {about.get('threshold', 0.5):g}"
    if count > len(results):
        origin += f"; {len(results)} of {count} frames, those with the highest scores"
    return write_page(folder / "report", f"{folder.name}, {counted(count, 'frame')}", origin, results)
