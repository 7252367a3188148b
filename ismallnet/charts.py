"""Charts of what benchmark.py measures, as PNG."""

from itertools import cycle
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ismallnet.files import atomic_write
from ismallnet.timing import Rows


def new_figure(rows: int, columns: int) -> tuple:
    """A figure and its panels."""
    figure = Figure(figsize=(9, 3.8), dpi=110)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def draw_scaling(rows: Rows, path: Path, side: int) -> None:
    """Seconds and peak memory against megapixels, of rows of benchmark.py's `scaling`.

    Args:
        side: of the images of batches.
    """
    figure, panels = new_figure(1, 2)
    groups = [("one image", [r for r in rows if r["batch"] == 1 and r["tile"] == r["side"]])]
    groups += [("one image, tiles of 512", [r for r in rows if r["tile"] < r["side"]])]
    groups += [(f"batches of {side}x{side}", [r for r in rows if r["side"] == side])]
    for panel, key in zip(panels, ("seconds", "peak MiB")):
        for name, group in groups:
            pixels = [r["side"] ** 2 * r["batch"] / 1e6 for r in group]
            panel.loglog(pixels, [r[key] for r in group], "o-", label=name)
        panel.set(xlabel="megapixels", ylabel=key)
        panel.grid(alpha=0.3)
        panel.legend()
    save(figure, path)


def draw_accuracy(rows: Rows, dataset: str, path: Path) -> None:
    """IoU against how many times as fast as the default each way is, of rows of benchmark.py's
    `accuracy`; the bars go from the least to the most of the rounds."""
    figure, panel = new_figure(1, 1)
    colours = {"onnxruntime": "tab:orange", "openvino": "tab:green"}
    for row, marker in zip(sorted(rows, key=lambda row: row["× default"]), cycle("osD^vP*Xph")):
        speed, iou = row["× default"], row["iou"]
        colour = colours.get(row["way"].split(",")[0], "tab:blue")
        bars = [[speed - row["least"]], [row["most"] - speed]]
        style = {"fmt": marker, "color": colour, "elinewidth": 0.8, "markersize": 7}
        panel.errorbar(speed, iou, xerr=bars, label=f"{row['way']}: {iou:.2f}", **style)
    panel.set(
        xlabel="times as fast as the default, one 256×256 image", ylabel=f"IoU, %, {dataset} test"
    )
    panel.margins(0.08)
    panel.grid(alpha=0.3)
    panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, title="slowest first: IoU")
    save(figure, path)
