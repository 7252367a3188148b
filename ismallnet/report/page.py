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
from functools import partial
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError, progress
from ismallnet.datasets.names import printable
from ismallnet.detection.detector import snr_of
from ismallnet.detection.records import read_records
from ismallnet.detection.sources import Frame, describe, read_frames
from ismallnet.evaluation.map_files import read_map
from ismallnet.evaluation.metrics import (
    THRESHOLD,
    count_levels,
    count_pd_fa,
    pd_fa_curve,
    pixel_curves,
    ratio,
    total,
)
from ismallnet.evaluation.protocols import PROTOCOLS, count_hiou, metrics_hiou
from ismallnet.evaluation.tables import LOCALISATION, NAMES, SEGMENTATION, columns, text_of
from ismallnet.files import atomic_write, read_json, read_png, write_png
from ismallnet.images.arrays import RawLayout
from ismallnet.images.grey import to_units
from ismallnet.parallel import read_ahead
from ismallnet.report.outcome import COLOURS, Layers, Outcome, Region, outcome, window_around

TEMPLATE = Path(__file__).parent / "report.html"
LAYERS = (*Layers._fields, "difference")
FRAME_LAYERS = ("image", "prediction", "overlay")
WINDOW = 40  # px of the surface plots
BARS = {  # of the error split, and the shares in them
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


def entry(order: int, name: str, layers: Layers, own: Outcome, others: list[np.ndarray] = ()) -> dict:
    """What the page knows of an image ("page"), and what its sums and other figures are made of.

    Args:
        order: its place in the list.
        own: the outcome of the prediction and the mask.
        others: the predictions of other runs, to be compared.
    """
    grey = layers.image.mean(axis=2)
    splits = [count_hiou(pred, layers.mask) for pred in (layers.prediction, *others)]
    return {
        "page": {
            **common(order, name, own.shape, grey, layers.prediction, own.centre),
            "iou": own.iou,
            "miss": own.count("miss"),
            "false": own.count("false alarm"),
            "targets": [described(target, grey) for target in own.targets],
            "others": [compared(outcome(other, layers.mask)) for other in others],
            "parts": [
                [key for key in CAUSES if counts["pairs" if key == "loc_iou" else key]]
                for counts in splits
            ],
        },
        "name": name,
        "centre": own.centre,
        "empty": own.empty,
        "levels": count_levels(layers.prediction, layers.mask),
        "splits": splits,
        "pd_fa": count_pd_fa(layers.prediction, layers.mask),
    }


def common(
    order: int,
    name: str,
    shape: tuple[int, int],
    grey: np.ndarray,
    pred: np.ndarray,
    centre: tuple[float, float],
) -> dict:
    """What the page knows of any image: its pictures' number, name, size (H, W), and the window around
    a centre (y, x) that is drawn as a surface."""
    facts = {"id": f"{order:05d}", "name": printable(name), "order": order}
    return facts | {"width": shape[1], "height": shape[0], "window": window(grey, pred, centre)}


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


def thresholds(entries: list[dict]) -> list[dict]:
    """IoU, nIoU, Pd and Fa of the set at each of the 33 thresholds, as eval.py defines them."""
    curve = pd_fa_curve(sum(e["pd_fa"] for e in entries))
    levels = np.stack([e["levels"] for e in entries])  # (images, 2, 256)
    for point in curve:
        false, right = levels[:, :, point["threshold"] :].sum(axis=2).T
        unions = levels[:, 1].sum(axis=1) + false  # all target pixels, and what is beside them
        point["iou"] = ratio(int(right.sum()), int(unions.sum()), empty=1.0)
        point["niou"] = float(ratio(right, unions, empty=1.0).mean())
    return curve


def split_rows(entries: list[dict], runs: list[str]) -> list[dict]:
    """hIoU and the error split of each run, for the bars."""
    sums = (total(e["splits"][k] for e in entries) for k in range(len(runs)))
    return [{"name": name, **metrics_hiou(counts)} for name, counts in zip(runs, sums)]


def metrics_table(metrics: dict[str, dict], evaluation: str) -> str:
    """The metrics of eval.py as an HTML table; the command `evaluation` where it has not run."""
    rows = {name: metrics[name] for name in PROTOCOLS if name in metrics}
    if not rows:
        text = html.escape(f"{evaluation} --protocol all")
        return f"<p>None yet: type <code>{text}</code>, then this again.</p>"
    keys = columns(NAMES, rows.values())
    heads = "".join(f"<th scope=col>{html.escape(NAMES[key])}</th>" for key in keys)
    body = "".join(
        f"<tr><th scope=row>{name}</th>{''.join(table_cell(key, row) for key in keys)}</tr>"
        for name, row in rows.items()
    )
    head = f"<thead><tr><th scope=col>protocol</th>{heads}</tr></thead>"
    return f"<table>{head}<tbody>{body}</tbody></table>"


def table_cell(key: str, row: dict) -> str:
    """A metric, and below it its 95 % interval where there is one."""
    if key not in row:
        return "<td>–</td>"
    ends = row.get("interval", {}).get(key)
    below = "–".join(text_of(key, end) for end in ends or ())
    small = f'<br><small class="dim">{below}</small>' if ends else ""
    return f"<td>{text_of(key, row[key])}{small}</td>"


def write_page(
    folder: Path,
    title: str,
    about: str,
    metrics: dict,
    entries: list[dict],
    others: list[str] = (),
    run: str = "",
    evaluation: str = "python eval.py",
) -> Path:
    """index.html beside images/. File names reach the page as JSON alone, and get into it as text.

    Args:
        about: a line on where the maps come from.
        metrics: by protocol, as eval.py wrote them.
        entries: of `entry`, or of frames without masks.
        others: the names of the runs that are compared.
        run: the name of the run that the report is of.
        evaluation: the command that makes the metrics.
    """
    labelled = all("levels" in e for e in entries)
    layers = [[name, name] for name in (LAYERS if labelled else FRAME_LAYERS)]
    for k, other in enumerate(others, start=1):
        layers += [[f"{kind}{k}", f"{kind}, {other}"] for kind in LAYERS[-2:]]
    content = {
        "layers": layers,
        "others": list(others),
        "splits": split_rows(entries, [run, *others]) if labelled else [],
        "bars": [
            [title, [[key, names[key], CAUSES[key]] for key in names]] for title, names in BARS.items()
        ],
        "thresholds": thresholds(entries) if labelled else [],
        "pixels": pixel_curves(sum(e["levels"] for e in entries)) if labelled else [],
        "images": [e["page"] for e in entries],
    }
    texts = {
        "TITLE": html.escape(title),
        "ABOUT": html.escape(about),
        "TABLE": metrics_table(metrics, evaluation),
        "DATA": json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    page = re.sub(r"%%(\w+)%%", lambda match: texts[match[1]], TEMPLATE.read_text(encoding="utf-8"))
    with atomic_write(folder / "index.html") as file:
        file.write(page.encode("utf-8", "replace"))  # names of folders may be anything
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
    records = list(read_records(folder, {}))
    if not records:
        raise DataError(f"{folder}: found no frames of detect.py in it; type python detect.py PATH")

    def rank(k: int) -> tuple[float, int]:
        targets = records[k]["targets"]
        return -(targets[0]["score"] if targets else 0.0), k

    best = sorted(range(len(records)), key=rank)[:most]
    return [records[k] for k in sorted(best)], len(records)


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
    centre = tuple(size // 2 for size in pred.shape)
    for left, top, width, height in (target["box"] for target in found["targets"][:1]):
        centre = top + (height - 1) / 2, left + (width - 1) / 2
    targets = [{key: t[key] for key in ("area", "snr", "score")} for t in found["targets"]]
    page = common(order, name, pred.shape, image.mean(axis=2), pred, centre)
    return {"page": page | {"targets": targets, "others": []}}


def write_gallery(folder: Path, workers: int, most: int = MOST) -> Path:
    """The report of RESULTS/NAME of `detect.py`.

    Raises:
        DataError: names all frames and maps that are not there any more.
    """
    records, count = chosen_records(folder, most)
    about = read_json(folder / "about.json")
    raw = RawLayout(about["raw"]) if about.get("raw") else None
    waiting = {(found["file"], found["index"]): (k, found) for k, found in enumerate(records)}
    sources = [describe(Path(file), raw) for file in dict.fromkeys(file for file, _ in waiting)]
    chosen = set(waiting)
    frames = read_frames(sources, lambda s, index: (str(s.path), index) in chosen, workers)
    pairs = ((*waiting.pop(f.key), f) for f in frames)
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
