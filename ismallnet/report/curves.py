"""Curves of one run or of several, from what eval.py wrote: ROC, precision-recall and Pd-Fa.

python visualization.py --dataset NUAA-SIRST --figure curves --compare results/other
"""

import csv
from pathlib import Path
from typing import NamedTuple

from ismallnet.evaluation.metrics import THRESHOLD
from ismallnet.files import printable
from ismallnet.report.paper_figures import pyplot, save


class Curve(NamedTuple):
    """A curve: its title, which columns x and y of which file of eval.py, the axes' labels."""

    title: str
    file: str
    x: str
    y: str
    x_label: str
    y_label: str
    log: bool  # the x axis, down to SMALLEST; 0 is shown at its left end


SMALLEST = 1e-7
PIXELS, TARGETS = "metrics_roc_pr.csv", "metrics_pd_fa.csv"
RATES = ("false positive rate", "true positive rate")
CURVES = (
    Curve("ROC (pixels)", PIXELS, "fpr", "tpr", *RATES, log=True),
    Curve("precision-recall (pixels)", PIXELS, *2 * ("recall", "precision"), log=False),
    Curve("Pd-Fa (targets)", TARGETS, "fa", "pd", "Fa", "Pd", log=True),
)


def draw_line(axes, path: Path, curve: Curve, label: str) -> None:
    """The points in a file of eval.py, that of the threshold 128 with a dot."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    xs, ys = ([float(row[key] or "nan") for row in rows] for key in (curve.x, curve.y))
    at = [int(row["threshold"]) for row in rows].index(THRESHOLD)
    (line,) = axes.plot(xs, ys, label=printable(label), linewidth=1.5)
    axes.plot(xs[at], ys[at], "o", color=line.get_color())


def draw_curves(path: Path, folders: dict[str, Path], kinds: tuple[str, ...]) -> list[Path]:
    """All curves of runs, beside each other.

    Args:
        path: without suffix.
        folders: where eval.py wrote, by the runs' labels.
    """
    figure, all_axes = pyplot().subplots(1, len(CURVES), figsize=(3.4 * len(CURVES), 3))
    for axes, curve in zip(all_axes, CURVES):
        for label, folder in folders.items():
            draw_line(axes, folder / curve.file, curve, label)
        axes.set(title=curve.title, xlabel=curve.x_label, ylabel=curve.y_label)
        if curve.log:
            axes.set_xscale("symlog", linthresh=SMALLEST)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.tight_layout()
    return save(figure, path, kinds)
