"""The report of a test list or of your own frames: RESULTS/NAME/report/index.html, one folder that
opens from disk.

Metrics under all protocols, what hIoU loses by cause, a threshold slider, curves, and a gallery of
all images; of frames, which have no masks, the gallery alone. The page is report.html; what it shows
comes from here as JSON, the pictures as PNG beside it.
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

from ismallnet.cli import DataError, counted
from ismallnet.detection.detector import snr_of
from ismallnet.detection.records import read_records
from ismallnet.evaluation import metrics
from ismallnet.evaluation.protocols import count_hiou, metrics_hiou
from ismallnet.evaluation.tables import LOCALISATION, NAMES, SEGMENTATION, cells_of
from ismallnet.files import atomic_write, printable, read_json, write_png
from ismallnet.images.picture import decode
from ismallnet.parallel import results_and_problems
from ismallnet.report.outcome import COLOURS, Layers, Outcome, Region, window_around

TEMPLATE = Path(__file__).parent / "report.html"
LAYERS = (*Layers._fields, "difference")  # of images with masks
FRAME_LAYERS = ("overlay", "prediction")
WINDOW = 40  # px of the surface plots
MOST = 1000  # frames in a report; a browser shows them all at once


class Counts(NamedTuple):
    """What an image adds to the curves and the error split."""

    levels: np.ndarray
    pd_fa: np.ndarray
    split: dict


class Entry(NamedTuple):
    """What the page knows of an image with a mask, and what the sums are made of."""

    page: dict
    counts: Counts


# --- an image ----------------------------------------------------------------------------------------


def entry_of(order: int, name: str, layers: Layers, own: Outcome) -> Entry:
    """
    Args:
        order: its place in the list.
        own: the outcome of the prediction and the mask.
    """
    grey, (_, mask, *_, pred) = layers.image.mean(axis=2), layers
    counted_here = metrics.count_levels, metrics.count_pd_fa, count_hiou
    counts = Counts(*(count(pred, mask) for count in counted_here))
    page = {
        **common(order, name, own.centre, image=grey.astype(np.uint8), prediction=pred),
        "iou": own.iou,
        "miss": own.count("miss"),
        "false": own.count("false alarm"),
        "targets": [described(target, grey) for target in own.targets],
        "parts": [
            key
            for key in SEGMENTATION | LOCALISATION
            if counts.split["pairs" if key == "loc_iou" else key]
        ],
    }
    return Entry(page, counts)


def common(order: int, name: str, centre: tuple[float, float], **planes: np.ndarray) -> dict:
    """What the page knows of any image: its pictures' number, name, size, and what lies around a
    centre (y, x) of planes, HxW uint8, which are drawn as surfaces."""
    height, width = planes["prediction"].shape
    near = window_around(centre, (height, width), WINDOW)
    cuts = {key: base64.b64encode(plane[near].tobytes()).decode() for key, plane in planes.items()}
    facts = {"id": f"{order:05d}", "name": printable(name), "order": order}
    facts |= {"width": width, "height": height}
    return facts | {"window": cuts | {"side": near[1].stop - near[1].start}}


def described(target: Region, grey: np.ndarray) -> dict:
    """What the page knows of a target."""
    y, x = np.nonzero(target.pixels)
    top, left = (side.start for side in target.box)
    return {"area": len(y), "snr": snr_of(grey, y + top, x + left), "hit": target.kind == "hit"}


def difference(image: np.ndarray, pred: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image, darkened, with what is right in green, missed in red, false in yellow, by pixel."""
    picture = (0.5 * image).astype(np.uint8)
    p, g = pred >= metrics.THRESHOLD, mask >= metrics.THRESHOLD
    for kind, pixels in (("hit", p & g), ("miss", g & ~p), ("false alarm", p & ~g)):
        picture[pixels] = COLOURS[kind]
    return picture


def write_layers(folder: Path, order: int, layers: Layers) -> None:
    """The pictures of an image with a mask."""
    shown = difference(layers.image, layers.prediction, layers.mask)
    write_pictures(folder, order, layers._asdict() | {"difference": shown})


def write_pictures(folder: Path, order: int, pictures: dict[str, np.ndarray]) -> None:
    """The pictures of an image, under its number: no name of a file gets into a path or the page's
    addresses. Grey ones are written as grey."""
    for name, pixels in pictures.items():
        if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]
        write_png(folder / f"{order:05d}_{name}.png", pixels)


# --- the page ----------------------------------------------------------------------------------------


def thresholds(counts: list[Counts]) -> list[dict]:
    """IoU, nIoU, Pd and Fa at each of the 33 thresholds, as eval.py defines them."""
    curve = metrics.pd_fa_curve(sum(n.pd_fa for n in counts))
    levels = np.stack([n.levels for n in counts])  # (images, 2, 256)
    for point in curve:
        false, right = levels[:, :, point["threshold"] :].sum(axis=2).T
        unions = levels[:, 1].sum(axis=1) + false  # all target pixels, and what is beside them
        point["iou"] = metrics.ratio(int(right.sum()), int(unions.sum()), empty=1.0)
        point["niou"] = float(metrics.ratio(right, unions, empty=1.0).mean())
    return curve


def metrics_table(rows: dict[str, dict]) -> str:
    """A row for each protocol, each metric's interval below it; "" where there is none."""
    if not rows:
        return ""
    (_, *names), *lines = cells_of(NAMES, rows)
    table = "<tr><th></th>" + "".join(f"<th scope=col>{html.escape(name)}</th>" for name in names)
    for name, *texts in lines:
        table += f"<tr><th scope=row>{html.escape(name)}</th>"
        for value, _, interval in (text.partition(" ") for text in texts):
            table += f'<td>{value}<br><small class="dim">{interval}</small></td>'
    return f'<div class="wide" tabindex="0"><table>{table}</table></div>'


def write_report(
    folder: Path, title: str, about: str, entries: Sequence[Entry], rows: dict[str, dict]
) -> Path:
    """The report of images with masks.

    Args:
        rows: the metrics of eval.py, by protocol.
    """
    counts = [entry.counts for entry in entries]
    content = {
        "layers": LAYERS,
        "thresholds": thresholds(counts),
        "pixels": metrics.pixel_curves(sum(n.levels for n in counts)),
        "split": metrics_hiou(metrics.total(n.split for n in counts)),
        "bars": [list(names.items()) for names in (SEGMENTATION, LOCALISATION)],  # of the error split
    }
    pages = [entry.page for entry in entries]
    return write_page(folder, title, about, content | {"images": pages}, metrics_table(rows))


def write_page(folder: Path, title: str, about: str, content: dict, table: str = "") -> Path:
    """index.html beside images/. File names reach the page as JSON alone, and get into it as text.

    Args:
        about: a line on where the maps come from.
    """
    pages = content["images"]
    targets = sum(len(page["targets"]) for page in pages)
    texts = {kind.split()[0].upper(): f"rgb{colour}" for kind, colour in COLOURS.items()} | {
        "TITLE": html.escape(title),
        "ABOUT": html.escape(f"{counted(len(pages), 'image')}, {counted(targets, 'target')} · {about}"),
        "TABLE": table,
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


def draw_frame(numbered: tuple[int, dict], folder: Path) -> dict:
    """Writes a frame's pictures for the report, of those that detect.py wrote."""
    order, record = numbered
    name = f"{record['frame']}.png"
    overlay, pred = decode(folder / "overlays" / name), decode(folder / "maps" / name)
    write_pictures(folder / "report" / "images", order, {"overlay": overlay, "prediction": pred})
    whole = 0, 0, *pred.shape[::-1]
    left, top, width, height = record["targets"][0]["box"] if record["targets"] else whole
    centre = top + (height - 1) / 2, left + (width - 1) / 2
    targets = [{key: t[key] for key in ("area", "snr", "score")} for t in record["targets"]]
    return common(order, record["frame"], centre, prediction=pred) | {"targets": targets}


def write_gallery(folder: Path, workers: int, most: int = MOST) -> Path:
    """The report of RESULTS/NAME of `detect.py`: of many frames those with the highest scores.

    Raises:
        DataError: names all frames whose pictures are not there any more.
    """
    records, about = list(read_records(folder)), read_json(folder / "about.json")
    if not records:
        raise DataError(f"{folder}: found no frames of detect.py in it; type python detect.py PATH")
    scores = [max((t["score"] for t in record["targets"]), default=0.0) for record in records]
    best = sorted(range(len(records)), key=lambda k: -scores[k])[:most]
    shown = [records[k] for k in sorted(best)]
    draw, numbered = partial(draw_frame, folder=folder), list(enumerate(shown))
    pages, problems = results_and_problems(draw, numbered, workers, f"{folder.name} report", "frame")
    if problems:
        said = f"{folder}: {counted(len(problems), 'frame')} cannot be shown:"
        raise DataError("\n  ".join([said, *problems]))
    origin = f"{about.get('weights', 'unknown weights')}, p ≥ {about.get('threshold', 0.5):g}"
    if len(records) > len(shown):
        origin += f"; {len(shown)} of {len(records)} frames, those with the highest scores"
    title = f"{folder.name}, {counted(len(records), 'frame')}"
    return write_page(folder / "report", title, origin, {"layers": FRAME_LAYERS, "images": pages})
