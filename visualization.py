"""Figures: what a network found, image by image, and its curves.

    python visualization.py --dataset NUAA-SIRST

For each test image a panel RESULTS/NAME/figures/X.png: image, mask, interior and boundary map,
prediction, and the outcome by component (hits green, misses red, false alarms yellow), with a zoom
below. Then montage.png (worst and best images), roc.png, precision_recall.png, pd_fa.png and, where
the maps come from a run of train.py, training.png and training_loss.png; and report/index.html,
which shows all of it in a browser. After `detect.py`, with the same --input or --name, the report
alone.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ismallnet.arguments import add_data_arguments, grey_range, open_datasets
from ismallnet.cli import DataError, HelpFormatter, command, positive, summary
from ismallnet.datasets.checks import complaint
from ismallnet.datasets.masks import masks_digest, read_mask
from ismallnet.datasets.sample import DatasetFolder, Sample
from ismallnet.detection.folder import results_folder
from ismallnet.evaluation.map_files import (
    Maps,
    check_names,
    maps_in,
    metrics_folder,
    open_maps,
    own_name,
)
from ismallnet.evaluation.protocols import PROTOCOLS
from ismallnet.evaluation.tables import table
from ismallnet.files import read_json, write_png
from ismallnet.labels import check_label_maps, maps_folder, read_maps
from ismallnet.parallel import cores, results_and_problems
from ismallnet.report.curves import draw_compared, draw_curves, draw_training
from ismallnet.report.outcome import Layers, outcome
from ismallnet.report.page import entry, write_gallery, write_layers, write_page
from ismallnet.report.panels import montage, panel
from ismallnet.report.paper_figures import Row, panels, surfaces

# All that the report of frames without a data set uses.
FRAME_ARGUMENTS = ("name", "input", "results", "workers")


# --- images ------------------------------------------------------------------------------------------


def draw(
    numbered: tuple[int, Sample],
    runs: list[Maps],
    labels: Path,
    again: str,
    args: argparse.Namespace,
) -> dict:
    """Writes a sample's panel, and its layers for the report; returns what the report knows of it.

    Args:
        runs: the maps that are shown, and those that are compared.
        labels: the folder of the label maps.
        again: the command that makes these.

    Raises:
        DataError: a file of it cannot be used.
    """
    order, sample = numbered
    image, facts = grey_range(args).read(sample.image, sample.name)
    shape = image.shape[:2]
    pred, *others = (run.read(sample.name, shape) for run in runs)
    mask = read_mask(sample, shape, args.mask_threshold)
    layers = Layers(image.astype("uint8"), mask, *read_maps(labels, sample, shape, again), pred)
    own, folder = outcome(pred, mask), runs[0].folder
    write_png(folder / "figures" / f"{sample.name}.png", panel(sample.name, layers, own))
    write_layers(folder / "report" / "images", order, layers, others)
    return entry(order, sample.name, layers, own, others) | {"grey": facts}


def draw_images(data: DatasetFolder, runs: list[Maps], args: argparse.Namespace) -> list[dict]:
    """The panels and the report's pictures of a test list; returns what the report knows of its images.

    Raises:
        DataError: names all maps and files that cannot be used.
    """
    samples, again = data.samples("test"), data.command("utils")
    labels = maps_folder(data, args.maps_root)
    check_label_maps(labels, samples, again, args.mask_threshold)
    entries, problems = results_and_problems(
        partial(draw, runs=runs, labels=labels, again=again, args=args),
        list(enumerate(samples)),
        args.workers,
        f"{data.name} figures",
    )
    for run in runs:
        run.check_unchanged()
    if problems := [*data.problems["test"], *problems]:
        raise DataError(complaint(data, "test", problems))
    facts = [e["grey"] for e in entries if e["grey"]]
    for line in grey_range(args).report(f"{data.name} test", facts, len(samples)):
        print(line)
    return entries


def draw_paper(
    data: DatasetFolder, runs: list[Maps], entries: list[dict], args: argparse.Namespace
) -> list[Path]:
    """Panels and surfaces of --images, or of four from bad to good IoU.

    Raises:
        DataError: an image is not in the test list.
    """
    samples = {sample.name: sample for sample in data.samples("test")}
    ranked = sorted((e for e in entries if e["page"]["targets"]), key=lambda e: e["page"]["iou"])
    chosen = args.images or [ranked[k * (len(ranked) - 1) // 3]["name"] for k in range(4) if ranked]
    if unknown := [name for name in chosen if name not in samples]:
        raise DataError(f"{data.root}: found no {', '.join(unknown)} in the test list")
    centres, rows = {e["name"]: e["centre"] for e in entries}, []
    if not chosen:
        return []
    for name in dict.fromkeys(chosen):
        image, _ = grey_range(args).read(samples[name].image)
        shape = image.shape[:2]
        mask = read_mask(samples[name], shape, args.mask_threshold)
        planes = [image.mean(axis=2).astype("uint8"), mask, *(run.read(name, shape) for run in runs)]
        rows.append(Row(name, centres[name], planes))
    titles = ["image", "mask", *titles_of([run.folder for run in runs], data.name, args.labels)]
    folder = runs[0].folder / "paper"
    return panels(folder / "panels", rows, titles) + surfaces(folder / "surfaces", rows, titles)


# --- a data set --------------------------------------------------------------------------------------


def metrics_of(maps: Maps, samples: list[Sample], threshold: int) -> dict[str, dict]:
    """What eval.py wrote of these maps, by protocol; says so where it is of others."""
    metrics = read_json(maps.folder / "metrics.json")
    then = read_json(maps.folder / "metrics_about.json")
    now = maps.about | {"masks": masks_digest(samples), "mask_threshold": threshold}
    if differing := [key for key in {**now, **then} if metrics and now.get(key) != then.get(key)]:
        print(f"{maps.folder}/metrics.json: of another {', '.join(differing)}, left out")
        return {}
    return {name: metrics[name] for name in PROTOCOLS if isinstance(metrics.get(name), dict)}


def titles_of(folders: list[Path], name: str, labels: list[str] | None) -> list[str]:
    """What runs of a data set are called in figures: --labels, or the folders' names.

    Raises:
        DataError: fewer labels than runs, or more.
    """
    if labels and len(labels) != len(folders):
        runs = ", ".join(map(str, folders))
        raise DataError(f"--labels: found {len(labels)}, expected one for each of {runs}")
    return labels or [own_name(folder, name) for folder in folders]


def draw_all_curves(data: DatasetFolder, args: argparse.Namespace) -> list[Path]:
    """The curves of --compare, or of --results alone, in one figure.

    Raises:
        DataError: eval.py has not written those of a run, or of other masks than of the first.
    """
    own, folders, masks = Path(args.results) / data.name, {}, set()
    runs = args.compare or [own]
    for title, run in zip(titles_of(runs, data.name, args.labels), runs):
        places = (maps_in(run, data.name), metrics_folder(run, data.name, args.results))
        folders[title] = next((p for p in places if (p / "metrics_about.json").exists()), places[0])
        masks.add(read_json(folders[title] / "metrics_about.json").get("masks"))
        if None in masks or len(masks) > 1:
            again = data.command("eval", results=f"--maps {run}")
            raise DataError(f"{run}: found no curves of these test images; type {again}")
    return draw_compared(own / "paper" / "curves", folders)


def show(data: DatasetFolder, args: argparse.Namespace) -> None:
    """Draws all of a data set, and prints where it is."""
    folder = Path(args.results) / data.name
    if not folder.is_dir():
        raise DataError(f"{folder}: found no maps; make them: {data.command('test')}")
    samples = data.samples("test")
    names = [sample.name for sample in samples]
    check_names(folder, names)
    runs = [open_maps(maps, names) for maps in (folder, *(maps_in(o, data.name) for o in args.compare))]
    entries, own = draw_images(data, runs, args), runs[0]
    ious = {e["name"]: e["page"]["iou"] for e in entries if not e["empty"]}
    overview = montage(folder / "figures", ious, args.each)
    if (polarity := own.about.get("polarity", args.polarity)) != args.polarity:
        print(f"note: {folder}: made with --polarity {polarity}; type it here too")
    metrics = metrics_of(own, samples, args.mask_threshold)
    notes = draw_curves(data.name, folder, bool(metrics), data.command("eval"))
    print(*notes, *draw_training(folder, own.about), sep="\n")
    print(f"panels and curves: {folder}/figures/, {folder}/")
    if metrics:
        print(table(metrics))
    origin = own.about.get("weights") or own.about.get("baseline") or "maps of another program"
    page = write_page(
        folder / "report",
        f"{data.name}, test list",
        f"{origin}, CHOSEN ON THE TEST LIST" if own.chosen_on_test else origin,
        metrics,
        entries,
        [str(other) for other in args.compare],
        str(folder) if args.compare else data.name,  # a report of one run stays the same elsewhere
        data.command("eval"),
    )
    if args.figure == "paper":
        print(*draw_paper(data, runs, entries, args), sep="\n")
    print("open", *([overview, "and"] if overview else []), page)


# --- command line ------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=summary(__doc__),
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
        default=[],
        metavar="DIR",
        help="folders of other runs' maps, DIR or DIR/NAME, of any program: side by side in the report",
    )
    add(
        "--figure",
        choices=("paper", "curves"),
        help="paper: also panels and 3-D surfaces as PDF and SVG; curves: only ROC, precision-recall "
        "and Pd-Fa of --compare in one figure, from what eval.py wrote",
    )
    add("--labels", nargs="+", metavar="TEXT", help="names of the runs in --figure")
    add("--images", nargs="+", metavar="X", help="of the test list, in --figure paper; default: four")
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
    idle = {None: ["images", "labels"], "curves": ["images", "each", "maps_root"], "paper": []}
    unused = idle[args.figure]
    if not args.dataset:
        unused = [key for key in vars(args) if key not in ("dataset", *FRAME_ARGUMENTS)]
    if typed := [key for key in unused if getattr(args, key) != default(key)]:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in typed)
        needed = "--figure paper" if args.dataset else "--dataset"
        raise DataError(f"{flags}: used with {needed} alone; leave it out, or type {needed}")
    for other in args.compare:
        if not other.is_dir():
            raise DataError(f"--compare {other}: no such folder, expected maps, as results/RUN/NAME")


@command()
def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    args = parser.parse_args(argv)
    check_arguments(args, parser.get_default)
    if not args.dataset:
        folder = results_folder(args.results, args.name, args.input or [])
        print(f"open {write_gallery(folder, args.workers)}")
        return
    for data in open_datasets(args):
        if args.figure == "curves":
            print(*draw_all_curves(data, args), sep="\n")
        else:
            show(data, args)


if __name__ == "__main__":
    sys.exit(main())
