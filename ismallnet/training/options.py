"""The command line of a training, and the arguments of a run that is repeated or resumed."""

import argparse
import json
import math
from pathlib import Path

import numpy as np

from ismallnet.arguments import add_data_arguments, refuse_idle
from ismallnet.checkpoints import read_checkpoint
from ismallnet.cli import DataError, HelpFormatter
from ismallnet.labels import METHODS
from ismallnet.parallel import cores
from ismallnet.training.augmentation import MIRRORS
from ismallnet.training.recipes import RECIPES
from net import LOSSES, VARIANTS, WIDTH

CHOICES = {
    "labels": tuple(METHODS),
    "variant": VARIANTS,
    "recipe": tuple(RECIPES),
    "augment": ("crop", "authors"),
    "mirror": ("auto", *MIRRORS),
    "loss": LOSSES,
    "optimizer": ("muon", "adamw", "sgd"),
    "schedule": ("cosine", "triangle"),
    "amp": ("auto", "bf16", "fp16", "off"),
    "select": ("last", "test"),
}
LIMITS = {
    **dict.fromkeys(("width", "epochs", "batch_size"), (1, math.inf)),
    **dict.fromkeys(("lr", "weight_decay", "clip", "workers"), (0, math.inf)),
    **dict.fromkeys(("eval_every", "save_every", "max_minutes"), (0, math.inf)),
    **dict.fromkeys(("target_share", "clutter_share", "brightness", "contrast", "last_share"), (0, 1)),
    **{
        "scale_jitter": (1, 4),
        "seed": (0, 2**63 - 1),
        "hold_out": (0, math.inf),
        "crop": (32, math.inf),
        "last_crop": (32, math.inf),
        "ema": (0, 0.99999),
        "warmup": (0, 0.9),
        "prior": (1e-6, 0.5),
    },
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,  # so that --rec does not mean --recipe in one version and fail in another
        description="Training: a data set -> weights, in RUNS/NAME/RUN/.",
        formatter_class=HelpFormatter,
    )
    add_data_arguments(parser, maps=True, required=False)  # --config and --resume name it, too
    add = parser.add_argument
    add("--labels", "--method", choices=CHOICES["labels"], default="authors", help="label decoupling")
    add("--width", type=int, default=WIDTH, help="channels at full resolution; 16 is the paper's")
    add(
        "--variant",
        choices=CHOICES["variant"],
        default="full",
        help="ablations, see net.py",
    )
    add("--init", metavar="FILE", help="weights to begin with; default: new ones")
    add("--distill", metavar="FILE", help="weights whose probabilities are learned beside the masks")
    add("--hold-out", type=int, default=0, metavar="N", help="test on every Nth training image instead")
    add("--seed", type=int, default=0, help="of the weights, the order and the augmentation")
    add("--config", metavar="FILE", help="a run's config.json: its arguments, before those typed here")

    add = parser.add_argument_group(
        "recipe: --recipe sets the others, each can be overridden"
    ).add_argument
    add("--recipe", choices=CHOICES["recipe"], help="ours (default), or the authors' code's")
    add("--epochs", type=int, help="passes over the training list")
    add("--batch-size", type=int, metavar="N", help="images a step, all processes together")
    add("--augment", choices=CHOICES["augment"], help="crops, or whole images at 224-352 px")
    add("--crop", type=int, default=256, metavar="PX", help="side of the training crops")
    add("--last-crop", type=int, metavar="PX", help="side in the last steps; default: as --crop")
    add("--last-share", type=float, default=0.2, metavar="P", help="share of the steps for --last-crop")
    add("--target-share", type=float, default=0.5, metavar="P", help="crops placed on a target, share")
    add(
        "--clutter-share",
        type=float,
        default=0.5,
        metavar="P",
        help="other crops placed on clutter, share",
    )
    add("--balance", action="store_true", help="of several data sets equal shares, not by their sizes")
    add(
        "--mirror",
        choices=CHOICES["mirror"],
        help="crops are mirrored left-right, up-down and at the diagonal (all), or at the diagonal "
        "alone; auto: all, unless the masks lie to one side of their targets",
    )
    add("--scale-jitter", type=float, default=1.25, metavar="X", help="largest rescaling, a factor")
    add("--brightness", type=float, default=0.1, metavar="X", help="largest relative change")
    add("--contrast", type=float, default=0.1, metavar="X", help="largest relative change")
    add(
        "--loss",
        choices=CHOICES["loss"],
        help="jaccard, or as the authors published it",
    )
    add(
        "--optimizer",
        choices=CHOICES["optimizer"],
        help="muon: of the convolutions, AdamW of the rest; sgd: Nesterov, momentum 0.9",
    )
    add("--lr", type=float, help="highest learning rate")
    add("--weight-decay", type=float, metavar="X", help="of the convolutions' weights (sgd: of all)")
    add("--schedule", choices=CHOICES["schedule"], help="lr: warm-up and cosine, or up and down")
    add("--warmup", type=float, default=0.05, metavar="P", help="share of the steps, for cosine")
    add("--ema", type=float, metavar="D", help="decay of the averaged weights per step; 0: none")
    add("--prior", type=float, metavar="P", help="probability that the untrained network gives")
    add("--clip", type=float, metavar="NORM", help="largest gradient norm; 0: any")

    add = parser.add_argument_group("running").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--amp", choices=CHOICES["amp"], default="auto", help="mixed precision")
    add("--compile", action="store_true", help="torch.compile")
    add("--no-graphs", action="store_true", help="on CUDA, take steps one kernel at a time; slower")
    add("--deterministic", action="store_true", help="on CUDA, too, the same bytes again; slower")
    add(
        "--workers",
        type=int,
        default=min(2, cores()),
        metavar="N",
        help="processes that make training samples",
    )
    add("--eval-every", type=int, default=10, metavar="EPOCHS", help="0: only at the end")
    add("--select", choices=CHOICES["select"], default="last", help="test: keep the best epoch too")
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
    parser.set_defaults(**RECIPES["default"])
    return parser


def check(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments, if all of them can be: a config.json or a checkpoint may hold anything.

    Raises:
        DataError: a value out of its limits.
    """
    for name, choices in CHOICES.items():
        if getattr(args, name) not in choices:
            flag, found = name.replace("_", "-"), getattr(args, name)
            raise DataError(f"--{flag}: found {found!r}, expected one of {', '.join(choices)}")
    for name, (least, most) in LIMITS.items():
        value = getattr(args, name)
        if value is not None and not (isinstance(value, (int, float)) and least <= value <= most):
            flag = name.replace("_", "-")
            expected = f"{least} to {most}" if most < math.inf else f"{least} or more"
            raise DataError(f"--{flag}: found {value}, expected {expected}")
    name = args.run_name
    if name is not None and (name in ("", "..") or Path(name).name != name):
        raise DataError(f"--run-name {name!r}: expected the name of one folder, without /")
    args.dataset = list(dict.fromkeys(args.dataset))
    return args


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of a new run: those typed, before those of --config, before those of the recipe.

    Raises:
        DataError: a value out of its limits, or a --config that is not one.
    """
    parser = build_parser()
    typed = parser.parse_args(argv)
    config = read_config(typed.config) if typed.config else {}
    parser.set_defaults(recipe="default")
    parser.set_defaults(**RECIPES[typed.recipe or config.get("recipe", "default")])
    replaced = (
        {"recipe", *RECIPES["default"]} if typed.recipe else ()
    )  # a recipe that is typed sets them
    parser.set_defaults(**{key: value for key, value in config.items() if key not in replaced})
    args = parser.parse_args(argv)
    if not args.dataset:
        parser.error("the following arguments are required: --dataset")
    if typed.balance and len(set(args.dataset)) == 1:
        raise DataError("--balance: found one data set, expected several; leave it out")
    check(args)
    if args.resume is None:  # else the run has its own
        for when, keys in idle(args).items():
            refuse_idle(parser, args, keys, when)
    return args


def idle(args: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """Arguments that have no effect on such a run, by the reason."""
    crops = ("last_crop", "last_share", "target_share", "clutter_share")
    crops += ("scale_jitter", "brightness", "contrast")
    whole = args.augment == "authors"
    return {
        "beside --augment authors, which takes whole images": crops if whole else (),
        "without --last-crop": () if args.last_crop else ("last_share",),
        "beside --init, whose outputs are not new": ("prior",) if args.init else (),
        "beside --schedule triangle": ("warmup",) if args.schedule == "triangle" else (),
    }


# What runs did that do not name these arguments, since there were none.
EARLIER = {"loss": "authors", "clutter_share": 0.0, "mirror": "all"}
# Of one session, not of the run; "help" was written by mistake when a run was resumed.
SESSION = ("config", "resume", "run_name", "max_minutes", "help")


def read_config(path: str) -> dict:
    """The arguments in a run's config.json, less those of that one session.

    Raises:
        DataError: not a config.json, or one of another version.
    """
    try:
        kept = json.loads(Path(path).read_text())["args"]
        kept = EARLIER | kept
        kept = {key: value for key, value in kept.items() if key not in SESSION and value is not None}
        parser = build_parser()
        if unknown := kept.keys() - vars(parser.parse_args([])).keys():
            raise DataError(f"--config {path}: this version knows no {', '.join(sorted(unknown))}")
        parser.error = refuse
        if kept.get("recipe", "default") not in RECIPES:
            raise ValueError(f"recipe {kept['recipe']!r}")
        typed = [key for key in kept if key not in CHOICES]  # `check` looks at these
        args = parser.parse_args([text for key in typed for text in as_typed(key, kept[key])])
        for key in typed:
            if getattr(args, key) != kept[key]:
                raise ValueError(f"--{key.replace('_', '-')}: found {kept[key]!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"--config {path}: expected a run's config.json ({error})") from error
    return kept


def as_typed(key: str, value: object) -> list[str]:
    """An argument as it is typed, so that a file's values are checked as typed ones are."""
    flag = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, list):  # argparse takes -1e-05 for a flag
        exact = [np.format_float_positional(v, trim="-") if isinstance(v, float) else v for v in value]
        return [flag, *map(str, exact)]
    return [f"{flag}={value}"]


def refuse(message: str) -> None:
    raise ValueError(message)


# What may differ between a run and its continuation: it changes the weights by rounding at most.
FREE = {
    *("resume", "data_root", "maps_root", "runs", "run_name", "device", "workers", "max_minutes"),
    *("save_every", "eval_every", "select", "compile", "no_graphs", "config"),
}


def find_run(args: argparse.Namespace) -> Path:
    """The folder of the run that --resume means.

    Raises:
        DataError: there is no such run.
    """
    folder = Path(args.runs) / "+".join(args.dataset)
    if not args.resume:
        raise DataError("--resume: found '', expected a run's folder, or nothing behind it")
    if args.resume != "newest":
        path = Path(args.resume)
        run = path if path.is_dir() else path.parent
        if args.run_name not in (None, run.resolve().name):
            raise DataError(f"--run-name {args.run_name}: --resume names {run}; leave one out")
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
    return path


def resume(argv: list[str] | None, path: Path) -> tuple[argparse.Namespace, dict]:
    """The arguments of a run that is resumed, and its checkpoint.

    Args:
        argv: what was typed.
        path: of the checkpoint.

    Raises:
        DataError: not a run's checkpoint, or an argument was typed that would change the result.
        WeightsError: it cannot be read.
    """
    checkpoint = read_checkpoint(path)
    parser = build_parser()
    parser.set_defaults(recipe="default", **EARLIER)
    try:
        kept = checkpoint["info"]["args"]
        parser.set_defaults(**{key: kept[key] for key in kept if key not in ("resume", "max_minutes")})
        if not isinstance(checkpoint["training"]["step"], int):
            raise TypeError("step")
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: expected a last.pt that train.py wrote, found no {error}") from error
    before = check(parser.parse_args([]))
    if config := build_parser().parse_args(argv).config:
        parser.set_defaults(**read_config(config))
    args = check(parser.parse_args(argv))
    for name, value in vars(args).items():  # what differs from the checkpoint was typed, or --config's
        found = getattr(before, name)
        if name not in FREE and found != value:
            flag = name.replace("_", "-")
            raise DataError(
                f"{path}: this run has --{flag} {found}, found --{flag} {value}; leave it out to "
                "resume the run, or start another: leave --resume out"
            )
    return args, checkpoint
