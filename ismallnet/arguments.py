"""The arguments of all command lines that name a data set, and the data sets that they name."""

import argparse
import dataclasses
from collections.abc import Iterable

from ismallnet.cli import DataError
from ismallnet.datasets.checks import copies_note, digests_of_equal_sizes
from ismallnet.datasets.find import find_dataset
from ismallnet.datasets.masks import TARGET
from ismallnet.datasets.sample import DatasetFolder, Reading
from ismallnet.images.grey import PERCENTILES, GreyRange


def data_name(text: str) -> str:
    return text.rstrip("/")


def add_data_arguments(
    parser: argparse.ArgumentParser,
    images: bool = True,
    maps: bool = False,
    required: bool = True,
    named: bool = True,
) -> None:
    """The arguments of all stages that name a data set, of those that read its images, and of those
    that read or write its label maps, under the same names everywhere; without `named` those alone
    that say how a data set is read, whatever names it."""
    add = parser.add_argument
    name = {"nargs": "+", "required": required, "metavar": "NAME", "type": data_name}
    if named:
        add("--dataset", **name, help="folders below --data-root")
    add("--data-root", default="data", metavar="DIR", help="where the data sets are")
    lists = "a folder of lists (idx_427), or a training and a test list; default: docs/DATASETS.md"
    add("--split", nargs="+", metavar="LIST", help=lists)
    threshold = {"type": int, "default": TARGET, "metavar": "GREY"}
    add("--mask-threshold", **threshold, help="mask values from here up are target, 1-255")
    add("--image-folder", metavar="DIR", help="images in NAME/DIR; default: a usual name")
    add("--mask-folder", metavar="DIR", help="masks in NAME/DIR; default: a usual name")
    add("--image-suffix", default="", metavar="TEXT", help="image X is XTEXT.png")
    add("--mask-suffix", default="", metavar="TEXT", help="the mask of X is XTEXT.png")
    missing = {"choices": ("error", "empty"), "default": "error"}
    add("--missing-masks", **missing, help="empty: images without a mask have no targets")
    add("--follow-links", action="store_true", help="also links that lead out of the data set")
    if images:
        limits = "values of images of more than 8 bits that become 0 and 255; default: --percentiles"
        add("--range", nargs=2, type=float, metavar=("MIN", "MAX"), help=limits)
        low_high = {"nargs": 2, "type": float, "default": list(PERCENTILES), "metavar": ("LOW", "HIGH")}
        add("--percentiles", **low_high, help="the same, as percentiles of each image's own values")
        polarity = {"choices": ("bright", "dark"), "default": "bright"}
        add("--polarity", **polarity, help="dark: targets are dark (black-hot); images are inverted")
    if maps:
        add("--maps-root", metavar="DIR", help="label maps in DIR/NAME, not in the data set's folder")


def grey_range(args: argparse.Namespace) -> GreyRange:
    """What a command line says of the images' grey values."""
    (low, high), dark = args.percentiles, args.polarity == "dark"
    if not 0 <= low < high <= 100:
        raise DataError(f"--percentiles: found {low:g} {high:g}, expected 0 <= LOW < HIGH <= 100")
    if not args.range:
        return GreyRange(percentiles=(low, high), dark=dark)
    if (low, high) != PERCENTILES:
        raise DataError("--range and --percentiles: expected one of them")
    if not args.range[0] < args.range[1]:
        raise DataError(f"--range: found {args.range[0]:g} {args.range[1]:g}, expected MIN < MAX")
    return GreyRange(limits=tuple(args.range), dark=dark)


def given_reading(args: argparse.Namespace) -> Reading:
    """What a command line says of how a data set lies on disk."""
    return Reading(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Reading)})


def refuse_idle(
    parser: argparse.ArgumentParser, args: argparse.Namespace, keys: Iterable[str], when: str
) -> None:
    """Refuses those of the arguments named `keys` that differ from their default: they do nothing."""
    if idle := [key for key in keys if getattr(args, key) != parser.get_default(key)]:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in idle)
        raise DataError(f"{flags}: has no effect {when}; leave it out")


def open_datasets(
    args: argparse.Namespace, needed: tuple[str, ...] = ("train", "test"), copies: bool = True
) -> list[DatasetFolder]:
    """The data sets that a command line names; what lies there is printed once.

    Args:
        needed: the lists whose masks are used.
        copies: look for copies of training images in the test list, for which images are opened.
    """
    if args.split and len(args.split) > 2:
        raise DataError("--split: expected a folder, or a training and a test list")
    if not 1 <= args.mask_threshold <= 255:
        raise DataError(f"--mask-threshold: found {args.mask_threshold}, expected 1 to 255")
    if hasattr(args, "range"):
        grey_range(args)
    sets, reading = [], given_reading(args)
    for name in dict.fromkeys(args.dataset):
        data = find_dataset(name, args.data_root, args.split, args.mask_threshold, reading, needed)
        lists = ", ".join(f"{len(samples)} {kind}" for kind, samples in data.lists.items())
        print(f"{data.root}: {data.layout}; {lists}", *data.notes, sep="\n  ")
        train, test = (data.lists.get(kind, []) for kind in ("train", "test"))
        if copies and (text := copies_note(*digests_of_equal_sizes(train, test))):
            print(f"  {text}")
        sets.append(data)
    return sets
