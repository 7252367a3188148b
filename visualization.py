"""Figures: what a network found, image by image, and its curves.

    python visualization.py --dataset NUAA-SIRST

For each test image a panel RESULTS/NAME/figures/X.png: image, mask, interior and boundary map,
prediction, and the outcome by component (hits green, misses red, false alarms yellow), with a zoom
below. Then montage.png (worst and best images), roc.png, precision_recall.png, pd_fa.png and, where
the maps come from a run of train.py, training.png and training_loss.png; and report/index.html
(report.py), which shows all of it in a browser. After `test.py --input`, with the same --input or
--name, the report alone.
"""

import argparse
import csv
import json
import os
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from cli import DataError, HelpFormatter, atomic_write, command, in_processes, progress
from dataset import (
    add_data_arguments,
    check_finished,
    complaint,
    maps_folder,
    open_datasets,
    read_about,
    read_map,
    read_maps,
    read_mask,
)
from figures import panels, surfaces
from gallery import write_gallery
from images import read_image
from layouts import DatasetFolder, Sample
from metrics import NAMES, PROTOCOLS, THRESHOLD, count_standard, table
from report import COLOURS, entry, outcome, write_layers, write_page
from stream import results_folder

SIDE = 320  # px of a panel's cell
ZOOM = 40  # px of the image in the zoomed row
CAPTION = 26  # px
TITLES = ("image", "mask", "interior", "boundary", "prediction", "outcome")


def cell(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Grey or RGB pixels as an RGB picture of (width, height), every pixel a sharp square."""
    rgb = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels
    return cv2.resize(np.ascontiguousarray(rgb), size, interpolation=cv2.INTER_NEAREST)


def caption(text: str, width: int, scale: float = 0.5, colour=(255, 255, 255)) -> np.ndarray:
    strip = np.zeros((CAPTION, width, 3), np.uint8)
    cv2.putText(strip, text, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
    return strip


def draw_outcome(image: np.ndarray, regions: list, scale: float) -> np.ndarray:
    """The image, enlarged, with each component's pixels tinted and a frame around it."""
    h, w = image.shape[:2]
    tinted = image.copy()
    for kind, region in regions:
        tinted[region] = (0.4 * tinted[region] + 0.6 * np.array(COLOURS[kind])).astype(np.uint8)
    picture = cell(tinted, (max(1, round(w * scale)), max(1, round(h * scale))))
    for kind, region in regions:
        y, x = np.nonzero(region)
        gap = max(3 * scale, 4)
        start = (round(x.min() * scale - gap), round(y.min() * scale - gap))
        end = (round((x.max() + 1) * scale + gap), round((y.max() + 1) * scale + gap))
        cv2.rectangle(picture, start, end, COLOURS[kind], 2)
    return picture


def panel(name: str, planes: list[np.ndarray], pred: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The panel of one image, RGB uint8: a row of whole pictures, a row of zooms, a legend.

    Args:
        planes: image (HxWx3) and then the HxW maps to show, prediction last.
    """
    regions = outcome(pred, mask)
    image = planes[0]
    h, w = image.shape[:2]
    scale = SIDE / max(h, w)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    worst = sorted(regions, key=lambda r: ("miss", "false alarm", "hit").index(r[0]))
    y, x = np.nonzero(worst[0][1]) if worst else (np.array([h // 2]), np.array([w // 2]))
    top = int(np.clip(y.mean() - ZOOM / 2, 0, max(h - ZOOM, 0)))
    left = int(np.clip(x.mean() - ZOOM / 2, 0, max(w - ZOOM, 0)))
    window = (slice(top, top + ZOOM), slice(left, left + ZOOM))
    zh, zw = image[window].shape[:2]
    zoom = min(size[0] / zw, size[1] / zh)
    zoomed = (max(1, round(zw * zoom)), max(1, round(zh * zoom)))
    cut = [(kind, region[window]) for kind, region in regions if region[window].any()]
    close = image[window].astype(np.float32)  # dim targets show in the zoom: its contrast is stretched
    close = ((close - close.min()) * (255 / max(np.ptp(close), 1))).astype(np.uint8)
    columns = []
    for title, plane in zip(TITLES, [*planes, None]):
        whole = draw_outcome(image, regions, scale) if plane is None else cell(plane, size)
        near = (
            draw_outcome(close, cut, zoom)
            if plane is None
            else cell(close if plane is image else plane[window], zoomed)
        )
        near = np.pad(near, [(0, size[1] - near.shape[0]), (0, size[0] - near.shape[1]), (0, 0)])
        if plane is None:
            corner = (round(left * scale), round(top * scale))
            end = (round((left + zw) * scale) - 1, round((top + zh) * scale) - 1)
            cv2.rectangle(whole, corner, end, (255, 255, 255), 1)
        column = np.vstack([caption(title, size[0]), whole, np.zeros((4, size[0], 3), np.uint8), near])
        columns += [column, np.full((column.shape[0], 4, 3), 40, np.uint8)]
    picture = np.hstack(columns[:-1])
    n = {kind: sum(k == kind for k, _ in regions) for kind in COLOURS}
    counts = count_standard(pred, mask)
    union = counts["tp"] + counts["fp"] + counts["fn"]
    iou = f"IoU {100 * counts['tp'] / union:.1f}" if union else "nothing to find, nothing found"
    head = caption(
        f"{name}   {w}x{h}   {iou}   zoom: {zw}x{zh} px, contrast stretched", picture.shape[1]
    )
    foot, at = caption("", picture.shape[1]), 4
    legend = [(f"{kind}: {n[kind]}", colour) for kind, colour in COLOURS.items()]
    for text, colour in [*legend, ("white frame: zoom", (255, 255, 255))]:
        cv2.putText(foot, text, (at, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
        at += 12 * len(text)
    return np.vstack([head, picture, foot])


def draw(
    numbered: tuple[int, Sample], maps: Path, labels: Path, folder: Path, args
) -> tuple[tuple, dict] | DataError:
    """Writes a sample's panel, and its layers for the report; returns (name, tp, union), and what
    the report knows of it."""
    order, sample = numbered
    try:
        image = read_image(sample.image, args.range).astype(np.uint8)
        shape = image.shape[:2]
        pred = read_map(maps / f"{sample.name}.png", shape)
        mask = read_mask(sample, shape, args.mask_threshold)
        parts = read_maps(labels, sample, shape)
        others = [read_map(other / f"{sample.name}.png", shape) for other in args.compare]
    except DataError as error:
        return error
    picture = panel(sample.name, [image, mask, *parts, pred], pred, mask)
    layers = [image, mask, *parts, pred]
    write_layers(maps / "report" / "images", order, layers, others)
    with atomic_write(folder / f"{sample.name}.png") as file:
        file.write(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
    n = count_standard(pred, mask)
    row = sample.name, n["tp"], n["tp"] + n["fp"] + n["fn"]
    return row, entry(order, sample.name, layers, others)


def montage(folder: Path, rows: list[tuple], each: int) -> None:
    """The worst and the best images by IoU, one panel below the other, at half size."""
    ranked = sorted((r for r in rows if r[2]), key=lambda r: (r[1] / r[2], r[0]))
    worst, best = ranked[:each], ranked[max(len(ranked) - each, each) :][::-1]
    strips = []
    for title, group in ((f"{len(worst)} worst by IoU", worst), (f"{len(best)} best by IoU", best)):
        pictures = [cv2.imread(str(folder / f"{row[0]}.png"))[..., ::-1] for row in group]
        if pictures:
            half = {"dsize": None, "fx": 0.5, "fy": 0.5, "interpolation": cv2.INTER_AREA}
            strips += [title, *(cv2.resize(p, **half) for p in pictures)]
    if not strips:
        return
    width = max(s.shape[1] for s in strips if not isinstance(s, str))
    stack = []
    for s in strips:
        s = caption(s, width, 0.6) if isinstance(s, str) else s
        stack.append(np.pad(s, ((0, 6), (0, width - s.shape[1]), (0, 0))))
    with atomic_write(folder.parent / "montage.png") as file:
        file.write(cv2.imencode(".png", np.vstack(stack)[..., ::-1])[1].tobytes())


# --- curves --------------------------------------------------------------------------------------


def read_points(path: Path) -> list[dict[str, float]]:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) if v else float("nan") for k, v in row.items()} for row in rows]


def plot(path: Path, title: str, x: str, y: str, lines: list[tuple], log: bool = False) -> None:
    """A line plot as PNG; `lines` holds (xs, ys, label, operating point's index or None)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.2, 4.2), dpi=150)
    for xs, ys, name, point in lines:
        marker = "o" if len(xs) < 40 and point is None else None  # few points, or a single one
        (line,) = axes.plot(xs, ys, label=name, linewidth=1.5, marker=marker, markersize=3)
        if point is not None:
            where = "threshold 128 (p ≥ 0.5)"
            axes.plot(xs[point], ys[point], "o", color=line.get_color(), label=where)
    if log:
        axes.set_xscale("log")
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
    pyplot.close(figure)


def draw_curves(name: str, maps: Path, figures: dict) -> list[str]:
    """ROC, precision-recall and Pd-Fa from what eval.py wrote, training from the run's metrics;
    returns a note for each that there is nothing to draw from.

    Args:
        figures: of eval.py, of these maps; nothing where there are none.
    """
    notes = []
    for curve in ("roc", "precision_recall", "pd_fa"):
        (maps / f"{curve}.png").unlink(missing_ok=True)
    try:
        if not figures:
            raise ValueError("the points are of other maps, or not there")
        points = read_points(maps / "metrics_roc_pr.csv")
        at = [int(p["threshold"]) for p in points].index(THRESHOLD)
        fpr, tpr = ([p[k] for p in points] for k in ("fpr", "tpr"))
        plot(maps / "roc.png", f"{name}: ROC (pixels)", "false positive rate", "true positive rate",
             [(fpr, tpr, "", at)], log=True)  # fmt: skip
        recall, precision = ([p[k] for p in points] for k in ("recall", "precision"))
        plot(maps / "precision_recall.png", f"{name}: precision-recall (pixels)", "recall", "precision",
             [(recall, precision, "", at)])  # fmt: skip
        points = read_points(maps / "metrics_pd_fa.csv")
        at = [int(p["threshold"]) for p in points].index(THRESHOLD)
        fa, pd = [1e6 * p["fa"] for p in points], [p["pd"] for p in points]
        plot(maps / "pd_fa.png", f"{name}: Pd-Fa (targets)", "Fa, 1e-6", "Pd", [(fa, pd, "", at)])
    except (OSError, KeyError, ValueError, IndexError):
        notes.append(f"no curves of {name} yet: type python eval.py --dataset {name}, then this again")
    try:
        run = Path(json.loads((maps / "about.json").read_text())["weights"]).parent
        history = json.loads((run / "metrics.json").read_text())["history"]
        epochs = [entry["epoch"] for entry in history]
        losses = [entry["loss"] for entry in history]
        sets = {one: [h["figures"][one] for h in history] for one in history[0]["figures"]}
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return [*notes, "no training curves: found no evaluated run of train.py behind the maps"]
    title = f"{run.name}: the test list, watched"
    plot(maps / "training_loss.png", f"{run.name}: training loss", "epoch", "loss",
         [(epochs, losses, "sum of the three outputs", None)])  # fmt: skip
    lines = []
    for one, figures in sets.items():
        for key in ("iou", "niou", "pd"):
            values = [float("nan") if f[key] is None else f[key] for f in figures]
            lines.append((epochs, values, f"{one} {NAMES[key]}", None))
    plot(maps / "training.png", title, "epoch", "fraction", lines)
    return notes


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=HelpFormatter,
    )
    add_data_arguments(parser, maps=True, required=False)
    add = parser.add_argument
    add("--results", default="results", metavar="DIR", help="where test.py and eval.py wrote")
    add("--name", help="after test.py --input: its results, RESULTS/NAME, in place of a data set")
    add("--input", nargs="+", metavar="PATH", help="the same, under the name that test.py gave them")
    add(
        "--compare",
        nargs="+",
        default=[],
        type=Path,
        metavar="DIR",
        help="folders of other runs' maps (results/RUN/NAME): side by side in the report",
    )
    add("--figure", choices=("paper",), help="also panels and 3-D surfaces as PDF and SVG")
    add("--images", nargs="+", metavar="X", help="of the test list, in --figure; default: four")
    add("--each", type=int, default=5, metavar="N", help="worst and best images in the montage")
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    return parser


@command()
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if bool(args.dataset) == bool(args.name or args.input):
        raise DataError("expected --dataset NAME, or after test.py --input: --name NAME")
    if not args.dataset:
        folder = results_folder(args.results, args.name, args.input or [])
        print(f"open {write_gallery(folder, args.workers)}")
        return
    for other in args.compare:
        if not other.is_dir():
            raise DataError(f"--compare {other}: no such folder, expected maps, as results/RUN/NAME")
    for data in open_datasets(args):
        maps = Path(args.results) / data.name
        if not maps.is_dir():
            raise DataError(f"{maps}: found no maps; make them: python test.py --dataset {data.name}")
        check_finished(maps)
        entries = draw_dataset(data, maps, args)
        about = read_about(maps)
        figures = read_json(maps / "metrics.json")
        if figures and read_json(maps / "metrics_about.json") != about:
            print(f"{maps}/metrics.json: of other maps than these, left out")
            figures = {}
        figures = {name: figures[name] for name in PROTOCOLS if isinstance(figures.get(name), dict)}
        notes = draw_curves(data.name, maps, figures)
        print(*notes, f"panels and curves: {maps}/figures/, {maps}/", sep="\n")
        if figures:
            print(table(figures))
        origin = about.get("weights") or about.get("baseline") or "maps of another program"
        if about.get("selected_on") == "the test list":
            origin = f"{origin}, CHOSEN ON THE TEST LIST"
        page = write_page(
            maps / "report",
            f"{data.name}, test list",
            origin,
            figures,
            entries,
            [str(other) for other in args.compare],
        )
        if args.figure:
            print(*draw_paper(data, maps, entries, args), sep="\n")
        print(f"open {maps / 'montage.png'} and {page}")


def draw_paper(
    data: DatasetFolder, maps: Path, entries: list[dict], args: argparse.Namespace
) -> list[Path]:
    """The figures of figures.py: of --images, or of four from bad to good IoU.

    Raises:
        DataError: an image is not in the test list.
    """
    samples = {sample.name: sample for sample in data.samples("test")}
    ranked = sorted((e["page"] for e in entries if e["page"]["targets"]), key=lambda page: page["iou"])
    chosen = args.images or [ranked[k * (len(ranked) - 1) // 3]["name"] for k in range(4) if ranked]
    if unknown := [name for name in chosen if name not in samples]:
        raise DataError(f"{data.root}: found no {', '.join(unknown)} in the test list")
    rows = []
    for name in dict.fromkeys(chosen):
        image = read_image(samples[name].image, args.range)
        shape = image.shape[:2]
        mask = read_mask(samples[name], shape, args.mask_threshold)
        preds = [read_map(folder / f"{name}.png", shape) for folder in (maps, *args.compare)]
        kinds = ("miss", "hit", "false alarm")
        regions = sorted(outcome(preds[0], mask), key=lambda r: kinds.index(r[0]))
        at = np.argwhere(regions[0][1]).mean(axis=0) if regions else np.array(shape) / 2
        rows.append((name, tuple(at), [image.mean(axis=2).astype(np.uint8), mask, *preds]))
    titles = ["image", "mask", *(folder.parent.name or str(folder) for folder in (maps, *args.compare))]
    if not rows:
        return []
    folder = maps / "paper"
    return panels(folder / "panels", rows, titles) + surfaces(folder / "surfaces", rows, titles)


def read_json(path: Path) -> dict:
    """What a stage before this wrote; nothing where it has not run."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def draw_dataset(data: DatasetFolder, maps: Path, args: argparse.Namespace) -> list[dict]:
    """The panels, the montage and the report's pictures of a test list; returns what the report
    knows of its images.

    Raises:
        DataError: names all maps and files that are missing or cannot be used.
    """
    labels = maps_folder(data, args.maps_root)
    if not (labels / "maps.json").exists():
        raise DataError(
            f"{labels}: found no label maps; make them: python utils.py --dataset {data.name}"
        )
    one = partial(draw, maps=maps, labels=labels, folder=maps / "figures", args=args)
    rows, entries, problems = [], [], list(data.problems["test"])
    samples = data.samples("test")
    results = in_processes(one, list(enumerate(samples)), args.workers)
    for result in progress(results, f"{data.name} figures", len(samples)):
        if isinstance(result, DataError):
            problems.append(str(result))
        else:
            rows.append(result[0])
            entries.append(result[1])
    if problems:
        raise DataError(complaint(data, "test", problems))
    montage(maps / "figures", rows, args.each)
    return entries


if __name__ == "__main__":
    sys.exit(main())
