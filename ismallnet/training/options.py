"""The command line of a training, and the arguments of a run that is repeated or resumed."""

import argparse
import json
import math
import sys
from pathlib import Path

from dataset import add_data_arguments
from ismallnet.checkpoints import read_checkpoint
from ismallnet.cli import DataError, HelpFormatter
from ismallnet.labels import METHODS
from ismallnet.training.recipes import RECIPES
from net import LOSSES, VARIANTS, WIDTH

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
