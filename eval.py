"""Evaluation: probability maps and masks -> IoU, nIoU, Pd, Fa, under any protocol in use.

    python eval.py --dataset NUAA-SIRST --protocol all --interval
    python eval.py --dataset NUAA-SIRST --results results/seed0 results/seed1 results/seed2
    python eval.py --dataset NUAA-SIRST --maps ../OTHER/maps    # of another program
    python eval.py --detections results/clips --boxes boxes.csv # of detect.py, against boxes

Writes metrics.json (unrounded fractions, null where undefined), the points of the curves as CSV beside
it, and metrics_about.json, which says what maps they are of.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import re
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ismallnet.arguments import add_data_arguments, open_datasets
from ismallnet.cli import DataError, HelpFormatter, command, gone, positive, summary
from ismallnet.datasets.checks import complaint, near_twins
from ismallnet.datasets.masks import is_resized, masks_digest, read_mask_values, resized_note
from ismallnet.datasets.sample import DatasetFolder, Sample
from ismallnet.evaluation import metrics
from ismallnet.evaluation.boxes import compare_boxes
from ismallnet.evaluation.intervals import Drawn, bootstrap, differences, intervals
from ismallnet.evaluation.map_files import TEST_LIST, Maps, open_maps, place_of
from ismallnet.evaluation.protocols import PROTOCOLS, count_image
from ismallnet.evaluation.tables import difference_table, spread, table
from ismallnet.files import check_place, lock, write_csv, write_json
from ismallnet.images.picture import image_shape
from ismallnet.parallel import cores, results_and_problems


class MapsRun(NamedTuple):
    """One set of maps of a data set: what it is called, and where its metrics go."""

    label: str
    maps: Maps
    output: Path


class Rules(NamedTuple):
    """The protocols, and the grey value from which a mask is target."""

    protocols: list[str]
    mask_threshold: int


class ImageCounts(NamedTuple):
    """What one image adds to the metrics, by protocol, and to the curves."""

    protocols: dict[str, dict[str, float]]
    levels: np.ndarray
    pd_fa: np.ndarray
    resized: bool  # whether its mask was


Evaluation = tuple[dict, Drawn]  # a run's metrics under a protocol, and their values in each draw


# --- from maps to metrics ----------------------------------------------------------------------------


def count_sample(sample: Sample, maps: Maps, rules: Rules) -> ImageCounts:
    """The counts of one image."""
    shape, threshold = image_shape(sample.image), rules.mask_threshold
    pred, mask = maps.read(sample.name, shape), read_mask_values(sample, shape)
    return ImageCounts(
        count_image(pred, mask, rules.protocols, threshold),
        metrics.count_levels(pred, mask, threshold),
        metrics.count_pd_fa(pred, mask, threshold),
        is_resized(sample, shape),
    )


def count_all(data: DatasetFolder, maps: Maps, rules: Rules, workers: int) -> list[ImageCounts]:
    """The counts of a test list's images, by several processes; or an error that names all maps and
    masks that cannot be used."""
    samples, of_one = data.samples("test"), partial(count_sample, maps=maps, rules=rules)
    counts, problems = results_and_problems(of_one, samples, workers, f"{data.name} eval")
    maps.check_unchanged()
    if problems := [*data.problems["test"], *problems]:
        raise DataError(complaint(data, "test", problems))
    if not data.targets.get("test"):
        print(f"note: {data.name}: no mask of the test list holds a target pixel; Pd is not defined")
    if resized := [sample.name for sample, n in zip(samples, counts) if n.resized]:
        print(f"{data.name} test: {resized_note(resized)}")
    return counts


def evaluate_run(
    data: DatasetFolder, run: MapsRun, rules: Rules, workers: int, said: dict
) -> dict[str, Evaluation]:
    """Evaluations by protocol; writes the metrics to the run's output, the curves beside it (undefined
    values are empty fields), and last what they are of.

    Args:
        said: what the files also say.
    """
    with lock(run.output.parent, "test.py or eval.py is at work"):
        counts = count_all(data, run.maps, rules, workers)
        points = metrics.pixel_curves(sum(n.levels for n in counts))
        pd_fa = metrics.pd_fa_curve(sum(n.pd_fa for n in counts))
        evaluations = {}
        for name in rules.protocols:
            rows = [n.protocols[name] for n in counts]
            values, drawn = PROTOCOLS[name].metrics(metrics.total(rows)), bootstrap(rows, name)
            values |= {"auc": metrics.auc(points)} if name == "standard" else {}
            evaluations[name] = values | {"interval": intervals(drawn, len(rows))}, drawn
        said = said | ({"selected_on": TEST_LIST} if run.maps.chosen_on_test else {})
        masks = {"masks": masks_digest(data.samples("test")), "mask_threshold": rules.mask_threshold}
        beside = (f"{run.output.stem}_{name}" for name in ("about.json", "roc_pr.csv", "pd_fa.csv"))
        about, *curves = map(run.output.with_name, beside)
        about.unlink(missing_ok=True)  # it would be another evaluation's
        write_json(run.output, {name: values for name, (values, _) in evaluations.items()} | said)
        for path, curve in zip(curves, (points, pd_fa)):
            write_csv(path, curve[0], [point.values() for point in curve])
        write_json(about, run.maps.about | masks | said)
    return evaluations


# --- several runs ------------------------------------------------------------------------------------


def open_maps_run(data: DatasetFolder, label: str, theirs: bool, output: str | None) -> MapsRun:
    """The run of a folder, which may be another program's (`theirs`): in that nothing is written."""
    maps = place = Path(label) / data.name
    if theirs:
        maps, place, _ = place_of(Path(label), data.name)
    file = Path(output or place / "metrics.json")
    check_place(file)
    if file.is_file() and file.suffix.lower() != ".json":
        raise DataError(f"--output {file}: found another file; expected a .json file, or none yet")
    if not maps.is_dir():
        again = data.command("test", f"--results {label}")
        raise DataError(f"{maps}: found no maps; make them: {again}, or name a folder: --maps DIR")
    return MapsRun(label, open_maps(maps, [sample.name for sample in data.samples("test")]), file)


def leave_out_twins(data: DatasetFolder) -> int:
    """Takes the test images that have a near twin in the training list out of the test list; says, and
    returns, how many there are."""
    twins = near_twins(data.samples("test"), data.samples("train"))
    data.lists["test"] = [sample for sample in data.lists["test"] if sample.name not in twins]
    print(f"{data.name}: {len(twins)} test images with a near twin in the training list are left out")
    return len(twins)


def compare(
    label: str, runs: list[MapsRun], evaluations: list[Evaluation], images: int
) -> tuple[dict[str, dict], dict[str, dict]]:
    """The rows of both tables: metrics, and how those of each run but the first differ from the first
    one's. Runs whose names differ in numbers alone are seeds of one network: their mean instead."""
    if len(runs) == 1:
        return {label: evaluations[0][0]}, {}
    rows = {f"{label}, {run.label}": values for run, (values, _) in zip(runs, evaluations)}
    if len({re.sub(r"\d+", "", run.label) for run in runs}) == 1:
        return rows | {f"{label}, {len(runs)} runs": spread([*rows.values()])}, {}
    base, *others = evaluations
    names = (f"{run.label} - {runs[0].label}, {label}" for run in runs[1:])
    return rows, {name: differences(base, other, images) for name, other in zip(names, others)}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=summary(__doc__), formatter_class=HelpFormatter)
    add_data_arguments(parser, images=False, required=False)
    add = parser.add_argument
    add("--protocol", choices=(*PROTOCOLS, "all"), default="standard", help="whose definitions")
    interval = "also show the 95 %% intervals of IoU, nIoU, Pd, Fa and hIoU (bootstrap over images)"
    add("--interval", action="store_true", help=f"{interval}; the JSON always has them")
    maps = "in place of --results: folders of maps X.png, X_*.png, or NAME/X.png, of any program"
    add_folders = parser.add_mutually_exclusive_group().add_argument
    add_folders("--maps", nargs="+", metavar="DIR", help=maps)
    results = "where test.py wrote (default: results); of several also how the others differ from the "
    results += "first, or mean ± standard deviation if names differ in numbers alone (seed0 seed1)"
    add_folders("--results", nargs="+", metavar="DIR", help=results)
    output = "default: RESULTS/NAME/metrics.json; with --maps OTHER or OTHER/NAME: "
    add("--output", metavar="FILE", help=f"{output}results/OTHER/NAME/metrics.json")
    twins = "leave out test images that have a near twin in the training list"
    add("--without-twins", action="store_true", help=twins)
    add("--detections", metavar="DIR", help="in place of --dataset: results of detect.py, for --boxes")
    boxes = "ground truth of --detections: CSV or COCO JSON (docs/METRICS.md)"
    add("--boxes", metavar="FILE", help=boxes)
    add("--workers", type=positive, default=cores(), metavar="N", help="processes")
    gone(parser, "--no-pd-fa", "leave it out; the Pd-Fa curve is always made")
    return parser


@command()
def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    args = parser.parse_args(argv)
    if bool(args.detections) != bool(args.boxes) or bool(args.detections) == bool(args.dataset):
        parser.error("expected --dataset, or --detections and --boxes")
    if args.detections:
        print(compare_boxes(Path(args.detections), Path(args.boxes)))
        return
    folders = args.maps or args.results or ["results"]
    if args.output and max(len(args.dataset), len(folders)) > 1:
        raise DataError("--output: expected one data set and one folder of maps; leave it out for more")
    protocols = list(PROTOCOLS) if args.protocol == "all" else [args.protocol]
    rules = Rules(protocols, args.mask_threshold)
    rows, gaps = {}, {}
    for data in open_datasets(args, needed=("test",)):
        said = {"without_twins": leave_out_twins(data)} if args.without_twins else {}
        runs = [open_maps_run(data, folder, bool(args.maps), args.output) for folder in folders]
        if len({run.output for run in runs}) < len(runs):
            raise DataError(f"{', '.join(folders)}: several of them would write {runs[0].output}")
        evaluations = []
        for run in runs:
            evaluations.append(evaluate_run(data, run, rules, args.workers, said))
            if run.maps.chosen_on_test:
                print(f"{run.maps.folder}: the weights were CHOSEN ON THE TEST LIST")
            print(f"metrics: {run.output}")
        for protocol in protocols:
            label = f"{data.name} {protocol}" if len(args.dataset) > 1 else protocol
            of_runs = [by_protocol[protocol] for by_protocol in evaluations]
            tables = compare(label, runs, of_runs, len(data.samples("test")))
            rows, gaps = rows | tables[0], gaps | tables[1]
    if gaps:
        print(f"{difference_table(gaps)}\n")
    print(table(rows, args.interval))


if __name__ == "__main__":
    sys.exit(main())
