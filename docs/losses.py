"""The two losses of an empty, a right and a wrong answer to label maps: the table and the figure of
docs/EXPERIMENTS.md, from the masks of training lists. Nothing is written but the figure.

    python docs/losses.py --dataset NUAA-SIRST NUDT-SIRST
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from ismallnet.cli import HelpFormatter, command, progress
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.masks import read_mask
from ismallnet.images.picture import image_shape
from ismallnet.labels import METHODS
from ismallnet.report.outcome import window_around
from ismallnet.report.paper_figures import pyplot, save
from net import map_loss
from utils import decouple

NAMES = {"authors": "published", "jaccard": "jaccard"}  # of the losses
ANSWERS = ("empty", "p = t", "p = 1", "empty best")
LEAST = 1e-7  # probability where an answer is 0: a logit of about -16


def training_masks(name: str, data_root: str) -> Iterator[tuple[str, np.ndarray]]:
    """The name and the mask, HxW uint8, of each training image."""
    samples = find_dataset(name, data_root).samples("train")
    for sample in progress(samples, name, len(samples), "mask"):
        yield sample.name, read_mask(sample, image_shape(sample.image))


def label_maps(mask: np.ndarray) -> dict[tuple[str, str], Tensor]:
    """By labels and kind, (1, 1, H, W) float64 in [0, 1]; the mask is the same for both labels."""
    planes = {("both", "mask"): mask}
    for method in METHODS:
        interior, boundary = decouple(mask, method)
        planes |= {(method, "interior"): interior, (method, "boundary"): boundary}
    return {key: torch.from_numpy(plane / 255.0)[None, None] for key, plane in planes.items()}


def loss_of(p: Tensor, target: Tensor, loss: str) -> float:
    return map_loss(torch.logit(p.clamp(LEAST, 1 - LEAST)), target, loss).item()


def rows(masks: Iterable[np.ndarray]) -> Iterator[list[str]]:
    """The table's rows of one data set: the mean losses of an empty map, of the map itself, and of 1
    wherever it is not 0; images whose map is empty are left out."""
    values: dict[tuple[str, str], list[list[float]]] = {}
    for mask in masks:
        for key, target in label_maps(mask).items():
            if target.any():
                answers = (torch.zeros_like(target), target, (target > 0).double())
                losses = [loss_of(p, target, loss) for loss in NAMES for p in answers]
                values.setdefault(key, []).append([target.max().item(), *losses])
    for key in sorted(values):
        peak, *losses = np.transpose(values[key])
        cells = [str(len(peak)), f"{np.median(peak):.2f}"]
        for empty, right, ones in (losses[:3], losses[3:]):
            best = np.mean((empty < right) & (empty < ones))
            cells += [f"{x.mean():.3f}" for x in (empty, right, ones)] + [f"{100 * best:.0f} %"]
        yield [*key, *cells]


def typical(masks: list[tuple[str, np.ndarray]]) -> tuple[str, np.ndarray]:
    """The first whose boundary map (authors) has the median peak of those that have one."""
    peaks = np.array([decouple(mask)[1].max() for _, mask in masks])
    return masks[int(np.abs(peaks - np.median(peaks[peaks > 0])).argmin())]


def draw(name: str, mask: np.ndarray, path: Path) -> None:
    """The interior and boundary map of a target, and the losses of s times the boundary map."""
    maps, centre = label_maps(mask), np.argwhere(mask).mean(0)
    shape = {"figsize": (9, 2.6), "width_ratios": [1, 1, 1.6], "layout": "constrained"}
    figure, axes = pyplot().subplots(1, 3, **shape)
    for axis, kind in zip(axes, ("interior", "boundary")):
        plane = maps["authors", kind][0, 0].numpy()
        near = plane[window_around(centre, plane.shape, 24)]
        figure.colorbar(axis.imshow(near, cmap="gray"), ax=axis, shrink=0.8)
        axis.set(xticks=[], yticks=[], title=f"{kind} map of {name}")
    target, scales = maps["authors", "boundary"], np.linspace(0, 3, 61)
    for loss in NAMES:
        values = [loss_of((s * target).clamp(max=1), target, loss) for s in scales]
        axes[2].plot(scales, values, label=NAMES[loss])
    axes[2].axvline(1, color="grey", linewidth=0.8, linestyle=":")
    texts = {"title": "loss of p = s · boundary map", "xlabel": "s (0: empty; 1: the map itself)"}
    axes[2].set(ylim=(0, None), **texts)
    axes[2].legend(loc="lower right")
    save(figure, path.with_suffix(""), ("png",), dpi=120)


@command()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--dataset", nargs="+", required=True, metavar="NAME", help="folders below --data-root")
    add("--data-root", default="data", metavar="DIR", help="where the data sets are")
    add("--output", default="docs/losses.png", metavar="FILE", help="the figure, of the first data set")
    args = parser.parse_args(argv)
    columns = ["set", "labels", "map", "images", "peak"]
    columns += [f"{loss}: {answer}" for loss in NAMES.values() for answer in ANSWERS]
    masks = {name: list(training_masks(name, args.data_root)) for name in args.dataset}
    lines = [[name, *row] for name in masks for row in rows(mask for _, mask in masks[name])]
    for line in (columns, ["---"] * len(columns), *lines):
        print("|", " | ".join(line), "|")
    draw(*typical(masks[args.dataset[0]]), Path(args.output))


if __name__ == "__main__":
    main()
