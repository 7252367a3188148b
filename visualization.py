"""Figures: what a network found, image by image, and its curves.

    python visualization.py --dataset NUAA-SIRST

For each test image a panel RESULTS/NAME/figures/X.png: image, mask, interior and boundary map,
prediction, and the outcome by component (hits green, misses red, false alarms yellow), with a zoom
below. Then montage.png (worst and best images), roc.png, precision_recall.png, pd_fa.png and, where
the maps come from a run of train.py, training.png and training_loss.png; and report/index.html
(report.py), which shows all of it in a browser. After `detect.py`, with the same --input or
--name, the report alone.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ismallnet.arguments import add_data_arguments, grey_range, open_datasets
from ismallnet.cli import DataError, HelpFormatter, command, positive, progress, some
from ismallnet.datasets.checks import complaint
from ismallnet.datasets.masks import masks_digest, read_mask
from ismallnet.datasets.names import printable
from ismallnet.datasets.sample import DatasetFolder, Sample
from ismallnet.evaluation.map_files import (
    check_finished,
    check_names,
    chosen_on_test,
    holds_zero_one,
    map_file,
    maps_in,
    own_name,
    read_about,
    read_map,
    results_folder,
)
from ismallnet.evaluation.protocols import PROTOCOLS
from ismallnet.evaluation.tables import table
from ismallnet.files import read_json, write_png
from ismallnet.labels import maps_folder, read_maps, stale_maps
from ismallnet.parallel import cores, in_processes
from ismallnet.report.outcome import Layers, outcome
from ismallnet.report.page import entry, write_gallery, write_layers, write_page
from ismallnet.report.panels import montage, panel
from ismallnet.report.paper_figures import draw_curves, panels, surfaces

FRAME_ARGUMENTS = (
    "name",
    "input",
    "results",
    "workers",
)  # all that the report of frames without a data set uses


@dataclass(frozen=True)
class Other:
    """The maps of a run that is compared, of any program."""

    label: str
    folder: Path
    zero_one: bool  # they hold 0 and 1

    def read(self, name: str, shape: tuple[int, int]) -> np.ndarray:
        return read_map(map_file(self.folder, name), shape, self.zero_one)


def open_others(folders: list[Path], data: DatasetFolder) -> list[Other]:
    """The runs to compare, each DIR or DIR/NAME.

    Raises:
        DataError: unfinished, or inverted maps.
    """
    names = [sample.name for sample in data.samples("test")]
    found = []
    for folder in folders:
        maps = maps_in(folder, data.name)
        check_finished(maps, names)
        found.append(Other(str(folder), maps, holds_zero_one(maps, names)))
    return found


def draw(
    numbered: tuple[int, Sample],
    maps: Path,
    labels: Path,
    folder: Path,
    others: list[Other],
    again: str,
    args: argparse.Namespace,
) -> dict | DataError:
    """Writes a sample's panel, and its layers for the report; returns what the report knows of it."""
    order, sample = numbered
    try:
        image, facts = grey_range(args).read(sample.image, sample.name)
        image = image.astype(np.uint8)
        shape = image.shape[:2]
        pred = read_map(maps / f"{sample.name}.png", shape)
        mask = read_mask(sample, shape, args.mask_threshold)
        parts = read_maps(labels, sample, shape, again)
        compared = [other.read(sample.name, shape) for other in others]
    except DataError as error:
        return error
    layers = Layers(image, mask, *parts, pred)
    found = outcome(pred, mask)
    write_png(folder / f"{sample.name}.png", panel(sample.name, layers, found))
    write_layers(maps / "report" / "images", order, layers, compared)
    return entry(order, sample.name, layers, found, compared) | {"grey": facts}


# --- curves --------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=HelpFormatter,
    )
    add_data_arguments(parser, maps=True, required=False)
    add = parser.add_argument
    add("--results", default="results", metavar="DIR", help="where test.py and eval.py wrote")
    add("--name", help="after detect.py: its results, RESULTS/NAME, in place of a data set")
    add("--input", nargs="+", metavar="PATH", help="after detect.py: the same PATH, in place of --name")
    add(
        "--compare",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="folders of other runs' maps, DIR or DIR/NAME, of any program: side by side in the report",
    )
    add("--figure", choices=("paper",), help="also panels and 3-D surfaces as PDF and SVG")
    add("--images", nargs="+", metavar="X", help="of the test list, in --figure; default: four")
    add("--each", type=positive, default=5, metavar="N", help="worst and best images in the montage")
    add("--workers", type=positive, default=cores(), metavar="N", help="processes")
    return parser


def check_arguments(args: argparse.Namespace, default: Callable[[str], object]) -> None:
    """
    Args:
        default: gives the default of an argument.

    Raises:
        DataError: a flag that the mode does not use.
    """
    if bool(args.dataset) == bool(args.name or args.input):
        raise DataError("expected --dataset NAME, or after detect.py: --name NAME")
    unused = [] if args.figure else ["images"]
    if not args.dataset:
        unused = [key for key in vars(args) if key not in ("dataset", *FRAME_ARGUMENTS)]
    if typed := [key for key in unused if getattr(args, key) != default(key)]:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in typed)
        needed = "--figure paper" if args.dataset else "--dataset"
        raise DataError(f"{flags}: used with {needed} alone; leave it out, or type {needed}")
    for other in args.compare or []:
        if not other.is_dir():
            raise DataError(f"--compare {other}: no such folder, expected maps, as results/RUN/NAME")


@command()
def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    args = parser.parse_args(argv)
    check_arguments(args, parser.get_default)
    args.compare = args.compare or []
    if not args.dataset:
        folder = results_folder(args.results, args.name, args.input or [])
        print(f"open {write_gallery(folder, args.workers)}")
        return
    for data in open_datasets(args):
        maps = Path(args.results) / data.name
        if not maps.is_dir():
            raise DataError(f"{maps}: found no maps; make them: {data.command('test')}")
        samples = data.samples("test")
        names = [sample.name for sample in samples]
        check_finished(maps, names)
        check_names(maps, names)
        others = open_others(args.compare, data)
        entries, overview = draw_dataset(data, maps, others, args)
        about = read_about(maps)
        if (polarity := about.get("polarity", args.polarity)) != args.polarity:
            print(f"note: {maps}: made with --polarity {polarity}; type it here too")
        figures = read_json(maps / "metrics.json")
        then = read_json(maps / "metrics_about.json")
        masks, threshold = masks_digest(samples), then.pop("mask_threshold", args.mask_threshold)
        if figures and threshold != args.mask_threshold:
            print(f"{maps}/metrics.json: with --mask-threshold {threshold}, left out")
            figures = {}
        elif figures and then.pop("masks", masks) != masks:
            print(f"{maps}/metrics.json: of other images or masks than these, left out")
            figures = {}
        elif figures and then != about:
            print(f"{maps}/metrics.json: of other maps than these, left out")
            figures = {}
        figures = {name: figures[name] for name in PROTOCOLS if isinstance(figures.get(name), dict)}
        notes = draw_curves(data.name, maps, figures, data.command("eval"))
        print(*notes, f"panels and curves: {maps}/figures/, {maps}/", sep="\n")
        if figures:
            print(table(figures))
        origin = about.get("weights") or about.get("baseline") or "maps of another program"
        if chosen_on_test(maps):
            origin = f"{origin}, CHOSEN ON THE TEST LIST"
        page = write_page(
            maps / "report",
            f"{data.name}, test list",
            origin,
            figures,
            entries,
            [other.label for other in others],
            str(maps) if others else data.name,  # a report of one run stays the same elsewhere
            data.command("eval"),
        )
        if args.figure:
            print(*draw_paper(data, maps, entries, others, args), sep="\n")
        print("open", *([overview, "and"] if overview else []), page)


def draw_paper(
    data: DatasetFolder,
    maps: Path,
    entries: list[dict],
    others: list[Other],
    args: argparse.Namespace,
) -> list[Path]:
    """The figures of figures.py: of --images, or of four from bad to good IoU.

    Raises:
        DataError: an image is not in the test list.
    """
    samples = {sample.name: sample for sample in data.samples("test")}
    ranked = sorted((e["page"] for e in entries if e["page"]["targets"]), key=lambda page: page["iou"])
    chosen = args.images or [ranked[k * (len(ranked) - 1) // 3]["name"] for k in range(4) if ranked]
    if unknown := [name for name in chosen if name not in samples]:
        raise DataError(f"{data.root}: found no {', '.join(unknown)} in the test list")
    centres = {e["page"]["name"]: e["centre"] for e in entries}
    rows = []
    for name in dict.fromkeys(chosen):
        image, _ = grey_range(args).read(samples[name].image)
        shape = image.shape[:2]
        mask = read_mask(samples[name], shape, args.mask_threshold)
        preds = [read_map(map_file(maps, name), shape), *(o.read(name, shape) for o in others)]
        rows.append(
            (printable(name), centres[name], [image.mean(axis=2).astype(np.uint8), mask, *preds])
        )
    folders = (maps, *(other.folder for other in others))
    titles = ["image", "mask", *(own_name(folder, data.name) for folder in folders)]
    if not rows:
        return []
    folder = maps / "paper"
    return panels(folder / "panels", rows, titles) + surfaces(folder / "surfaces", rows, titles)


def draw_dataset(
    data: DatasetFolder, maps: Path, others: list[Other], args: argparse.Namespace
) -> tuple[list[dict], Path | None]:
    """The panels, the montage and the report's pictures of a test list; returns what the report
    knows of its images, and the montage's path, None where no image has a target.

    Raises:
        DataError: names all maps and files that are missing or cannot be used.
    """
    labels = maps_folder(data, args.maps_root)
    if not (labels / "maps.json").exists():
        raise DataError(f"{labels}: found no label maps; make them: {data.command('utils')}")
    made = read_json(labels / "maps.json").get("mask_threshold", args.mask_threshold)
    if made != args.mask_threshold:
        raise DataError(
            f"{labels}: found label maps with --mask-threshold {made}, expected {args.mask_threshold}; "
            f"make them again: {data.command('utils')}"
        )
    if stale := stale_maps(labels, data.samples("test")):
        raise DataError(
            f"{labels}: the label maps of {some(stale)} are not of the masks as they are now; make "
            f"them again: {data.command('utils')}"
        )
    paths = {"maps": maps, "labels": labels, "folder": maps / "figures", "others": others}
    one = partial(draw, **paths, again=data.command("utils"), args=args)
    entries, problems = [], list(data.problems["test"])
    samples = data.samples("test")
    results = in_processes(one, list(enumerate(samples)), args.workers)
    for result in progress(results, f"{data.name} figures", len(samples)):
        if isinstance(result, DataError):
            problems.append(str(result))
        else:
            entries.append(result)
    if problems:
        raise DataError(complaint(data, "test", problems))
    facts = [e["grey"] for e in entries if e["grey"]]
    for line in grey_range(args).report(f"{data.name} test", facts, len(samples)):
        print(line)
    ious = {e["page"]["name"]: e["page"]["iou"] for e in entries if not e["empty"]}
    return entries, montage(maps / "figures", ious, args.each)


if __name__ == "__main__":
    sys.exit(main())
