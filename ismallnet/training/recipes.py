"""Training recipes: their values as command-line arguments, first weights, optimiser, schedule,
averaging."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dataset import Frames, mean_and_std
from ismallnet.cli import DataError
from ismallnet.training.muon import Muon
from net import iSmallNet, load_weights


class StepOptions(NamedTuple):
    """How a step is taken.

    Attributes:
        rate: step, from 0 -> its learning rate.
        loss: one of net.LOSSES.
        clip: largest gradient norm; 0 for any.
        amp: mixed precision, as in `inference.precision`.
        compile: whether by torch.compile.
        graphs: whether steps are captured as CUDA graphs, where they can be.
        teacher: image -> probabilities that the mask output learns too; None for none.
    """

    rate: Callable[[int], float]
    loss: str = "jaccard"
    clip: float = 0.0
    amp: str = "auto"
    compile: bool = False
    graphs: bool = True
    teacher: Callable[[torch.Tensor], torch.Tensor] | None = None


RECIPES = {
    "default": {
        "epochs": 400,
        "batch_size": 16,
        "augment": "crop",
        "mirror": "auto",
        "loss": "jaccard",
        "optimizer": "muon",
        "lr": 5e-3,
        "weight_decay": 1e-2,
        "schedule": "cosine",
        "ema": 0.998,
        "clip": 1.0,
        "prior": 0.01,
    },
    "authors": {  # their published code
        "epochs": 1500,
        "batch_size": 16,
        "augment": "authors",
        "mirror": "all",
        "loss": "authors",
        "optimizer": "sgd",
        "lr": 0.05,
        "weight_decay": 5e-4,
        "schedule": "triangle",
        "ema": 0.0,
        "clip": 0.0,
        "prior": 0.5,
    },
}


def first_weights(
    width: int, variant: str, seed: int, prior: float, lists: list[Frames], init: str | None = None
) -> iSmallNet:
    """The network that a run starts from: new, with the normalisation of its training images and
    `prior` as the probability that its outputs give at first; or that of the file `init`, with the
    normalisation and the `info` that it has.

    Raises:
        DataError: `init` holds another variant.
        WeightsError: it cannot be read, or holds another width.
    """
    torch.manual_seed(seed)
    model = iSmallNet(width, variant)
    if init:
        found = load_weights(init, width)
        if found.variant != variant:
            raise DataError(
                f"--init {init}: found variant {found.variant}, expected {variant}; type "
                f"--variant {found.variant} or take other weights"
            )
        model.load_state_dict(found.state_dict())
        model.info = found.info
        return model
    mean, std = mean_and_std(lists)
    model.mean.copy_(torch.tensor(mean))
    model.std.copy_(torch.tensor(std))
    for name, layer in model.named_modules():
        if name in ("interior_head", "boundary_head", "mask_head.3"):
            nn.init.constant_(layer.bias, math.log(prior / (1 - prior)))
    return model


def make_optimizer(
    model: nn.Module, name: str, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Muon for the convolutions and AdamW for the rest, AdamW for all, or SGD with Nesterov momentum:
    name is "muon", "adamw" or "sgd"."""
    if name == "sgd":
        kind = {"momentum": 0.9, "nesterov": True, "weight_decay": weight_decay}
        return torch.optim.SGD(model.parameters(), lr=lr, **kind)
    if name == "muon":
        return Muon(model, lr, weight_decay)
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]  # biases and batch norm do not decay
    groups = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)


def learning_rate(step: int, steps: int, lr: float, schedule: str, warmup: float) -> float:
    """The rate of a step, counted from 0, of `steps`.

    Args:
        lr: the highest rate.
        schedule: "triangle", up to the middle and down to the end as the authors do, or "cosine".
        warmup: of the cosine, the share of the steps over which the rate rises.
    """
    if schedule == "triangle":
        return lr * (1 - abs(2 * (step + 1) / (steps + 1) - 1))
    warm = max(1, round(warmup * steps))
    if step < warm:
        return lr * (step + 1) / warm
    return lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class MovingAverage(AveragedModel):
    """The moving average of a network's weights and batch-norm statistics; it warms up over
    10/(1-decay) steps, so that short runs do not carry their first weights along."""

    def __init__(self, model: nn.Module, decay: float):
        def average(ours: list, theirs: list, count: torch.Tensor) -> None:
            if torch.is_floating_point(ours[0]):
                torch._foreach_lerp_(ours, theirs, self.weight(int(count)))
            else:
                torch._foreach_copy_(ours, theirs)

        super().__init__(model, multi_avg_fn=average, use_buffers=True)
        self.decay = decay

    def weight(self, count: int) -> float:
        """Of the network, where `count` of them have been averaged."""
        return 1 - min(self.decay, (1 + count) / (10 + count)) if count else 1.0

    def blend(self, model: nn.Module, weight: torch.Tensor) -> None:
        """`update_parameters` for the device alone: with a weight that is a tensor, and uncounted."""
        pairs = [*zip(self.module.parameters(), model.parameters())]
        pairs += zip(self.module.buffers(), model.buffers())
        blended, copied = [], []
        for ours, theirs in pairs:
            (blended if ours.is_floating_point() else copied).append((ours.detach(), theirs.detach()))
        ours, theirs = map(list, zip(*blended))
        difference = torch._foreach_sub(theirs, ours)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(ours, difference)
        if copied:  # counts of batches
            torch._foreach_copy_(*map(list, zip(*copied)))
