"""Draws the first picture of the README from the synthetic set, whose images this network has not seen:

python synthetic.py
python docs/panel.py docs/panel.png
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.masks import read_mask
from ismallnet.evaluation.metrics import quantise
from ismallnet.images.grey import GreyRange
from ismallnet.inference.predict import predict, prepared
from ismallnet.labels import decouple
from ismallnet.report.outcome import outcome, window_around
from ismallnet.report.panels import draw_outcome, stretched
from ismallnet.report.paper_figures import draw_plane, pyplot, save
from net import load_weights

SIDE = 32  # px, of the windows
SCALE = 8
TITLES = ("image", "interior map", "boundary (stretched)", "prediction")
WEIGHTS = Path(__file__).parent.parent / "weights" / "NUAA-SIRST.safetensors"


def windows(images: int = 40) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Hit and false alarm: of each the largest of the first test images, its surroundings as a picture
    for each title."""
    model, best = prepared(load_weights(WEIGHTS)), {}
    for sample in find_dataset("Synthetic-SIRST", "data").samples("test")[:images]:
        image, _ = GreyRange().read(sample.image)
        mask = read_mask(sample, image.shape[:2])
        result = outcome(quantise(predict(model, [image])[0]), mask)
        for region in result.predicted:
            size = int(region.pixels.sum())
            if size > best.get(region.kind, (0,))[0]:
                best[region.kind] = size, region, result, image, mask
    for kind in ("hit", "false alarm"):
        _, region, result, image, mask = best[kind]
        window = window_around(region.centre, mask.shape, SIDE)
        grey, (interior, boundary) = stretched(image, window), decouple(mask)
        boundary = np.round(boundary * (255 / max(int(boundary[window].max()), 1))).clip(0, 255)
        found = draw_outcome(grey, result.regions, SCALE, window)
        yield kind, [grey[window], interior[window], boundary[window], found]


def main(output: str) -> None:
    shape = {"figsize": (8, 4.2), "layout": "constrained"}
    figure, axes = pyplot().subplots(2, len(TITLES), **shape)
    for line, (kind, pictures) in zip(axes, windows()):
        for axis, picture in zip(line, pictures):
            draw_plane(axis, picture)
        line[0].set_ylabel(kind, fontsize=13)
    for axis, title in zip(axes[0], TITLES):
        axis.set_title(title, fontsize=12)
    save(figure, Path(output).with_suffix(""), ("png",), dpi=100)


if __name__ == "__main__":
    main(sys.argv[1])
