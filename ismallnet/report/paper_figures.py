"""Figures for papers: panels and 3-D surfaces of chosen images, as PDF and SVG.

    python visualization.py --dataset NUAA-SIRST --figure paper --images Misc_1 Misc_110

Rows are images, columns the image, the mask and each run's map; an inset shows what lies in the frame.
"""

import csv
from pathlib import Path

import numpy as np

from ismallnet.evaluation.metrics import THRESHOLD
from ismallnet.evaluation.tables import NAMES
from ismallnet.files import atomic_write, read_json
from ismallnet.report.outcome import window_around

COLUMN = 1.4  # inches
FRAME = "#ff3030"


def pyplot():
    """Matplotlib without a screen; text stays text in PDF and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"pdf.fonttype": 42, "svg.fonttype": "none", "font.size": 8}
    matplotlib.rcParams["svg.hashsalt"] = "figures"  # the same figure is the same file
    from matplotlib import pyplot

    return pyplot


def save(figure, path: Path) -> list[Path]:
    """Writes path.pdf and path.svg; no dates in them."""
    written = []
    for kind, metadata in (("pdf", {"CreationDate": None}), ("svg", {"Date": None})):
        written.append(path.with_suffix(f".{kind}"))
        with atomic_write(written[-1]) as file:
            figure.savefig(file, format=kind, metadata=metadata, bbox_inches="tight", dpi=300)
    pyplot().close(figure)
    return written


def panels(
    path: Path, rows: list[tuple[str, tuple[float, float], list[np.ndarray]]], titles: list[str]
) -> list[Path]:
    """A row an image, a column a method, each with the surroundings of a target enlarged.

    Args:
        path: without suffix.
        rows: (name, (y, x) of the target, planes HxW uint8, one a column).
        titles: of the columns.
    """
    plot = pyplot()
    shapes = [planes[0].shape for _, _, planes in rows]
    heights = {"height_ratios": [height / width for height, width in shapes]}
    size = (COLUMN * len(titles), COLUMN * sum(heights["height_ratios"]))
    figure, axes = plot.subplots(
        len(rows), len(titles), figsize=size, squeeze=False, gridspec_kw=heights
    )
    for line, (name, centre, planes) in zip(axes, rows):
        for axis, plane in zip(line, planes):
            axis.imshow(plane, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            near = window_around(centre, plane.shape, 24)
            (top, bottom), (left, right) = ((part.start, part.stop) for part in near)
            # the inset lies in the corner that is farthest from the target
            x = 0.02 if centre[1] > plane.shape[1] / 2 else 0.58
            y = 0.58 if centre[0] > plane.shape[0] / 2 else 0.02
            inset = axis.inset_axes((x, y, 0.4, 0.4))
            inset.imshow(plane[near], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            inset.set(xticks=[], yticks=[])
            axis.plot(
                [left, right, right, left, left],
                [top, top, bottom, bottom, top],
                color=FRAME,
                linewidth=0.6,
            )
            for spine in inset.spines.values():
                spine.set(color=FRAME, linewidth=0.8)
        line[0].set_ylabel(name)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title)
    figure.subplots_adjust(wspace=0.04, hspace=0.04)
    return save(figure, path)


def surfaces(
    path: Path, rows: list[tuple[str, tuple[float, float], list[np.ndarray]]], titles: list[str]
) -> list[Path]:
    """As `panels`, each plane as a surface over the 40 px around the target."""
    plot = pyplot()
    size = (1.2 * COLUMN * len(titles), 1.1 * COLUMN * len(rows))
    projection = {"projection": "3d"}
    figure, axes = plot.subplots(
        len(rows), len(titles), figsize=size, squeeze=False, subplot_kw=projection
    )
    for line, (name, centre, planes) in zip(axes, rows):
        for axis, plane in zip(line, planes):
            near = window_around(centre, plane.shape, 40)
            y, x = np.mgrid[near]
            axis.plot_surface(x, y, plane[near], cmap="viridis", rstride=1, cstride=1, linewidth=0)
            axis.set(zlim=(0, 255), zticks=[0, 128, 255])
            axis.tick_params(labelsize=4, pad=-3)
            axis.view_init(elev=30, azim=-60)
        line[0].text2D(-0.08, 0.5, name, transform=line[0].transAxes, rotation=90, va="center")
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, pad=0)
    figure.subplots_adjust(wspace=0.05, hspace=0.02)
    return save(figure, path)


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


def draw_curves(name: str, maps: Path, figures: dict, evaluation: str) -> list[str]:
    """ROC, precision-recall and Pd-Fa from what eval.py wrote, training from the run's metrics;
    returns a note for each that there is nothing to draw from.

    Args:
        figures: of eval.py, of these maps; nothing where there are none.
        evaluation: the command that makes them, for the notes.
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
        notes.append(f"no curves of {name} yet: type {evaluation}, then this again")
    try:
        run = Path(read_json(maps / "about.json")["weights"]).parent
        history = read_json(run / "metrics.json")["history"]
        epochs = [entry["epoch"] for entry in history]
        losses = [entry["loss"] for entry in history]
        sets = {one: [h["figures"][one] for h in history] for one in history[0]["figures"]}
    except (ValueError, KeyError, TypeError, IndexError):
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
