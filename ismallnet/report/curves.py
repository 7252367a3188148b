"""Curves: ROC, precision-recall and Pd-Fa of one run or of several, from what eval.py wrote, and the
training's.

    python visualization.py --dataset NUAA-SIRST --figure curves --compare A B --labels Ours DNANet
"""

import csv
from pathlib import Path
from typing import NamedTuple

from ismallnet.datasets.names import printable
from ismallnet.evaluation.metrics import THRESHOLD
from ismallnet.evaluation.tables import NAMES
from ismallnet.files import atomic_write, read_json
from ismallnet.report.paper_figures import pyplot, save


class Curve(NamedTuple):
    """A curve: its title, which columns x and y of which file of eval.py, the axes' labels."""

    title: str
    file: str
    x: str
    y: str
    x_label: str
    y_label: str
    log: bool = False  # the x axis
    scale: float = 1.0  # of x


CURVES = {  # by the name of the picture
    "roc": Curve("ROC (pixels)", "metrics_roc_pr.csv", "fpr", "tpr", "false positive rate",
                 "true positive rate", log=True),
    "precision_recall": Curve("precision-recall (pixels)", "metrics_roc_pr.csv", "recall", "precision",
                              "recall", "precision"),
    "pd_fa": Curve("Pd-Fa (targets)", "metrics_pd_fa.csv", "fa", "pd", "Fa, 1e-6", "Pd", scale=1e6),
}  # fmt: skip


class Line(NamedTuple):
    """Points to draw, their label, and which of them is that of the threshold 128."""

    xs: list[float]
    ys: list[float]
    label: str = ""
    at: int | None = None


def read_line(folder: Path, curve: Curve, label: str = "") -> Line | None:
    """The points of a curve that eval.py wrote to a folder; None where there are none."""
    try:
        with open(folder / curve.file, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        xs, ys = ([float(row[key] or "nan") for row in rows] for key in (curve.x, curve.y))
        at = [int(row["threshold"]) for row in rows].index(THRESHOLD)
    except (OSError, KeyError, ValueError):
        return None
    return Line([curve.scale * x for x in xs], ys, label, at)


def draw_lines(axes, lines: list[Line], title: str, x: str, y: str, log: bool = False) -> None:
    """Lines on axes of Matplotlib, each with its point of the threshold 128."""
    for line in lines:
        marker = "o" if line.at is None and len(line.xs) < 40 else None  # few points, or a single one
        label = printable(line.label)
        (drawn,) = axes.plot(line.xs, line.ys, label=label, linewidth=1.5, marker=marker, markersize=3)
        if line.at is not None:
            where = None if line.label else "threshold 128 (p ≥ 0.5)"
            axes.plot(line.xs[line.at], line.ys[line.at], "o", color=drawn.get_color(), label=where)
    if log:
        axes.set_xscale("log")
    axes.set(title=printable(title), xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize=8)


def plot(path: Path, lines: list[Line], title: str, x: str, y: str, log: bool = False) -> None:
    """A line plot as PNG."""
    figure, axes = pyplot().subplots(figsize=(5.2, 4.2), dpi=150)
    draw_lines(axes, lines, title, x, y, log)
    figure.tight_layout()
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
    pyplot().close(figure)


def draw_curves(name: str, maps: Path, evaluated: bool, evaluation: str) -> list[str]:
    """ROC, precision-recall and Pd-Fa from what eval.py wrote; returns a note on those of which there
    are no points.

    Args:
        evaluated: whether what eval.py wrote is of these maps.
        evaluation: the command that makes it.
    """
    missing = []
    for key, curve in CURVES.items():
        path = maps / f"{key}.png"
        path.unlink(missing_ok=True)  # it may be of other maps
        if evaluated and (line := read_line(maps, curve)):
            plot(path, [line], f"{name}: {curve.title}", curve.x_label, curve.y_label, curve.log)
        else:
            missing.append(path.name)
    return [f"no {', '.join(missing)} yet: type {evaluation}, then this again"] if missing else []


def draw_training(maps: Path, about: dict) -> list[str]:
    """Loss and metrics of the run of train.py whose weights gave the maps; returns a note where there
    are none."""
    try:
        run = Path(about["weights"]).parent
        history = read_json(run / "metrics.json")["history"]
        epochs, losses = ([entry[key] for entry in history] for key in ("epoch", "loss"))
        sets = {name: [entry["figures"][name] for entry in history] for name in history[0]["figures"]}
    except (KeyError, TypeError, IndexError):
        return ["no training curves: found no evaluated run of train.py behind the maps"]
    loss = [Line(epochs, losses, "sum of the three outputs")]
    plot(maps / "training_loss.png", loss, f"{run.name}: training loss", "epoch", "loss")
    lines = [
        Line(
            epochs, [float("nan") if m[key] is None else m[key] for m in values], f"{name} {NAMES[key]}"
        )
        for name, values in sets.items()
        for key in ("iou", "niou", "pd")
    ]
    plot(maps / "training.png", lines, f"{run.name}: the test list, watched", "epoch", "fraction")
    return []


def draw_compared(path: Path, folders: dict[str, Path]) -> list[Path]:
    """ROC, precision-recall and Pd-Fa (Fa on a logarithmic axis) of all runs, as PDF and SVG.

    Args:
        path: without suffix.
        folders: where eval.py wrote, by the runs' labels.
    """
    figure, all_axes = pyplot().subplots(1, len(CURVES), figsize=(3.4 * len(CURVES), 3))
    for axes, curve in zip(all_axes, CURVES.values()):
        lines = [read_line(folder, curve, label) for label, folder in folders.items()]
        log = curve.log or curve.y == "pd"
        known = [line for line in lines if line]
        draw_lines(axes, known, curve.title, curve.x_label, curve.y_label, log)
    figure.tight_layout()
    return save(figure, path)
