"""Figures: what a network found, image by image, and its curves.

    python visualization.py --dataset NUAA-SIRST

For each test image a panel RESULTS/NAME/figures/X.png: image, mask, interior and boundary map,
prediction, and the outcome by component (hits green, misses red, false alarms yellow), with a zoom
below. Then curves.png, and report/index.html, which shows all of it in a browser. `--figure` draws
figures of several runs for a paper instead. After `detect.py`, with the same --name, the report alone.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ismallnet.arguments import add_data_arguments, grey_range, open_datasets, refuse_idle
from ismallnet.cli import DataError, HelpFormatter, command, gone, positive, summary
from ismallnet.datasets.checks import complaint
from ismallnet.datasets.masks import masks_digest, read_mask
from ismallnet.datasets.sample import DatasetFolder, Sample
from ismallnet.evaluation.map_files import Maps, open_maps, place_of
from ismallnet.evaluation.protocols import PROTOCOLS
from ismallnet.evaluation.tables import table
from ismallnet.files import lock, read_json, write_png
from ismallnet.images.grey import GreyRange
from ismallnet.labels import check_label_maps, maps_folder, read_maps
from ismallnet.parallel import cores, results_and_problems
from ismallnet.report.curves import draw_curves
from ismallnet.report.outcome import Layers, outcome
from ismallnet.report.page import Entry, entry_of, write_gallery, write_layers, write_report
from ismallnet.report.panels import panel
from ismallnet.report.paper_figures import Row, panels, surfaces

ABOUT = "metrics_about.json"  # what eval.py says its metrics are of
CHOSEN = 4  # images in --figure paper


class Reader(NamedTuple):
    """How samples are read: their grey values, their masks, their label maps in a folder, and the
    command that makes these."""

    grey: GreyRange
    mask_threshold: int
    labels: Path
    again: str


# --- the report --------------------------------------------------------------------------------------


def read_pair(sample: Sample, reader: Reader) -> tuple[np.ndarray, np.ndarray]:
    """An image, HxWx3 in 0-255, and its mask, HxW; uint8 each."""
    image, _ = reader.grey.read(sample.image, look=False)
    return image.astype(np.uint8), read_mask(sample, image.shape[:2], reader.mask_threshold)


def draw_sample(numbered: tuple[int, Sample], maps: Maps, reader: Reader) -> Entry:
    """Writes a sample's panel, and its layers for the report; returns what the report knows of it."""
    order, sample = numbered
    image, mask = read_pair(sample, reader)
    pred = maps.read(sample.name, mask.shape)
    label_maps = read_maps(reader.labels, sample, mask.shape, reader.again)
    layers, own = Layers(image, mask, *label_maps, pred), outcome(pred, mask)
    write_png(maps.folder / "figures" / f"{sample.name}.png", panel(sample.name, layers, own))
    write_layers(maps.folder / "report" / "images", order, layers)
    return entry_of(order, sample.name, layers, own)


def draw_images(data: DatasetFolder, maps: Maps, reader: Reader, workers: int) -> list[Entry]:
    """The panels and the report's pictures of a test list."""
    samples = data.samples("test")
    check_label_maps(reader.labels, samples, reader.again, reader.mask_threshold)
    of_one, numbered = partial(draw_sample, maps=maps, reader=reader), list(enumerate(samples))
    entries, problems = results_and_problems(of_one, numbered, workers, f"{data.name} figures")
    maps.check_unchanged()
    if problems := [*data.problems["test"], *problems]:
        raise DataError(complaint(data, "test", problems))
    return entries


def metrics_of(data: DatasetFolder, maps: Maps, threshold: int) -> dict[str, dict]:
    """What eval.py wrote beside maps, by protocol; {} where there is nothing, or where it is of others,
    which is said."""
    path, then = maps.folder / "metrics.json", read_json(maps.folder / ABOUT)
    now = maps.about | {"masks": masks_digest(data.samples("test")), "mask_threshold": threshold}
    differing = [key for key in {**now, **then} if now.get(key) != then.get(key)]
    if path.exists() and differing:
        print(f"{path}: of another {', '.join(differing)}, left out")
    written = {} if differing else read_json(path)
    return {key: written[key] for key in PROTOCOLS if key in written}


def draw_report(data: DatasetFolder, folder: Path, reader: Reader, workers: int) -> Path:
    """All figures of the maps in a folder; prints their metrics, and returns the report."""
    maps = open_maps(folder, [sample.name for sample in data.samples("test")])
    entries = draw_images(data, maps, reader, workers)
    metrics = metrics_of(data, maps, reader.mask_threshold)
    (folder / "curves.png").unlink(missing_ok=True)  # it may be of other maps
    if metrics:
        draw_curves(folder / "curves", {data.name: folder}, ("png",))
        print(table(metrics))
    else:
        print(f"no metrics and curves yet: type {data.command('eval')}, then this again")
    print(f"panels: {folder}/figures/")
    origin = maps.about.get("weights") or maps.about.get("baseline") or "maps of another program"
    origin += ", CHOSEN ON THE TEST LIST" if maps.chosen_on_test else ""
    return write_report(folder / "report", f"{data.name}, test list", origin, entries, metrics)


# --- figures of several runs -------------------------------------------------------------------------


def draw_paper(
    data: DatasetFolder, runs: dict[str, Path], path: Path, names: list[str], reader: Reader
) -> list[Path]:
    """Panels and surfaces of the named test images, or of the first ones.

    Args:
        runs: folders of maps, by their titles; the insets show where the first is worst.
    """
    samples = {sample.name: sample for sample in data.samples("test")}
    if unknown := [name for name in names if name not in samples]:
        raise DataError(f"{data.root}: found no {', '.join(unknown)} in the test list")
    maps, rows = [open_maps(place_of(run, data.name).maps, samples) for run in runs.values()], []
    for name in dict.fromkeys(names or [*samples][:CHOSEN]):
        image, mask = read_pair(samples[name], reader)
        preds = [run.read(name, mask.shape) for run in maps]
        planes = [image.mean(axis=2).astype(np.uint8), mask, *preds]
        rows.append(Row(name, outcome(preds[0], mask).centre, planes))
    for run in maps:
        run.check_unchanged()
    titles = ["image", "mask", *runs]
    return panels(path / "panels", rows, titles) + surfaces(path / "surfaces", rows, titles)


def titled(data: DatasetFolder, folders: list[Path]) -> dict[str, Path]:
    """Folders of maps by what figures call them: the names of the runs."""
    runs = {place_of(folder, data.name).title: folder for folder in folders}
    if len(runs) < len(folders):
        named = ", ".join(map(str, folders))
        raise DataError(f"--compare: found several runs of one name among {named}; rename a folder")
    return runs


def evaluated(data: DatasetFolder, run: Path, threshold: int) -> Path:
    """Where eval.py wrote what it says of a run's maps: beside them, or in results/ (--maps)."""
    now = {"masks": masks_digest(data.samples("test")), "mask_threshold": threshold}
    beside, elsewhere, _ = place_of(run, data.name)
    for folder in (beside, elsewhere):
        if now.items() <= read_json(folder / ABOUT).items():
            return folder
    again = data.command("eval", f"--maps {run}")
    raise DataError(f"{run}: found no curves of these test images; type {again}")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=summary(__doc__), formatter_class=HelpFormatter)
    add_data_arguments(parser, maps=True, required=False)
    add = parser.add_argument
    add("--results", default="results", metavar="DIR", help="where test.py and eval.py wrote")
    add("--name", help="after detect.py: its results, RESULTS/NAME, in place of a data set")
    add("--workers", type=positive, default=cores(), metavar="N", help="processes")
    group = "figures for a paper, as PDF and SVG, in place of the report"
    add = parser.add_argument_group(group).add_argument
    figure = "paper: panels and 3-D surfaces; curves: ROC, precision-recall and Pd-Fa, after eval.py"
    add("--figure", choices=("paper", "curves"), help=figure)
    compare = "beside --results: folders of other runs' maps, DIR or DIR/NAME, of any program"
    add("--compare", nargs="+", type=Path, default=[], metavar="DIR", help=compare)
    images = f"of the test list, in --figure paper; default: the first {CHOSEN}"
    add("--images", nargs="+", default=[], metavar="X", help=images)
    gone(parser, "--input", "type --name NAME, as detect.py says at its end")
    gone(parser, "--labels", "figures call runs by the names of their folders")
    gone(parser, "--each", "the report sorts the images by IoU")
    return parser


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuses flags that the mode does not use."""
    if bool(args.dataset) == bool(args.name):
        raise DataError("expected --dataset NAME, or after detect.py: --name NAME")
    if not args.dataset:
        rest = [key for key in vars(args) if key not in ("dataset", "name", "results", "workers")]
        refuse_idle(parser, args, rest, "without --dataset")
    elif not args.figure:
        refuse_idle(parser, args, ("images", "compare"), "without --figure")
    else:
        idle = ("maps_root", "workers") + (("images",) if args.figure == "curves" else ())
        refuse_idle(parser, args, idle, f"beside --figure {args.figure}")
    for other in args.compare:
        if not other.is_dir():
            raise DataError(f"--compare {other}: no such folder, expected maps, as results/RUN/NAME")


@command()
def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    if not args.dataset:
        print(f"open {write_gallery(Path(args.results) / args.name, args.workers)}")
        return
    for data in open_datasets(args):
        folder, labels = Path(args.results) / data.name, maps_folder(data, args.maps_root)
        reader = Reader(grey_range(args), args.mask_threshold, labels, data.command("utils"))
        if not folder.is_dir():
            raise DataError(f"{folder}: found no maps; make them: {data.command('test')}")
        runs = titled(data, [Path(args.results), *args.compare])
        if args.figure == "paper":
            drawn = draw_paper(data, runs, folder / "paper", args.images, reader)
        elif args.figure == "curves":
            places = {t: evaluated(data, run, args.mask_threshold) for t, run in runs.items()}
            drawn = draw_curves(folder / "paper" / "curves", places, ("pdf", "svg"))
        else:
            with lock(folder, "test.py, eval.py or visualization.py is at work"):
                drawn = [draw_report(data, folder, reader, args.workers)]
        print("open", *drawn)


if __name__ == "__main__":
    sys.exit(main())
