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

from ismallnet.arguments import add_data_arguments, grey_range, open_datasets, refuse_idle
from ismallnet.cli import DataError, HelpFormatter, command, positive, summary
from ismallnet.datasets.checks import complaint
from ismallnet.datasets.masks import masks_digest, read_mask
from ismallnet.datasets.sample import DatasetFolder, Sample
from ismallnet.detection.folder import results_folder
from ismallnet.evaluation import map_files
from ismallnet.evaluation.map_files import Maps, maps_in
from ismallnet.evaluation.protocols import PROTOCOLS
from ismallnet.evaluation.tables import table
from ismallnet.files import lock, read_json, write_png
from ismallnet.labels import check_label_maps, maps_folder, read_maps
from ismallnet.parallel import cores, results_and_problems
from ismallnet.report.curves import draw_compared, draw_curves, draw_training
from ismallnet.report.outcome import Layers, outcome
from ismallnet.report.page import ShownRun, entry, write_gallery, write_layers, write_page
from ismallnet.report.panels import montage, panel
from ismallnet.report.paper_figures import Row, panels, surfaces

ABOUT = "metrics_about.json"  # what eval.py says its metrics are of
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
        labels: the folder of the label maps, which the command `again` makes.
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
    """The panels and the report's pictures of a test list; returns what the report knows of them."""
    samples, again = data.samples("test"), data.command("utils")
    labels = maps_folder(data, args.maps_root)
    check_label_maps(labels, samples, again, args.mask_threshold)
    one = partial(draw, runs=runs, labels=labels, again=again, args=args)
    numbered, label = list(enumerate(samples)), f"{data.name} figures"
    entries, problems = results_and_problems(one, numbered, args.workers, label)
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
    """Panels and surfaces of --images, or of four from bad to good IoU."""
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


def evaluated(run: Path, name: str) -> Path:
    """Where eval.py wrote what it says of a run's maps: beside them, or in results/ (--maps)."""
    places = maps_in(run, name), map_files.metrics_folder(run, name)
    return next((place for place in places if (place / ABOUT).exists()), places[0])


def metrics_of(maps: Maps, folder: Path, samples: list[Sample], threshold: int) -> dict[str, dict]:
    """What eval.py wrote of these maps to a folder, by protocol; says so where it is of others."""
    metrics, then = read_json(folder / "metrics.json"), read_json(folder / ABOUT)
    now = maps.about | {"masks": masks_digest(samples), "mask_threshold": threshold}
    if differing := [key for key in {**now, **then} if metrics and now.get(key) != then.get(key)]:
        print(f"{folder}/metrics.json: of another {', '.join(differing)}, left out")
        return {}
    return {name: metrics[name] for name in PROTOCOLS if isinstance(metrics.get(name), dict)}


def titles_of(folders: list[Path], name: str, labels: list[str] | None) -> list[str]:
    """What runs of a data set are called in figures: --labels, or the folders' names."""
    if labels and len(labels) != len(folders):
        runs = ", ".join(map(str, folders))
        raise DataError(f"--labels: found {len(labels)}, expected one for each of {runs}")
    return labels or [map_files.own_name(folder, name) for folder in folders]


def draw_all_curves(data: DatasetFolder, args: argparse.Namespace) -> list[Path]:
    """The curves of --compare, or of --results alone, in one figure."""
    runs = args.compare or [Path(args.results)]
    folders = [evaluated(run, data.name) for run in runs]
    masks = [read_json(folder / ABOUT).get("masks") for folder in folders]
    if wrong := [run for run, of in zip(runs, masks) if not of or of != masks[0]]:
        again = data.command("eval", results=f"--maps {wrong[0]}")
        raise DataError(f"{wrong[0]}: found no curves of these test images; type {again}")
    titles = titles_of(runs, data.name, args.labels)
    path = Path(args.results) / data.name / "paper" / "curves"
    return draw_compared(path, dict(zip(titles, folders)))


def shown_runs(data: DatasetFolder, runs: list[Maps], args: argparse.Namespace) -> list[ShownRun]:
    """What the report says of a run and of those that are compared with it."""
    of_test = data.samples("test"), args.mask_threshold
    first = runs[0].folder
    name = str(first) if args.compare else data.name  # alone it is the same report elsewhere
    shown = [ShownRun(name, metrics_of(runs[0], first, *of_test), data.command("eval"))]
    for other, maps in zip(args.compare, runs[1:]):
        metrics = metrics_of(maps, evaluated(other, data.name), *of_test)
        again = data.command("eval", results=f"--maps {other}")
        shown.append(ShownRun(str(other), metrics, again))
    return shown


def show(data: DatasetFolder, args: argparse.Namespace) -> None:
    """Draws all of a data set, and prints where it is."""
    folder = Path(args.results) / data.name
    if not folder.is_dir():
        raise DataError(f"{folder}: found no maps; make them: {data.command('test')}")
    with lock(folder, "test.py, eval.py or visualization.py is at work"):
        draw_all(data, folder, args)


def draw_all(data: DatasetFolder, folder: Path, args: argparse.Namespace) -> None:
    """Draws all into the folder of the maps, which nobody else writes to."""
    names = [sample.name for sample in data.samples("test")]
    map_files.check_names(folder, names)
    places = folder, *(maps_in(other, data.name) for other in args.compare)
    runs = [map_files.open_maps(place, names) for place in places]
    entries, own = draw_images(data, runs, args), runs[0]
    ious = {e["name"]: e["page"]["iou"] for e in entries if not e["empty"]}
    overview = montage(folder / "figures", ious, args.each)
    if (polarity := own.about.get("polarity", args.polarity)) != args.polarity:
        print(f"note: {folder}: made with --polarity {polarity}; type it here too")
    shown = shown_runs(data, runs, args)
    first = shown[0]
    for text in draw_curves(data.name, folder, bool(first.metrics), first.evaluation):
        print(text)
    draw_training(folder, own.about)
    print(f"panels and curves: {folder}/figures/, {folder}/")
    if first.metrics:
        print(table(first.metrics))
    origin = own.about.get("weights") or own.about.get("baseline") or "maps of another program"
    origin = f"{origin}, CHOSEN ON THE TEST LIST" if own.chosen_on_test else origin
    title = f"{data.name}, test list"
    page = write_page(folder / "report", title, origin, entries, shown)
    if args.figure == "paper":
        print(*draw_paper(data, runs, entries, args), sep="\n")
    print("open", *([overview, "and"] if overview else []), page)


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
        if args.figure == "curves":
            print(*draw_all_curves(data, args), sep="\n")
        else:
            show(data, args)


if __name__ == "__main__":
    sys.exit(main())
