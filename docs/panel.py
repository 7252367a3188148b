"""Draws the first picture of the README from the synthetic set, whose images this network has not seen:

python synthetic.py
python docs/panel.py docs/panel.png
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
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
from net import load_weights

SIDE = 32  # px, of the windows
SCALE = 8
TITLES = ("image", "interior map", "boundary (stretched)", "prediction")
WEIGHTS = Path(__file__).parent.parent / "weights" / "NUAA-SIRST.safetensors"


def rows(images: int = 40):
    """The windows around the largest hit and the largest false alarm of the first test images, each in
    four columns."""
    model, best = prepared(load_weights(WEIGHTS)), {}
    for sample in find_dataset("Synthetic-SIRST", "data").samples("test")[:images]:
        image, _ = GreyRange().read(sample.image, sample.name)
        mask = read_mask(sample, image.shape[:2])
        result = outcome(quantise(predict(model, [image])[0]), mask)
        for region in result.predicted:
            size = int(region.pixels.sum())
            if size > best.get(region.kind, (0,))[0]:
                best[region.kind] = size, region, result, image, mask
    for kind in ("hit", "false alarm"):
        _, region, result, image, mask = best[kind]
        window = window_around(region.centre, mask.shape, SIDE)
        grey = stretched(image, window)
        interior, boundary = decouple(mask)
        boundary = np.round(boundary * (255 / max(int(boundary[window].max()), 1))).clip(0, 255)
        yield (
            kind,
            (
                grey[window],
                interior[window],
                boundary[window],
                draw_outcome(grey, result.regions, SCALE, window),
            ),
        )


def main(output: str) -> None:
    figure, axes = plt.subplots(2, len(TITLES), figsize=(8, 4.2), dpi=100, layout="constrained")
    for line, (kind, pictures) in zip(axes, rows()):
        for place, picture in zip(line, pictures):
            place.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            place.set(xticks=[], yticks=[])
        line[0].set_ylabel(kind, fontsize=13)
    for place, title in zip(axes[0], TITLES):
        place.set_title(title, fontsize=12)
    figure.savefig(output)


if __name__ == "__main__":
    main(sys.argv[1])
