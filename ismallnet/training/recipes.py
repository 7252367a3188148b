"""Training recipes: their values as command-line arguments, first weights, optimiser, schedule,
averaging."""

import argparse
import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dataset import Frames, mean_and_std
from ismallnet.cli import DataError
from ismallnet.training.muon import Muon
from net import iSmallNet, load_weights

RECIPES = {
    "default": {
        "epochs": 400,
        "batch_size": 16,
        "augment": "crop",
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


# What may differ between a run and its continuation without changing the weights.


def first_weights(args: argparse.Namespace, train: list[Frames]) -> iSmallNet:
    """The network that a run begins with: new, with the normalisation of its training images, or
    that of --init, with the normalisation and the `info` that it has."""
    torch.manual_seed(args.seed)
    model = iSmallNet(args.width, args.variant)
    if args.init:
        found = load_weights(args.init, args.width)
        if found.variant != args.variant:
            raise DataError(
                f"--init {args.init}: found variant {found.variant}, expected {args.variant}; type "
                f"--variant {found.variant} or take other weights"
            )
        model.load_state_dict(found.state_dict())
        model.info = found.info
        return model
    mean, std = mean_and_std(train)
    model.mean.copy_(torch.tensor(mean))
    model.std.copy_(torch.tensor(std))
    for name, layer in model.named_modules():
        if name in ("interior_head", "boundary_head", "mask_head.3"):
            nn.init.constant_(layer.bias, math.log(args.prior / (1 - args.prior)))
    return model


def make_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    if args.optimizer == "sgd":
        kind = {"momentum": 0.9, "nesterov": True, "weight_decay": args.weight_decay}
        return torch.optim.SGD(model.parameters(), lr=args.lr, **kind)
    if args.optimizer == "muon":
        return Muon(model, args.lr, args.weight_decay)
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]  # biases and batch norm do not decay
    groups = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=args.lr, weight_decay=args.weight_decay)


def learning_rate(step: int, steps: int, args: argparse.Namespace) -> float:
    """The rate of a step, counted from 0, of `steps`."""
    if args.schedule == "triangle":  # the authors': up to the middle, down to the end, linearly
        return args.lr * (1 - abs(2 * (step + 1) / (steps + 1) - 1))
    warm = max(1, round(args.warmup * steps))
    if step < warm:
        return args.lr * (step + 1) / warm
    return args.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """The moving average of the weights and batch-norm statistics; it warms up over 10/(1-decay)
    steps, so that short runs do not carry their first weights along."""

    def average(ema: list, current: list, count) -> None:
        if not torch.is_floating_point(ema[0]):
            torch._foreach_copy_(ema, current)
            return
        torch._foreach_lerp_(ema, current, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
