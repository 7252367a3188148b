"""Evaluation: probability maps and masks -> IoU, nIoU, Pd, Fa, under any protocol in use.

    python eval.py --dataset IRSTD-1k
    python eval.py --dataset NUAA-SIRST --protocol all
    python eval.py --dataset NUAA-SIRST --interval              # 95 % intervals
    python eval.py --dataset NUAA-SIRST --results results/seed0 results/seed1 results/seed2
    python eval.py --dataset NUAA-SIRST --maps ../OTHER/maps    # of another program

Writes the metrics and their 95 % intervals as JSON (unrounded fractions, null where undefined), and
the points of the ROC, precision-recall and Pd-Fa curves as CSV beside it; and which maps they are of
(metrics_about.json). Of several runs it also says which differences the choice of images does not
explain, or, of the seeds of one network, mean and standard deviation. Nothing is written into another
program's maps.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ismallnet.arguments import add_data_arguments, open_datasets
from ismallnet.cli import DataError, HelpFormatter, command, positive, summary
from ismallnet.datasets.checks import complaint
from ismallnet.datasets.masks import is_resized, masks_digest, read_mask_values, resized_note
from ismallnet.datasets.sample import DatasetFolder, Sample
from ismallnet.evaluation.intervals import Drawn, differences, draw, intervals
from ismallnet.evaluation.map_files import TEST_LIST, Maps, maps_in, metrics_folder, open_maps
from ismallnet.evaluation.metrics import (
    auc,
    count_levels,
    count_pd_fa,
    pd_fa_curve,
    pixel_curves,
    total,
)
from ismallnet.evaluation.protocols import PROTOCOLS, count_image
from ismallnet.evaluation.tables import difference_table, spread, table
from ismallnet.files import check_place, lock, write_csv, write_json
from ismallnet.images.picture import image_shape
from ismallnet.parallel import cores, results_and_problems


@dataclass(frozen=True)
class Run:
    """One set of maps of a data set: what it is called, and where its metrics go."""

    label: str
    maps: Maps
    output: Path


@dataclass(frozen=True)
class Counts:
    """What one image adds to the metrics, by protocol, and to the curves."""

    protocols: dict[str, dict[str, float]]
    levels: np.ndarray
    pd_fa: np.ndarray | None
    resized: bool


Evaluation = tuple[dict, Drawn]  # a run's metrics under a protocol, and their values in each draw


# --- from maps to metrics ----------------------------------------------------------------------------


def count(
    sample: Sample, maps: Maps, protocols: tuple[str, ...], threshold: int, curve: bool
) -> Counts:
    """The counts of one image.

    Raises:
        DataError: its map or its mask cannot be used.
    """
    shape = image_shape(sample.image)
    pred = maps.read(sample.name, shape)
    mask = np.zeros(shape, np.uint8)
    if sample.mask is not None:
        mask = read_mask_values(sample.mask, shape, sample.rule)
    return Counts(
        count_image(pred, mask, protocols, threshold),
        count_levels(pred, mask, threshold),
        count_pd_fa(pred, mask, threshold) if curve else None,
        is_resized(sample, shape),
    )


def count_all(data: DatasetFolder, maps: Maps, args: argparse.Namespace) -> list[Counts]:
    """The counts of a test list's images, by several processes.

    Raises:
        DataError: names all maps and masks that cannot be used; or test.py writes there meanwhile.
    """
    protocols = tuple(PROTOCOLS) if args.protocol == "all" else (args.protocol,)
    options = {"protocols": protocols, "threshold": args.mask_threshold, "curve": not args.no_pd_fa}
    samples = data.samples("test")
    counts, problems = results_and_problems(
        partial(count, maps=maps, **options), samples, args.workers, f"{data.name} eval"
    )
    maps.check_unchanged()
    if problems := [*data.problems["test"], *problems]:
        raise DataError(complaint(data, "test", problems))
    if not data.targets.get("test"):
        print(f"note: {data.name}: no mask of the test list holds a target pixel; Pd is not defined")
    if resized := [sample.name for sample, n in zip(samples, counts) if n.resized]:
        print(f"{data.name} test: {resized_note(resized)}")
    return counts


def evaluate(data: DatasetFolder, run: Run, args: argparse.Namespace) -> dict[str, Evaluation]:
    """Evaluations by protocol; writes the metrics to the run's output, and the curves beside it."""
    with lock(run.output.parent, "test.py or eval.py is at work"):
        counts = count_all(data, run.maps, args)
        points = pixel_curves(sum(n.levels for n in counts))
        evaluations = {}
        for name in counts[0].protocols:
            rows = [n.protocols[name] for n in counts]
            metrics, drawn = PROTOCOLS[name].metrics(total(rows)), draw(rows, name)
            metrics |= {"auc": auc(points)} if name == "standard" else {}
            metrics["interval"] = intervals(drawn, len(rows))
            evaluations[name] = metrics, drawn
        pd_fa = None if args.no_pd_fa else pd_fa_curve(sum(n.pd_fa for n in counts))
        about = {"masks": masks_digest(data.samples("test")), "mask_threshold": args.mask_threshold}
        write(run, {name: metrics for name, (metrics, _) in evaluations.items()}, about, points, pd_fa)
    return evaluations


def write(
    run: Run, metrics: dict[str, dict], about: dict, points: list[dict], pd_fa: list[dict] | None
) -> None:
    """Writes the metrics, what they are of (last, so that no others are taken for these), and the
    curves; an undefined value is an empty field."""

    def beside(ending: str) -> Path:
        return run.output.with_name(f"{run.output.stem}{ending}")

    beside("_about.json").unlink(missing_ok=True)
    write_json(run.output, metrics | ({"selected_on": TEST_LIST} if run.maps.chosen_on_test else {}))
    for path, curve in ((beside("_roc_pr.csv"), points), (beside("_pd_fa.csv"), pd_fa)):
        path.unlink(missing_ok=True)  # it would be another evaluation's
        if curve:
            write_csv(path, curve[0], [point.values() for point in curve])
    write_json(beside("_about.json"), run.maps.about | about)


# --- several runs ------------------------------------------------------------------------------------


def folders_of(name: str, args: argparse.Namespace) -> Iterator[tuple[str, Path, Path]]:
    """Of each run what it is called, the folder of its maps, and where its metrics go: never among maps
    that --maps names, unless they are in our results."""
    for folder in args.maps or args.results or ["results"]:
        maps = maps_in(Path(folder), name) if args.maps else Path(folder) / name
        place = metrics_folder(folder, name) if args.maps else maps
        yield folder, maps, Path(args.output) if args.output else place / "metrics.json"


def open_runs(data: DatasetFolder, args: argparse.Namespace) -> list[Run]:
    """The runs, each with maps of all images of the test list.

    Raises:
        DataError: a run has none; or the metrics of two runs would go to the same file, to where no
            file can be, or among another program's.
    """
    names = [sample.name for sample in data.samples("test")]
    runs: dict[Path, Run] = {}
    for label, maps, output in folders_of(data.name, args):
        if output in runs:
            raise DataError(f"{runs[output].label}, {label}: the metrics of both would go to {output}")
        among = args.maps and args.output and maps.resolve() in output.resolve().parents
        if among or (output.is_file() and output.suffix.lower() != ".json"):
            raise DataError(
                f"--output {output}: expected a .json file, outside of the folders of --maps"
            )
        check_place(output)
        if not maps.is_dir():
            again = data.command("test", results=f"--results {maps.parent}" if args.results else "")
            raise DataError(f"{maps}: found no maps; make them: {again}, or name a folder: --maps DIR")
        runs[output] = Run(label, open_maps(maps, names), output)
    return list(runs.values())


def are_seeds(runs: list[Run]) -> bool:
    """Whether runs are of one network: their names differ in numbers alone."""
    return len(runs) > 1 and len({re.sub(r"\d+", "", run.label) for run in runs}) == 1


def rows_of(protocol: str, runs: list[Run], evaluations: list[Evaluation]) -> dict[str, dict]:
    """The rows of the table: the runs, and, of seeds of one network, their mean."""
    all_metrics = [metrics for metrics, _ in evaluations]
    if len(runs) == 1:
        return {protocol: all_metrics[0]}
    rows = {f"{protocol}, {run.label}": metrics for run, metrics in zip(runs, all_metrics)}
    return rows | ({f"{protocol}, {len(runs)} runs": spread(all_metrics)} if are_seeds(runs) else {})


def gaps_of(
    protocol: str, runs: list[Run], evaluations: list[Evaluation], images: int
) -> dict[str, dict]:
    """Of each run but the first how its metrics differ from the first one's; not of seeds."""
    others = [] if are_seeds(runs) else zip(runs[1:], evaluations[1:])
    return {
        f"{run.label} - {runs[0].label}, {protocol}": differences(evaluations[0], other, images)
        for run, other in others
    }


# --- command line ------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=summary(__doc__),
        formatter_class=HelpFormatter,
    )
    add_data_arguments(parser, images=False)
    add = parser.add_argument
    add("--protocol", choices=(*PROTOCOLS, "all"), default="standard", help="whose definitions")
    add(
        "--interval",
        action="store_true",
        help="also show the 95 %% intervals of IoU, nIoU, Pd, Fa and hIoU (bootstrap over images); the "
        "JSON always has them",
    )
    add(
        "--maps",
        nargs="+",
        metavar="DIR",
        help="in place of --results: folders of maps X.png, X_*.png, or NAME/X.png, of any program",
    )
    add(
        "--results",
        nargs="+",
        metavar="DIR",
        help="where test.py wrote (default: results); of several folders also how the others differ "
        "from the first, or mean ± standard deviation if names differ in numbers alone (seed0 seed1)",
    )
    add(
        "--output",
        metavar="FILE",
        help="default: RESULTS/NAME/metrics.json; with --maps OTHER or OTHER/NAME: "
        "results/OTHER/NAME/metrics.json",
    )
    add("--no-pd-fa", action="store_true", help="leave the Pd-Fa curve out: it labels at 33 thresholds")
    add("--workers", type=positive, default=cores(), metavar="N", help="processes")
    return parser


@command()
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if args.maps and args.results:
        raise DataError("--results and --maps: expected one of them; --maps can name all folders")
    if args.output and max(map(len, (args.dataset, args.maps or args.results or []))) > 1:
        raise DataError("--output: expected one data set and one folder of maps; leave it out for more")
    rows, gaps = {}, {}
    sets = open_datasets(args)
    for data in sets:
        runs = open_runs(data, args)
        evaluations = []
        for run in runs:
            evaluations.append(evaluate(data, run, args))
            if run.maps.chosen_on_test:
                print(f"{run.maps.folder}: the weights were CHOSEN ON THE TEST LIST")
            print(f"metrics: {run.output}")
        for protocol in evaluations[0]:
            label = f"{data.name} {protocol}" if len(sets) > 1 else protocol
            of_runs = [by_protocol[protocol] for by_protocol in evaluations]
            rows |= rows_of(label, runs, of_runs)
            gaps |= gaps_of(label, runs, of_runs, len(data.samples("test")))
    if gaps:
        print(f"{difference_table(gaps)}\n")
    print(table(rows, args.interval))


if __name__ == "__main__":
    sys.exit(main())
