"""Training recipes: the values of each, optimiser, learning rate, moving average."""

import copy
import math

import torch
from torch import Tensor, nn

from ismallnet.training.muon import Muon

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
    """The rate of a step, counted from 0, of `steps`; `lr` is the highest. "triangle" goes up to the
    middle and down to the end, as the authors do; "cosine" first rises over the share `warmup`."""
    if schedule == "triangle":
        return lr * (1 - abs(2 * (step + 1) / (steps + 1) - 1))
    warm = max(1, round(warmup * steps))
    if step < warm:
        return lr * (step + 1) / warm
    return lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class MovingAverage:
    """The moving average of a network's weights and batch-norm statistics; it warms up over
    10/(1-decay) steps, so that short runs do not carry their first weights along.

    Attributes:
        module: the network with these weights.
        count: networks that were averaged.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module, self.decay, self.count = copy.deepcopy(model), decay, 0

    def next_weight(self) -> float:
        """Of the next network, which is counted: 1 for the first."""
        count, self.count = self.count, self.count + 1
        return 1 - min(self.decay, (1 + count) / (10 + count)) if count else 1.0

    @torch.no_grad()
    def update(self, model: nn.Module, weight: float | Tensor) -> None:
        """Moves the average towards a network. A weight in a tensor stays on the device, which a CUDA
        graph needs; PyTorch has no `_foreach_lerp_` for it."""
        averages, values = ([*m.parameters(), *m.buffers()] for m in (self.module, model))
        pairs = [(a, v) for a, v in zip(averages, values) if a.is_floating_point()]
        averaged, network = map(list, zip(*pairs))
        if isinstance(weight, Tensor):
            difference = torch._foreach_sub(network, averaged)
            torch._foreach_mul_(difference, weight)
            torch._foreach_add_(averaged, difference)
        else:
            torch._foreach_lerp_(averaged, network, weight)
        if counts := [(a, v) for a, v in zip(averages, values) if not a.is_floating_point()]:
            torch._foreach_copy_(*map(list, zip(*counts)))  # of batches
