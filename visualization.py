"""Figures: what a network found, image by image, and its curves.

    python visualization.py --dataset NUAA-SIRST

For each test image a panel RESULTS/NAME/figures/X.png: image, mask, interior and boundary map,
prediction, and the outcome by component (hits green, misses red, false alarms yellow), with a zoom
below. Then montage.png (worst and best images), roc.png, precision_recall.png, pd_fa.png and, of a
run of train.py, training.png; and report/index.html, which shows all of it in a browser, also beside
other runs (--compare). After `detect.py`, with the same --input or --name, the report alone.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ismallnet.arguments import add_data_arguments, grey_range, open_datasets, refuse_idle
from ismallnet.cli import DataError, HelpFormatter, command, positive, summary
from ismallnet.datasets.checks import complaint
from ismallnet.datasets.masks import masks_digest, read_mask
from ismallnet.datasets.sample import DatasetFolder, Sample
from ismallnet.detection.folder import results_folder
from ismallnet.evaluation.map_files import Maps, open_maps, place_of
from ismallnet.evaluation.protocols import PROTOCOLS
from ismallnet.evaluation.tables import table
from ismallnet.files import lock, read_json, write_png
from ismallnet.images.grey import GreyRange
from ismallnet.labels import check_label_maps, maps_folder, read_maps
from ismallnet.parallel import cores, results_and_problems
from ismallnet.report.curves import draw_compared, draw_curves, draw_training
from ismallnet.report.outcome import Layers, outcome
from ismallnet.report.page import Entry, ShownRun, entry_of, write_gallery, write_layers, write_page
from ismallnet.report.panels import montage, panel
from ismallnet.report.paper_figures import Row, panels, surfaces

ABOUT = "metrics_about.json"  # what eval.py says its metrics are of
# All that the report of frames without a data set uses.
FRAME_ARGUMENTS = ("name", "input", "results", "workers")


class Reader(NamedTuple):
    """How samples are read: their grey values, their masks, their label maps in a folder, and the
    command that makes these."""

    grey: GreyRange
    mask_threshold: int
    labels: Path
    again: str


# --- images ------------------------------------------------------------------------------------------


def draw_sample(numbered: tuple[int, Sample], maps: list[Maps], reader: Reader) -> Entry:
    """Writes a sample's panel, and its layers for the report; returns what the report knows of it.

    Args:
        maps: those that are shown, and those that are compared.
    """
    order, sample = numbered
    image, _ = reader.grey.read(sample.image, look=False)
    shape = image.shape[:2]
    pred, *others = (run.read(sample.name, shape) for run in maps)
    mask = read_mask(sample, shape, reader.mask_threshold)
    label_maps = read_maps(reader.labels, sample, shape, reader.again)
    layers = Layers(image.astype("uint8"), mask, *label_maps, pred)
    own, folder = outcome(pred, mask), maps[0].folder
    write_png(folder / "figures" / f"{sample.name}.png", panel(sample.name, layers, own))
    write_layers(folder / "report" / "images", order, layers, others)
    return entry_of(order, sample.name, layers, own, others)


def draw_images(
    data: DatasetFolder, maps: list[Maps], reader: Reader, workers: int
) -> dict[str, Entry]:
    """The panels and the report's pictures of a test list, by the images' names."""
    samples = data.samples("test")
    check_label_maps(reader.labels, samples, reader.again, reader.mask_threshold)
    of_one, numbered = partial(draw_sample, maps=maps, reader=reader), list(enumerate(samples))
    entries, problems = results_and_problems(of_one, numbered, workers, f"{data.name} figures")
    for run in maps:
        run.check_unchanged()
    if problems := [*data.problems["test"], *problems]:
        raise DataError(complaint(data, "test", problems))
    return {sample.name: known for sample, known in zip(samples, entries)}


def draw_paper(
    samples: list[Sample],
    maps: list[Maps],
    entries: dict[str, Entry],
    reader: Reader,
    titles: list[str],
) -> list[Path]:
    """Panels and surfaces of samples."""
    rows = []
    for sample in samples:
        image, _ = reader.grey.read(sample.image, look=False)
        shape = image.shape[:2]
        mask = read_mask(sample, shape, reader.mask_threshold)
        planes = [image.mean(axis=2).astype("uint8"), mask]
        planes += [run.read(sample.name, shape) for run in maps]
        rows.append(Row(sample.name, entries[sample.name].centre, planes))
    folder, titles = maps[0].folder / "paper", ["image", "mask", *titles]
    return panels(folder / "panels", rows, titles) + surfaces(folder / "surfaces", rows, titles)


def chosen_samples(
    data: DatasetFolder, names: list[str] | None, entries: dict[str, Entry]
) -> list[Sample]:
    """Those of --images, or four with targets from bad to good IoU."""
    samples = {sample.name: sample for sample in data.samples("test")}
    if unknown := [name for name in names or () if name not in samples]:
        raise DataError(f"{data.root}: found no {', '.join(unknown)} in the test list")
    with_targets = [name for name, known in entries.items() if known.page["targets"]]
    ranked = sorted(with_targets, key=lambda name: entries[name].page["iou"])
    names = names or [ranked[k * (len(ranked) - 1) // 3] for k in range(4) if ranked]
    return [samples[name] for name in dict.fromkeys(names)]


# --- runs --------------------------------------------------------------------------------------------


def evaluated(run: Path, name: str) -> Path:
    """Where eval.py wrote what it says of a run's maps: beside them, or in results/ (--maps)."""
    beside, elsewhere, _ = place_of(run, name)
    return elsewhere if (elsewhere / ABOUT).exists() and not (beside / ABOUT).exists() else beside


def shown_run(data: DatasetFolder, run: Path, name: str, again: str, threshold: int) -> ShownRun:
    """The run of a folder of maps, with what eval.py, as the command `again`, wrote of these maps; says
    so where that is of others."""
    samples, folder = data.samples("test"), evaluated(run, data.name)
    maps = open_maps(place_of(run, data.name).maps, [sample.name for sample in samples])
    written, then = read_json(folder / "metrics.json"), read_json(folder / ABOUT)
    now = maps.about | {"masks": masks_digest(samples), "mask_threshold": threshold}
    if differing := [key for key in {**now, **then} if written and now.get(key) != then.get(key)]:
        print(f"{folder}/metrics.json: of another {', '.join(differing)}, left out")
        written = {}
    metrics = {key: written[key] for key in PROTOCOLS if isinstance(written.get(key), dict)}
    return ShownRun(name, maps, folder, metrics, again)


def shown_runs(data: DatasetFolder, folder: Path, others: list[Path], threshold: int) -> list[ShownRun]:
    """The run of a folder RESULTS/NAME, and those that are compared with it."""
    name = str(folder) if others else data.name  # alone it is the same report elsewhere
    runs = [shown_run(data, folder.parent, name, data.command("eval"), threshold)]
    for other in others:
        again = data.command("eval", results=f"--maps {other}")
        runs.append(shown_run(data, other, str(other), again, threshold))
    return runs


def titles_of(folders: list[Path], name: str, labels: list[str] | None) -> list[str]:
    """What runs of a data set are called in figures: --labels, or the folders' names."""
    if labels and len(labels) != len(folders):
        runs = ", ".join(map(str, folders))
        raise DataError(f"--labels: found {len(labels)}, expected one for each of {runs}")
    return labels or [place_of(folder, name).title for folder in folders]


def draw_all_curves(data: DatasetFolder, runs: list[Path], titles: list[str], path: Path) -> list[Path]:
    """The curves of runs that eval.py has evaluated on the same images, in one figure."""
    folders = [evaluated(run, data.name) for run in runs]
    masks = [read_json(folder / ABOUT).get("masks") for folder in folders]
    if wrong := [run for run, of in zip(runs, masks) if not of or of != masks[0]]:
        again = data.command("eval", results=f"--maps {wrong[0]}")
        raise DataError(f"{wrong[0]}: found no curves of these test images; type {again}")
    return draw_compared(path, dict(zip(titles, folders)))


def draw_run(data: DatasetFolder, run: ShownRun) -> None:
    """The curves of a run and of its training; prints its metrics."""
    folder, source = run.maps.folder, run.folder if run.metrics else None
    for text in draw_curves(data.name, folder, source, run.evaluation):
        print(text)
    draw_training(folder, run.maps.about)
    print(f"panels and curves: {folder}/figures/, {folder}/")
    if run.metrics:
        print(table(run.metrics))


def origin_of(maps: Maps) -> str:
    origin = maps.about.get("weights") or maps.about.get("baseline") or "maps of another program"
    return f"{origin}, CHOSEN ON THE TEST LIST" if maps.chosen_on_test else origin


# --- command line ------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=summary(__doc__), formatter_class=HelpFormatter)
    add_data_arguments(parser, maps=True, required=False)
    add = parser.add_argument
    add("--results", default="results", metavar="DIR", help="where test.py and eval.py wrote")
    add("--name", help="after detect.py: its results, RESULTS/NAME, in place of a data set")
    add("--input", nargs="+", metavar="PATH", help="after detect.py: the same PATH, in place of --name")
    compare = "folders of other runs' maps, DIR or DIR/NAME, of any program: side by side in the report"
    folders = {"nargs": "+", "type": Path, "default": [], "metavar": "DIR"}
    add("--compare", **folders, help=compare)
    figure = "paper: also panels and 3-D surfaces as PDF and SVG; curves: only ROC, precision-recall "
    figure += "and Pd-Fa of the runs that --compare names, your own too, from what eval.py wrote"
    add("--figure", choices=("paper", "curves"), help=figure)
    add("--labels", nargs="+", metavar="TEXT", help="names of the runs in --figure")
    add("--images", nargs="+", metavar="X", help="of the test list, in --figure paper; default: four")
    add("--each", type=positive, default=5, metavar="N", help="worst and best images in the montage")
    add("--workers", type=positive, default=cores(), metavar="N", help="processes")
    return parser


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuses flags that the mode does not use."""
    if bool(args.dataset) == bool(args.name or args.input):
        raise DataError("expected --dataset NAME, or after detect.py: --name NAME")
    if not args.dataset:
        rest = [key for key in vars(args) if key not in ("dataset", *FRAME_ARGUMENTS)]
        refuse_idle(parser, args, rest, "without --dataset")
    elif args.figure == "curves":
        refuse_idle(parser, args, ("images", "each", "maps_root"), "beside --figure curves")
    elif not args.figure:
        refuse_idle(parser, args, ("images", "labels"), "without --figure")
    for other in args.compare:
        if not other.is_dir():
            raise DataError(f"--compare {other}: no such folder, expected maps, as results/RUN/NAME")


@command()
def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    if not args.dataset:
        folder = results_folder(args.results, args.name, args.input or [])
        print(f"open {write_gallery(folder, args.workers)}")
        return
    for data in open_datasets(args):
        folder = Path(args.results) / data.name
        if args.figure == "curves":
            runs = args.compare or [Path(args.results)]
            titles = titles_of(runs, data.name, args.labels)
            print(*draw_all_curves(data, runs, titles, folder / "paper" / "curves"), sep="\n")
            continue
        if not folder.is_dir():
            raise DataError(f"{folder}: found no maps; make them: {data.command('test')}")
        labels, again = maps_folder(data, args.maps_root), data.command("utils")
        reader = Reader(grey_range(args), args.mask_threshold, labels, again)
        with lock(folder, "test.py, eval.py or visualization.py is at work"):
            runs = shown_runs(data, folder, args.compare, args.mask_threshold)
            maps = [run.maps for run in runs]
            titles = titles_of([run.folder for run in maps], data.name, args.labels)
            entries = draw_images(data, maps, reader, args.workers)
            ious = {name: known.page["iou"] for name, known in entries.items() if not known.empty}
            overview = montage(folder / "figures", ious, args.each)
            draw_run(data, runs[0])
            title, origin = f"{data.name}, test list", origin_of(maps[0])
            page = write_page(folder / "report", title, origin, [*entries.values()], runs)
            if args.figure == "paper" and (chosen := chosen_samples(data, args.images, entries)):
                print(*draw_paper(chosen, maps, entries, reader, titles), sep="\n")
        print("open", *([overview, "and"] if overview else []), page)


if __name__ == "__main__":
    sys.exit(main())
