"""What each output gives on a fixed set of training crops, so that a dead output shows early."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import default_collate

from dataset import Frames
from ismallnet.inference.predict import autocast
from ismallnet.training.augmentation import TrainingSet
from net import OUTPUTS, Outputs, iSmallNet

DEAD = 0.1  # of the true map's peak
LEAST_STEPS = 100  # before an output may be called dead


@dataclass
class OutputState:
    """Means over the crops that hold a target.

    Attributes:
        peak: the largest probability on the target.
        true_peak: that of the label map, 1 for a mask.
        iou: at half the label map's peak, which is 0.5 for a mask.
    """

    peak: float
    true_peak: float
    iou: float

    @property
    def dead(self) -> bool:
        return self.peak < DEAD * self.true_peak

    def __str__(self) -> str:
        return f"peak {self.peak:.2f} of {self.true_peak:.2f}, IoU {100 * self.iou:.0f}"


def output_state(probability: Tensor, target: Tensor) -> OutputState | None:
    """The state of one output; None where no crop holds a target.

    Args:
        probability, target: (N, 1, H, W) in [0, 1].
    """
    values = []
    for p, t in zip(probability, target):
        if not (t > 0).any():
            continue
        top = t.max()
        guess, truth = p >= top / 2, t >= top / 2
        iou = (guess & truth).sum() / (guess | truth).sum()
        values.append(torch.stack([p[t > 0].max(), top, iou]))
    return OutputState(*torch.stack(values).mean(0).tolist()) if values else None


class Monitor:
    """The crops, and when to look at them.

    Args:
        lists: training images with their label maps.
        crop: side of the crops, px.
        seed: of their choice; they are the same in every run with that seed.
    """

    def __init__(self, lists: list[Frames], crop: int, seed: int, count: int = 16):
        plain = {"scale_jitter": 1.0, "brightness": 0.0, "contrast": 0.0, "target_share": 1.0}
        crops = TrainingSet(lists, 1, seed, crop=crop, mirrors=["none"] * len(lists), **plain)
        items = default_collate([crops[i] for i in range(min(count, len(crops)))])
        self.images = items.image  # (N, 3, S, S)
        self.targets = Outputs(items.interior, items.boundary, items.mask)

    @staticmethod
    def due(step: int, steps: int) -> bool:
        """Whether to look after a step: early ones, then every twentieth of the run."""
        return step in (25, 50, 100, 200, 400) or step % max(20, steps // 20) == 0

    @torch.no_grad()
    def __call__(self, model: iSmallNet, amp: str = "auto") -> dict[str, OutputState]:
        """The state of each output that the network has, by name; the network is left in the mode it
        was in."""
        device, training = model.mean.device, model.training
        model.eval()
        with autocast(device, amp):
            outputs = model(model.normalise(self.images.to(device)))
        model.train(training)
        states = {
            name: output_state(torch.sigmoid(out.float()).cpu(), target)
            for name, out, target in zip(OUTPUTS, outputs, self.targets)
            if out is not None
        }
        return {name: state for name, state in states.items() if state}


def dead_outputs(states: dict[str, OutputState], step: int, steps: int) -> list[str]:
    """The outputs that have not learned their map after a tenth of the run."""
    if step < max(LEAST_STEPS, steps // 10):
        return []
    return [name for name, state in states.items() if state.dead]
