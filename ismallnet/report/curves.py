"""Curves: ROC, precision-recall and Pd-Fa of one run or of several, from what eval.py wrote, and the
training's.

python visualization.py --dataset NUAA-SIRST --figure curves --compare A B --labels Ours DNANet
"""

import csv
from pathlib import Path
from typing import NamedTuple

from ismallnet.evaluation.metrics import THRESHOLD
from ismallnet.evaluation.tables import NAMES
from ismallnet.files import printable, read_json
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


PIXELS, TARGETS = "metrics_roc_pr.csv", "metrics_pd_fa.csv"
RATE_AXES = ("false positive rate", "true positive rate")
CURVES = {  # by the name of the picture
    "roc": Curve("ROC (pixels)", PIXELS, "fpr", "tpr", *RATE_AXES, log=True),
    "precision_recall": Curve(
        "precision-recall (pixels)", PIXELS, "recall", "precision", "recall", "precision"
    ),
    "pd_fa": Curve("Pd-Fa (targets)", TARGETS, "fa", "pd", "Fa, 1e-6", "Pd", scale=1e6),
}


class Line(NamedTuple):
    """Points to draw, their label, and which of them is that of the threshold 128."""

    xs: list[float]
    ys: list[float]
    label: str
    at: int


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


def draw_lines(axes, lines: list[Line], curve: Curve, title: str, log: bool) -> None:
    """Lines on axes of Matplotlib, each with its point of the threshold 128."""
    for line in lines:
        (drawn,) = axes.plot(line.xs, line.ys, label=printable(line.label), linewidth=1.5)
        where = None if line.label else "threshold 128 (p ≥ 0.5)"
        axes.plot(line.xs[line.at], line.ys[line.at], "o", color=drawn.get_color(), label=where)
    axes.set(title=printable(title), xlabel=curve.x_label, ylabel=curve.y_label)
    axes.set_xscale("log" if log else "linear")
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize=8)


def draw_curves(name: str, maps: Path, evaluated: Path | None, evaluation: str) -> list[str]:
    """ROC, precision-recall and Pd-Fa as PNG, beside maps; returns a note on those without points.

    Args:
        evaluated: where eval.py, as the command `evaluation`, wrote of these maps; None if nowhere.
    """
    missing = []
    for key, curve in CURVES.items():
        (maps / f"{key}.png").unlink(missing_ok=True)  # it may be of other maps
        if not evaluated or not (line := read_line(evaluated, curve)):
            missing.append(f"{key}.png")
            continue
        figure, axes = pyplot().subplots(figsize=(5.2, 4.2))
        draw_lines(axes, [line], curve, f"{name}: {curve.title}", curve.log)
        figure.tight_layout()
        save(figure, maps / key, ("png",), dpi=150)
    return [f"no {', '.join(missing)} yet: type {evaluation}, then this again"] if missing else []


def draw_training(maps: Path, about: dict) -> None:
    """training.png: loss and metrics of the run of train.py whose weights gave the maps; none where
    there is no such run."""
    (maps / "training.png").unlink(missing_ok=True)  # it may be of other maps
    try:
        run = Path(about["weights"]).parent
        history = read_json(run / "metrics.json")["history"]
        epochs, losses = ([entry[key] for entry in history] for key in ("epoch", "loss"))
        sets = {name: [entry["figures"][name] for entry in history] for name in history[0]["figures"]}
    except (KeyError, TypeError, IndexError):
        return
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(9, 3.6))
    left.plot(epochs, losses, "o-")
    left.set(title=printable(f"{run.name}: training loss"), xlabel="epoch", ylabel="loss")
    for name, metrics in sets.items():
        for key in ("iou", "niou", "pd"):
            values = [float("nan") if m[key] is None else 100 * m[key] for m in metrics]
            right.plot(epochs, values, "o-", label=printable(f"{name} {NAMES[key]}"))
    right.set(title="the test list, watched", xlabel="epoch", ylabel="%")
    right.legend(fontsize=8)
    figure.tight_layout()
    save(figure, maps / "training", ("png",), dpi=120)


def draw_compared(path: Path, folders: dict[str, Path]) -> list[Path]:
    """ROC, precision-recall and Pd-Fa (Fa on a logarithmic axis) of all runs, as PDF and SVG.

    Args:
        path: without suffix.
        folders: where eval.py wrote, by the runs' labels.
    """
    figure, all_axes = pyplot().subplots(1, len(CURVES), figsize=(3.4 * len(CURVES), 3))
    for axes, curve in zip(all_axes, CURVES.values()):
        lines = [read_line(folder, curve, label) for label, folder in folders.items()]
        known, log = [line for line in lines if line], curve.log or curve.y == "pd"
        draw_lines(axes, known, curve, curve.title, log)
    figure.tight_layout()
    return save(figure, path)
