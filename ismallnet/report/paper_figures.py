"""Figures for papers: panels and 3-D surfaces of chosen images, as PDF and SVG.

    python visualization.py --dataset NUAA-SIRST --figure paper --images Misc_1 Misc_110

Rows are images, columns the image, the mask and each run's map; an inset shows what lies in the frame.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ismallnet.files import atomic_write, printable
from ismallnet.report.outcome import window_around

COLUMN = 1.4  # inches
FRAME = "#ff3030"
WITHOUT_DATE = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}


def pyplot():
    """Matplotlib without a screen; text stays text in PDF and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"pdf.fonttype": 42, "svg.fonttype": "none", "font.size": 8}
    matplotlib.rcParams["svg.hashsalt"] = "figures"  # the same figure is the same file
    from matplotlib import pyplot

    return pyplot


def save(figure, path: Path, kinds: tuple[str, ...] = ("pdf", "svg")) -> list[Path]:
    """Writes a figure, cut to what is drawn, and closes it; the same figure is the same file.

    Args:
        path: without suffix, which is the kind: pdf, svg or png.
    """
    written = []
    for kind in kinds:
        written.append(path.with_name(f"{path.name}.{kind}"))
        options = {"metadata": WITHOUT_DATE[kind], "bbox_inches": "tight", "dpi": 300}
        with atomic_write(written[-1]) as file:
            figure.savefig(file, format=kind, **options)
    pyplot().close(figure)
    return written


class Row(NamedTuple):
    """An image in a figure: its name, the (y, x) of its target, and planes HxW uint8, one a column."""

    name: str
    centre: tuple[float, float]
    planes: list[np.ndarray]


def grid(rows: list[Row], titles: list[str], size: tuple[float, float], pad: float | None, **options):
    """A figure of a size in inches, and its axes: a row an image, a column a plane, with its title."""
    figure, axes = pyplot().subplots(len(rows), len(titles), figsize=size, squeeze=False, **options)
    for axis, title in zip(axes[0], titles):
        axis.set_title(printable(title), pad=pad)
    return figure, axes


def panels(path: Path, rows: list[Row], titles: list[str]) -> list[Path]:
    """Planes, each with the surroundings of a target enlarged.

    Args:
        path: without suffix.
        titles: of the columns.
    """
    heights = [row.planes[0].shape[0] / row.planes[0].shape[1] for row in rows]
    size, ratios = (COLUMN * len(titles), COLUMN * sum(heights)), {"height_ratios": heights}
    figure, axes = grid(rows, titles, size, None, gridspec_kw=ratios)
    for line, row in zip(axes, rows):
        for axis, plane in zip(line, row.planes):
            draw_plane(axis, plane)
            draw_inset(axis, plane, row.centre)
        line[0].set_ylabel(printable(row.name))
    figure.subplots_adjust(wspace=0.04, hspace=0.04)
    return save(figure, path)


def draw_plane(axis, plane: np.ndarray) -> None:
    axis.imshow(plane, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def draw_inset(axis, plane: np.ndarray, centre: tuple[float, float]) -> None:
    """What lies around a centre (y, x), enlarged in the corner that is farthest from it, and framed."""
    near = window_around(centre, plane.shape, 24)
    (top, bottom), (left, right) = ((side.start, side.stop) for side in near)
    x = 0.02 if centre[1] > plane.shape[1] / 2 else 0.58
    y = 0.58 if centre[0] > plane.shape[0] / 2 else 0.02
    inset = axis.inset_axes((x, y, 0.4, 0.4))
    draw_plane(inset, plane[near])
    corners = [left, right, right, left, left], [top, top, bottom, bottom, top]
    axis.plot(*corners, color=FRAME, linewidth=0.6)
    for spine in inset.spines.values():
        spine.set(color=FRAME, linewidth=0.8)


def surfaces(path: Path, rows: list[Row], titles: list[str]) -> list[Path]:
    """As `panels`, each plane as a surface over the 40 px around the target."""
    size = 1.2 * COLUMN * len(titles), 1.1 * COLUMN * len(rows)
    figure, axes = grid(rows, titles, size, 0, subplot_kw={"projection": "3d"})
    for line, row in zip(axes, rows):
        for axis, plane in zip(line, row.planes):
            near = window_around(row.centre, plane.shape, 40)
            y, x = np.mgrid[near]
            axis.plot_surface(x, y, plane[near], cmap="viridis", rstride=1, cstride=1, linewidth=0)
            axis.set(zlim=(0, 255), zticks=[0, 128, 255])
            axis.tick_params(labelsize=4, pad=-3)
            axis.view_init(elev=30, azim=-60)
        side = {"transform": line[0].transAxes, "rotation": 90, "va": "center"}
        line[0].text2D(-0.08, 0.5, printable(row.name), **side)
    figure.subplots_adjust(wspace=0.05, hspace=0.02)
    return save(figure, path)
