"""A network beside its export: the figures of both on the same images, and their paired difference."""

from collections import Counter
from dataclasses import dataclass

import torch

from dataset import Frames
from ismallnet.cli import progress
from ismallnet.evaluation.intervals import FIGURES, Bootstrap, Difference, Drawn, differences
from ismallnet.evaluation.protocols import PROTOCOLS, count_image
from ismallnet.evaluation.tables import difference_table, table
from ismallnet.inference.onnx import Exported
from ismallnet.inference.predict import infer, prepared
from net import iSmallNet

USED = ("standard", "hiou")  # whose figures: IoU, nIoU, Pd and Fa of the first, hIoU of the second


@dataclass(frozen=True)
class Comparison:
    """The figures of two networks on the same images, by name, fractions (`iou`, `niou`, `pd`, `fa`,
    `hiou`); and the second's less the first's, with intervals (intervals.py)."""

    names: tuple[str, str]
    figures: tuple[dict, dict]
    differences: dict[str, Difference | None]

    @property
    def points(self) -> float:
        """By how many points of IoU the second is above the first."""
        first, second = self.figures
        return 100 * (second["iou"] - first["iou"])

    def text(self) -> str:
        rows = dict(zip(self.names, self.figures))
        label = f"{self.names[1]} - {self.names[0]}"
        return f"{table(rows)}\n\n{difference_table({label: self.differences})}"


def figures_of(model: iSmallNet | Exported, frames: Frames, label: str) -> tuple[dict, Drawn]:
    """A network's figures, in float32 where PyTorch runs it, and their values in each draw."""
    total = {name: Counter() for name in USED}
    bootstrap = Bootstrap(len(frames))
    for _, pred, mask in progress(infer(model, frames, amp="off"), label, len(frames)):
        counts = count_image(pred, mask, USED)
        for name, counter in total.items():
            counter.update(counts[name])
        bootstrap.add(counts)
    found = {name: PROTOCOLS[name].figures(counter) for name, counter in total.items()}
    drawn = bootstrap.figures()
    first, second = USED
    merged = {key: (found[second] if key == "hiou" else found[first])[key] for key in FIGURES}
    return merged, {key: (drawn[second] if key == "hiou" else drawn[first])[key] for key in FIGURES}


@torch.inference_mode()
def compare(
    original: iSmallNet, exported: Exported, frames: Frames, names: tuple[str, str]
) -> Comparison:
    """Runs both networks on the frames.

    Args:
        original: it is changed for inference (`prepared`).
    """
    first = figures_of(prepared(original), frames, names[0])
    second = figures_of(exported, frames, names[1])
    gaps = differences(first, second, len(frames))
    return Comparison(names, (first[0], second[0]), gaps)
