"""The command line of a training, and the arguments of a run that is repeated or resumed."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ismallnet.arguments import add_data_arguments, refuse_idle
from ismallnet.checkpoints import read_checkpoint
from ismallnet.cli import DataError, HelpFormatter, gone
from ismallnet.labels import METHODS
from ismallnet.parallel import cores
from ismallnet.training.augmentation import MIRRORS
from ismallnet.training.recipes import RECIPES

SESSION = ("config", "resume", "run_name", "max_minutes", "help")  # not the run's
# What may differ between a run and its continuation: it changes the weights by rounding at most.
FREE = {
    *("resume", "network", "data_root", "maps_root", "runs", "run_name", "device", "workers"),
    *("max_minutes", "save_every", "eval_every", "select", "no_graphs", "config"),
}


def within(kind: type, least: float, most: float = math.inf) -> Callable[[str], float]:
    """The type of an argument that is a number from `least` to `most`."""

    def number(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            limits = f"{least} to {most}" if most < math.inf else f"{least} or more"
            raise argparse.ArgumentTypeError(f"found {text}, expected {limits}")
        return value

    return number


COUNT, WHOLE, SIDE = within(int, 1), within(int, 0), within(int, 32)
SHARE, AMOUNT = within(float, 0, 1), within(float, 0)
METAVARS = {COUNT: "N", WHOLE: "N", SIDE: "PX", SHARE: "P", AMOUNT: "X"}


def folder_name(text: str) -> str:
    if text in ("", "..") or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected the name of one folder, without /")
    return text


def add_flag(group, flag: str, kind: Callable | Sequence[str], help: str, default=None) -> None:
    """Adds a flag to a parser or a group of it.

    Args:
        kind: bool for one without a value; the type of a number; words to choose from; or the
            placeholder of a text.
    """
    if kind is bool:
        group.add_argument(flag, action="store_true", help=help)
    elif isinstance(kind, str):
        group.add_argument(flag, metavar=kind, help=help, default=default)
    elif callable(kind):
        placeholder = METAVARS.get(kind, "X")
        group.add_argument(flag, type=kind, metavar=placeholder, help=help, default=default)
    else:
        group.add_argument(flag, choices=kind, help=help, default=default)


def build_parser(variants: Sequence[str], losses: Sequence[str], width: int) -> argparse.ArgumentParser:
    """The parser of train.py; the arguments are those of `net`."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,  # so that --rec does not mean --recipe in one version and fail in another
        description="Training: a data set -> weights, in RUNS/NAME/RUN/.",
        formatter_class=HelpFormatter,
    )
    add_data_arguments(parser, maps=True, required=False)  # --config may name it, too
    methods = {"choices": tuple(METHODS), "default": "authors"}
    parser.add_argument("--labels", "--method", **methods, help="label decoupling, see utils.py")
    add = partial(add_flag, parser)
    add("--width", COUNT, "channels at full resolution; 16 is the paper's", width)
    add("--variant", variants, "ablations, see docs/RESEARCH.md", "full")
    own = "a network of your own in the place of iSmallNet (docs/RESEARCH.md)"
    add("--network", "FILE.py:CLASS", own)
    add("--init", "FILE", "weights to begin with; default: new ones")
    add("--hold-out", WHOLE, "test on every Nth training image", 0)
    add("--seed", within(int, 0, 2**63 - 1), "of the weights, the order and the augmentation", 0)
    add("--config", "FILE", "a run's config.json: its arguments, before those typed here")
    gone(parser, "--distill", "distillation changed nothing in what was measured; leave it out")
    gone(parser, "--compile", "torch.compile was slower; leave it out")
    group = parser.add_argument_group("recipe: --recipe sets the others, each can be overridden")
    add_recipe_flags(partial(add_flag, group), losses)
    add_running_flags(partial(add_flag, parser.add_argument_group("running")))
    newest = "continue a run: its folder; without a value --run-name's, or the data set's newest"
    parser.add_argument("--resume", nargs="?", const="newest", metavar="RUN", help=newest)
    parser.set_defaults(**RECIPES["default"])
    return parser


def add_recipe_flags(add: Callable, losses: Sequence[str]) -> None:
    add("--recipe", tuple(RECIPES), "ours (default), or the authors' code's")
    add("--epochs", COUNT, "passes over the training list")
    add("--batch-size", COUNT, "images a step, all processes together")
    add("--augment", ("crop", "authors"), "crops, or whole images at 224-352 px")
    add("--crop", SIDE, "side of the training crops", 256)
    add("--last-crop", SIDE, "side in the last steps; default: as --crop")
    add("--last-share", SHARE, "share of the steps for --last-crop", 0.2)
    add("--target-share", SHARE, "share of the crops that are placed on a target", 0.5)
    add("--clutter-share", SHARE, "share of the other crops on bright clutter", 0.5)
    add("--balance", bool, "sample several data sets equally")
    mirror = "crops are mirrored left-right, up-down and at the diagonal (all), or at the diagonal "
    mirror += "alone; auto: all, unless the masks lie to one side of their targets"
    add("--mirror", ("auto", *MIRRORS), mirror)
    add("--scale-jitter", within(float, 1, 4), "largest rescaling, a factor", 1.25)
    sensor = "share of the crops that look as another sensor's: gamma, gain, noise, blur, JPEG"
    add("--sensor-share", SHARE, sensor, 0.0)
    add("--brightness", SHARE, "largest relative change", 0.1)
    add("--contrast", SHARE, "largest relative change", 0.1)
    add("--loss", losses, "jaccard, or as the authors published it")
    optimizer = "muon: of the convolutions, AdamW of the rest; sgd: Nesterov, momentum 0.9"
    add("--optimizer", ("muon", "adamw", "sgd"), optimizer)
    add("--lr", AMOUNT, "highest learning rate")
    add("--weight-decay", AMOUNT, "of the convolutions' weights (sgd: of all)")
    add("--schedule", ("cosine", "triangle"), "lr: warm-up and cosine, or up and down")
    add("--warmup", within(float, 0, 0.9), "share of the steps, for cosine", 0.05)
    add("--ema", within(float, 0, 0.99999), "decay of the averaged weights per step; 0: none")
    add("--prior", within(float, 1e-6, 0.5), "probability that the untrained network gives")
    add("--clip", AMOUNT, "largest gradient norm; 0: no limit")


def add_running_flags(add: Callable) -> None:
    add("--device", "NAME", "auto, cpu, cuda, cuda:1, …", "auto")
    add("--amp", ("auto", "bf16", "fp16", "off"), "mixed precision", "auto")
    add("--no-graphs", bool, "on CUDA, take steps one kernel at a time; slower")
    add("--deterministic", bool, "bit-identical results on CUDA too; slower")
    add("--workers", WHOLE, "processes that make the samples", min(2, cores()))
    add("--eval-every", WHOLE, "epochs between evaluations; 0: only at the end", 10)
    add("--select", ("last", "test"), "test: keep the best epoch too", "last")
    add("--save-every", AMOUNT, "minutes between checkpoints", 5.0)
    add("--max-minutes", AMOUNT, "save and leave after so many minutes; --resume later")
    add("--runs", "DIR", "where runs are kept", "runs")
    add("--run-name", folder_name, "its folder; default: date and time")


def parse(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of a new run: those typed, before those of --config, before those of the recipe.

    Raises:
        DataError: a --config that is not one, or an argument without effect.
    """
    argv = sys.argv[1:] if argv is None else argv
    typed = parser.parse_args(argv)
    config = read_config(parser, typed.config)
    recipe = typed.recipe or config.get("recipe", "default")
    if typed.recipe:  # it sets these
        config = {key: value for key, value in config.items() if key not in RECIPES["default"]}
    parser.set_defaults(**RECIPES.get(recipe, {}) | {"recipe": recipe})
    args = parser.parse_args([*as_typed(config | {"recipe": recipe}), *argv])
    if not args.dataset:
        parser.error("the following arguments are required: --dataset")
    args.dataset = list(dict.fromkeys(args.dataset))
    if args.resume is None:  # else the run has its own
        for when, keys in idle(args).items():
            refuse_idle(parser, parser.parse_args(argv), keys, when)
    return args


def idle(args: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """Arguments that have no effect on such a run, by the reason."""
    crops = ("last_crop", "last_share", "target_share", "clutter_share")
    crops += ("scale_jitter", "brightness", "contrast", "sensor_share")
    whole = args.augment == "authors"
    return {
        "beside --augment authors, which takes whole images": crops if whole else (),
        "with one data set": ("balance",) if len(args.dataset) == 1 else (),
        "without --last-crop": () if args.last_crop else ("last_share",),
        "beside --init, whose outputs are not new": ("prior",) if args.init else (),
        "beside --network": ("width", "variant", "prior") if args.network else (),
        "beside --schedule triangle": ("warmup",) if args.schedule == "triangle" else (),
    }


def read_config(parser: argparse.ArgumentParser, path: str | None) -> dict:
    """The arguments in a run's config.json, less those of that one session; none of no file.

    Raises:
        DataError: not a config.json, or it holds what could not be typed.
    """
    if not path:
        return {}
    try:
        kept = dict(json.loads(Path(path).read_text(encoding="utf-8"))["args"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"--config {path}: expected a run's config.json ({error})") from error
    kept = {key: value for key, value in kept.items() if key not in SESSION}
    parse_kept(parser, kept, f"--config {path}")
    return kept


def parse_kept(parser: argparse.ArgumentParser, kept: dict, name: str) -> argparse.Namespace:
    """The arguments that a file called `name` keeps, checked as typed ones are."""

    def refuse(message: str) -> None:
        raise DataError(f"{name}: {message}")

    parser.error = refuse
    args = parser.parse_args(as_typed(kept))
    del parser.error
    if kept.get("empty_by", "mask" if "sensor_share" in kept else "map") != "mask":
        raise DataError(f"{name}: a run of an earlier version, with another loss; start another run")
    return args


def as_typed(kept: dict) -> list[str]:
    """The arguments of a file as they are typed, so that they are checked as typed ones are."""
    argv = []
    for key, value in kept.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, list):  # argparse takes -1e-05 for a flag
            exact = [np.format_float_positional(v, trim="-") if type(v) is float else v for v in value]
            argv += [flag, *map(str, exact)]
        elif value is True:
            argv.append(flag)
        elif value is not None and value is not False and key != "empty_by":  # which went
            argv.append(f"{flag}={value}")
    return argv


def find_run(runs: Path, resume: str, run_name: str | None) -> Path:
    """The checkpoint of the run that --resume means, of those in the data set's folder `runs`.

    Raises:
        DataError: there is no such run.
    """
    if not resume or (run_name and resume != "newest"):
        raise DataError(f"--resume {resume!r}: expected one of a run's folder and --run-name")
    saved = sorted(runs.glob("*/last.pt"), key=lambda p: p.stat().st_mtime)
    path = Path(resume)
    if resume == "newest":
        path = runs / run_name if run_name else (saved or [runs])[-1]
    path = path / "last.pt" if path.is_dir() else path
    if not path.is_file():
        names = ", ".join(p.parent.name for p in saved) or "none"
        raise DataError(f"{path}: no run; runs in {runs}: {names}. To start one leave --resume out")
    return path


def resume(
    parser: argparse.ArgumentParser, argv: list[str] | None, path: Path
) -> tuple[argparse.Namespace, dict]:
    """The arguments of the run that is resumed from a checkpoint's `path`, and the checkpoint.

    Raises:
        DataError: not a run's checkpoint, or an argument was typed that would change the result.
        WeightsError: it cannot be read.
    """
    argv = sys.argv[1:] if argv is None else argv
    checkpoint = read_checkpoint(path)
    try:
        kept = dict(checkpoint["info"]["args"])
        if not isinstance(checkpoint["training"]["step"], int):
            raise TypeError("step")
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: expected a last.pt that train.py wrote, found no {error}") from error
    kept = {key: kept[key] for key in kept if key not in ("resume", "max_minutes", "help")}
    before = parse_kept(parser, kept, str(path))
    config = read_config(parser, parser.parse_args(argv).config)
    args = parser.parse_args([*as_typed(kept), *as_typed(config), *argv])
    args.dataset = list(dict.fromkeys(args.dataset))
    for name, value in vars(args).items():  # what differs from the checkpoint was typed, or --config's
        if name not in FREE and (own := getattr(before, name)) != value:
            flag = name.replace("_", "-")
            raise DataError(
                f"{path}: this run has --{flag} {own}, found --{flag} {value}; leave it out to "
                "resume the run, or start another: leave --resume out"
            )
    return args, checkpoint
