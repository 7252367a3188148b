"""Training recipes: their values as command-line arguments, first weights, optimiser, schedule,
averaging."""

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from checkpoints import read_checkpoint
from cli import DataError, HelpFormatter
from dataset import Frames, add_data_arguments, mean_and_std
from ismallnet.training.muon import Muon
from net import LOSSES, VARIANTS, WIDTH, iSmallNet, load_weights
from utils import METHODS

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


LIMITS = {
    **dict.fromkeys(("width", "epochs", "batch_size", "scale_jitter"), (1, math.inf)),
    **dict.fromkeys(("seed", "lr", "weight_decay", "clip", "workers"), (0, math.inf)),
    **dict.fromkeys(("eval_every", "save_every", "max_minutes"), (0, math.inf)),
    **dict.fromkeys(("target_share", "brightness", "contrast", "last_share"), (0, 1)),
    **{
        "hold_out": (0, math.inf),
        "crop": (32, math.inf),
        "last_crop": (32, math.inf),
        "ema": (0, 0.99999),
        "warmup": (0, 0.9),
        "prior": (1e-6, 0.5),
    },
}


def build_parser(recipe: str = "default") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,  # --rec would pass by the look at --recipe that comes first
        description="Training: a data set -> weights, in RUNS/NAME/RUN/.",
        formatter_class=HelpFormatter,
    )
    add_data_arguments(parser, maps=True)
    add = parser.add_argument
    add("--labels", "--method", choices=METHODS, default="authors", help="label decoupling")
    add("--width", type=int, default=WIDTH, help="channels at full resolution; 16 is the paper's")
    add("--variant", choices=VARIANTS, default="full", help="ablations: what net.py leaves out")
    add("--init", metavar="FILE", help="weights to begin with; default: new ones")
    add("--hold-out", type=int, default=0, metavar="N", help="test on every Nth training image instead")
    add("--seed", type=int, default=0, help="of the weights, the order and the augmentation")
    add("--config", metavar="FILE", help="a run's config.json: its arguments, before those typed here")

    add = parser.add_argument_group(
        "recipe: --recipe sets the others, each can be overridden"
    ).add_argument
    add("--recipe", choices=list(RECIPES), default=recipe, help="ours, or the authors' code's")
    add("--epochs", type=int, help="passes over the training list")
    add("--batch-size", type=int, metavar="N", help="images a step, all processes together")
    add("--augment", choices=("crop", "authors"), help="crops, or whole images at 224-352 px")
    add("--crop", type=int, default=256, metavar="PX", help="side of the training crops")
    add("--last-crop", type=int, metavar="PX", help="side in the last steps; default: as --crop")
    add("--last-share", type=float, default=0.2, metavar="P", help="share of the steps for --last-crop")
    add("--target-share", type=float, default=0.5, metavar="P", help="crops placed on a target, share")
    add("--scale-jitter", type=float, default=1.25, metavar="X", help="largest rescaling, a factor")
    add("--brightness", type=float, default=0.1, metavar="X", help="largest relative change")
    add("--contrast", type=float, default=0.1, metavar="X", help="largest relative change")
    add("--loss", choices=LOSSES, help="jaccard: best where a map is right; authors: as published")
    add(
        "--optimizer",
        choices=("muon", "adamw", "sgd"),
        help="muon: of the convolutions, AdamW of the rest; sgd: Nesterov, momentum 0.9",
    )
    add("--lr", type=float, help="highest learning rate")
    add("--weight-decay", type=float, metavar="X", help="of the convolutions' weights (sgd: of all)")
    add("--schedule", choices=("cosine", "triangle"), help="lr: warm-up and cosine, or up and down")
    add("--warmup", type=float, default=0.05, metavar="P", help="share of the steps, for cosine")
    add("--ema", type=float, metavar="D", help="decay of the averaged weights per step; 0: none")
    add("--prior", type=float, metavar="P", help="probability that the untrained network gives")
    add("--clip", type=float, metavar="NORM", help="largest gradient norm; 0: any")

    add = parser.add_argument_group("running").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--amp", choices=("auto", "bf16", "fp16", "off"), default="auto", help="mixed precision")
    add("--compile", action="store_true", help="torch.compile")
    add("--deterministic", action="store_true", help="on CUDA, too, the same bytes again; slower")
    add("--workers", type=int, default=2, metavar="N", help="processes that make training samples")
    add("--eval-every", type=int, default=10, metavar="EPOCHS", help="0: only at the end")
    add("--select", choices=("last", "test"), default="last", help="test: keep the best epoch too")
    add("--save-every", type=float, default=5.0, metavar="MINUTES", help="between checkpoints")
    add("--max-minutes", type=float, metavar="M", help="save and leave after M minutes; --resume later")
    add("--runs", default="runs", metavar="DIR", help="where runs are kept")
    add("--run-name", metavar="RUN", help="name of the run's folder; default: date and time")
    add(
        "--resume",
        nargs="?",
        const="newest",
        metavar="RUN",
        help="continue a run: its folder; without a value --run-name's, or the newest of the data set",
    )
    parser.set_defaults(**RECIPES[recipe])
    return parser


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, set[str]]:
    """The arguments, and the names of those that were typed.

    Raises:
        DataError: a value out of its limits, or a --config that is not one.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    argv = [*from_config(argv), *argv]
    recipe = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    recipe.add_argument("--recipe", choices=list(RECIPES), default="default")
    parser = build_parser(recipe.parse_known_args(argv)[0].recipe)
    args = parser.parse_args(argv)
    args.dataset = list(dict.fromkeys(args.dataset))
    bare = build_parser()
    for action in bare._actions:
        action.default = argparse.SUPPRESS
    bare._defaults.clear()
    for name, (least, most) in LIMITS.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            flag = name.replace("_", "-")
            expected = f"{least} to {most}" if most < math.inf else f"{least} or more"
            raise DataError(f"--{flag}: found {value}, expected {expected}")
    return args, set(vars(bare.parse_args(argv)))


SESSION = ("config", "resume", "run_name", "max_minutes")  # not repeated from a config.json


def from_config(argv: list[str]) -> list[str]:
    """The arguments of the run whose config.json --config names, as they would be typed, less those
    of that one session; none without --config."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.add_argument("--recipe")
    found = first.parse_known_args(argv)[0]
    path, replaced = found.config, RECIPES["default"] if found.recipe else ()
    if not path:
        return []
    try:
        kept = json.loads(Path(path).read_text())["args"]
        kept.setdefault("loss", "authors")  # the only one when runs did not name theirs
        unknown = kept.keys() - {action.dest for action in build_parser()._actions}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"--config {path}: expected a run's config.json ({error})") from error
    if unknown:
        raise DataError(f"--config {path}: this version knows no {', '.join(sorted(unknown))}")
    typed = []
    for action in build_parser()._actions:
        value = kept.get(action.dest)
        if action.dest in SESSION or value is None or value is False or value == []:
            continue
        if action.dest in replaced:  # a --recipe that is typed sets them
            continue
        typed.append(action.option_strings[0])
        if value is not True:
            typed += map(str, value if isinstance(value, list) else [value])
    return typed


# What may differ between a run and its continuation without changing the weights.
FREE = {
    *("resume", "data_root", "maps_root", "runs", "run_name", "device", "workers", "max_minutes"),
    *("save_every", "eval_every", "select", "compile", "config"),
}


def resumed(args: argparse.Namespace, typed: set[str]) -> tuple[argparse.Namespace, dict, Path]:
    """The arguments, checkpoint and folder of the run to continue.

    Raises:
        DataError: no such run, or an argument was typed that would change its result.
    """
    folder = Path(args.runs) / "+".join(args.dataset)
    if args.resume != "newest":
        path = Path(args.resume)
    elif args.run_name:
        path = folder / args.run_name
    else:
        found = sorted(folder.glob("*/last.pt"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise DataError(f"{folder}: found no run to resume; start one: leave --resume out")
        path = found[-1]
    path = path / "last.pt" if path.is_dir() else path
    if not path.is_file():
        runs = ", ".join(sorted(p.parent.name for p in folder.glob("*/last.pt"))) or "none"
        raise DataError(f"{path}: no such run to resume; runs in {folder}: {runs}")
    checkpoint = read_checkpoint(path)
    try:
        defaults = {action.dest: action.default for action in build_parser()._actions}
        defaults["loss"] = "authors"  # the only one when runs did not name theirs
        kept = argparse.Namespace(**(defaults | checkpoint["info"]["args"]))
        if not isinstance(checkpoint["training"]["step"], int):
            raise TypeError("step")
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: expected a last.pt that train.py wrote, found no {error}") from error
    for name in typed:
        found, asked = getattr(kept, name, None), getattr(args, name)
        if name not in FREE and found != asked:
            flag = name.replace("_", "-")
            raise DataError(
                f"{path}: this run has --{flag} {found}, found --{flag} {asked}; leave it out to "
                "continue the run, or start another: leave --resume out"
            )
    for name in FREE:
        if name in typed or name in ("resume", "max_minutes"):
            setattr(kept, name, getattr(args, name))
    return kept, checkpoint, path.parent


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
