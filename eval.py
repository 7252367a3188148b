"""Evaluation: probability maps and masks -> IoU, nIoU, Pd, Fa, under any protocol in use.

    python eval.py --dataset IRSTD-1k
    python eval.py --dataset NUAA-SIRST --protocol all
    python eval.py --dataset NUAA-SIRST --interval              # 95 % intervals
    python eval.py --dataset NUAA-SIRST --results results/seed0 results/seed1 results/seed2
    python eval.py --dataset NUAA-SIRST --maps ../OTHER/maps    # of another program

Writes the figures and their 95 % intervals as JSON (unrounded fractions, null where undefined), and
the points of the ROC, precision-recall and Pd-Fa curves as CSV beside it; and which maps they are of
(metrics_about.json). Of several runs it also says which differences the choice of images does not
explain. Nothing is written into a folder that --maps names.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ismallnet.arguments import add_data_arguments, open_datasets
from ismallnet.cli import DataError, HelpFormatter, command, positive, progress
from ismallnet.datasets.checks import complaint
from ismallnet.datasets.masks import is_resized, masks_digest, read_mask_values, resized_note
from ismallnet.datasets.sample import DatasetFolder, Sample
from ismallnet.evaluation.intervals import Bootstrap, Drawn, differences, intervals
from ismallnet.evaluation.map_files import (
    TEST_LIST,
    check_finished,
    chosen_on_test,
    holds_zero_one,
    map_file,
    maps_in,
    own_name,
    read_about,
    read_map,
    same_images,
)
from ismallnet.evaluation.metrics import (
    PD_FA_THRESHOLDS,
    auc,
    count_levels,
    count_pd_fa,
    pd_fa_curve,
    pixel_curves,
)
from ismallnet.evaluation.protocols import PROTOCOLS, count_image
from ismallnet.evaluation.tables import difference_table, spread, table
from ismallnet.files import check_place, write_csv, write_json
from ismallnet.images.picture import image_shape
from ismallnet.parallel import cores, in_processes


@dataclass
class Counts:
    """What one image, or many, add to the figures."""

    protocols: dict[str, Counter] = field(default_factory=dict)
    levels: np.ndarray = field(default_factory=lambda: np.zeros((2, 256), np.int64))
    resized: list[str] = field(default_factory=list)
    pd_fa: np.ndarray = field(default_factory=lambda: np.zeros((len(PD_FA_THRESHOLDS), 4), np.int64))

    def add(self, other: "Counts") -> None:
        for name, counts in other.protocols.items():
            self.protocols.setdefault(name, Counter()).update(counts)
        self.levels += other.levels
        self.resized += other.resized
        self.pd_fa += other.pd_fa


def count(
    sample: Sample,
    maps: Path,
    zero_one: bool,
    protocols: tuple[str, ...],
    threshold: int,
    curve: bool,
) -> Counts | DataError:
    """The counts of one image; an unusable file is returned, so that all can be named at once."""
    try:
        shape = image_shape(sample.image)
        pred = read_map(map_file(maps, sample.name), shape, zero_one)
        mask = np.zeros(shape, np.uint8)
        if sample.mask is not None:
            mask = read_mask_values(sample.mask, shape, sample.rule)
        resized = is_resized(sample, shape)
    except DataError as error:
        return error
    counts = Counts(levels=count_levels(pred, mask, threshold))
    counts.resized = [sample.name] if resized else []
    for name, found in count_image(pred, mask, protocols, threshold).items():
        counts.protocols[name] = Counter(found)
    if curve:
        counts.pd_fa = count_pd_fa(pred, mask, threshold)
    return counts


def count_all(
    data: DatasetFolder, maps: Path, args: argparse.Namespace
) -> tuple[Counts, dict[str, Drawn]]:
    """The counts of a test list, by several processes; and by protocol the figures in each draw of
    the bootstrap.

    Raises:
        DataError: names all maps and masks that are missing or cannot be used.
    """
    samples = data.samples("test")
    if not maps.is_dir():
        again = data.command("test", results=f"--results {maps.parent}" if args.results else "")
        raise DataError(f"{maps}: found no maps; make them: {again}, or name their folder: --maps DIR")
    protocols = tuple(PROTOCOLS) if args.protocol == "all" else (args.protocol,)
    zero_one = holds_zero_one(maps, [sample.name for sample in samples])
    options = {"zero_one": zero_one, "protocols": protocols, "threshold": args.mask_threshold}
    one = partial(count, maps=maps, curve=not args.no_pd_fa, **options)
    total, problems = Counts(), list(data.problems["test"])
    bootstrap = Bootstrap(len(samples))
    results = in_processes(one, samples, args.workers)
    for result in progress(results, f"{data.name} eval", len(samples)):
        if isinstance(result, DataError):
            problems.append(str(result))
        else:
            total.add(result)
            bootstrap.add(result.protocols)
    if problems:
        raise DataError(complaint(data, "test", problems))
    if not data.targets.get("test"):
        print(f"note: {data.name}: no mask of the test list holds a target pixel; Pd is not defined")
    if total.resized:
        print(f"{data.name} test: {resized_note(total.resized)}")
    return total, bootstrap.figures()


def write_curve(path: Path, points: list[dict]) -> None:
    """Points of a curve as CSV; an undefined value is an empty field."""
    write_csv(path, points[0], [point.values() for point in points])


@dataclass(frozen=True)
class Run:
    """One set of maps of a data set: what it is called, where it is, and where its figures go."""

    label: str
    maps: Path
    output: Path


@dataclass(frozen=True)
class Evaluation:
    """A run's figures under a protocol, and their values in each draw of the bootstrap."""

    figures: dict
    drawn: Drawn


def evaluate(data: DatasetFolder, run: Run, args: argparse.Namespace) -> dict[str, Evaluation]:
    """Evaluations by protocol; writes the figures to the run's output, and the curves beside it."""
    maps, output = run.maps, run.output
    samples = data.samples("test")
    check_finished(maps, [sample.name for sample in samples])
    counts, drawn = count_all(data, maps, args)
    figures = {name: PROTOCOLS[name].figures(n) for name, n in counts.protocols.items()}
    points = pixel_curves(counts.levels)
    if "standard" in figures:
        figures["standard"]["auc"] = auc(points)
    for name, values in drawn.items():
        figures[name]["interval"] = intervals(values, len(samples))
    content = dict(figures)
    if chosen_on_test(maps):
        content["selected_on"] = TEST_LIST
    about = output.with_name(f"{output.stem}_about.json")  # what these are the figures of
    about.unlink(missing_ok=True)
    write_json(output, content)
    write_curve(output.with_name(f"{output.stem}_roc_pr.csv"), points)
    pd_fa = output.with_name(f"{output.stem}_pd_fa.csv")
    if args.no_pd_fa:
        pd_fa.unlink(missing_ok=True)  # it would be another evaluation's
    else:
        write_curve(pd_fa, pd_fa_curve(counts.pd_fa))
    read = {"masks": masks_digest(samples), "mask_threshold": args.mask_threshold}
    write_json(about, read_about(maps) | read)
    return {name: Evaluation(found, drawn[name]) for name, found in figures.items()}


def runs_of(name: str, args: argparse.Namespace) -> list[Run]:
    """Where the maps of a data set are, and where their figures go: never among maps that --maps
    names, which may be another project's.

    Raises:
        DataError: the figures of two runs would go to the same file, or where no file can be.
    """
    folders = args.results or ["results"]
    if args.maps is None:
        runs = [Run(f, Path(f) / name, Path(f) / name / "metrics.json") for f in folders]
    else:
        runs = [
            Run(m, maps_in(Path(m), name), Path(folders[0]) / own_name(m, name) / name / "metrics.json")
            for m in args.maps
        ]
    if args.output:
        place = Path(args.output).resolve()
        among = any(Path(maps).resolve() in place.parents for maps in args.maps or [])
        if among or (place.is_file() and place.suffix.lower() != ".json"):
            raise DataError(
                f"--output {args.output}: expected a .json file, outside of the folders of --maps"
            )
        runs = [Run(run.label, run.maps, Path(args.output)) for run in runs]
    first: dict[Path, Run] = {}
    for run in runs:
        check_place(run.output)
        if (other := first.setdefault(run.output, run)) is not run:
            raise DataError(
                f"{other.label} and {run.label}: the figures of both would go to {run.output}; give "
                "the folders different names"
            )
    return runs


def compared(runs: list[Run], found: list[Evaluation], images: int) -> dict[str, dict]:
    """Of each run but the first, how its figures differ from the first one's."""
    base, *others = ((e.figures, e.drawn) for e in found)
    return {run.label: differences(base, other, images) for run, other in zip(runs[1:], others)}


def rows_of(
    protocol: str, runs: list[Run], found: list[Evaluation], mean: bool
) -> Iterator[tuple[str, dict]]:
    """The rows of the table: the runs, and, if wanted, their mean."""
    if len(runs) == 1:
        yield protocol, found[0].figures
        return
    for run, evaluation in zip(runs, found):
        yield f"{protocol}, {run.label}", evaluation.figures
    if mean:
        yield f"{protocol}, {len(runs)} runs", spread([e.figures for e in found])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
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
        help="folder of the maps X.png, or NAME/X.png; with several folders, also how the others "
        "differ from the first; default: RESULTS/NAME",
    )
    add(
        "--results",
        nargs="+",
        metavar="DIR",
        help="where test.py wrote (default: results); with several folders, one for each seed for "
        "example, also mean ± standard deviation, and how the others differ from the first",
    )
    add(
        "--output",
        metavar="FILE",
        help="default: RESULTS/NAME/metrics.json; with --maps OTHER or OTHER/NAME: "
        "RESULTS/OTHER/NAME/metrics.json",
    )
    add("--no-pd-fa", action="store_true", help="leave the Pd-Fa curve out: it labels at 33 thresholds")
    add("--workers", type=positive, default=cores(), metavar="N", help="processes")
    return parser


@command()
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    sets = open_datasets(args)
    if args.output and len(sets) > 1:
        raise DataError("--output: expected one data set; leave it out for a file in each one's folder")
    if len(args.results or []) > 1 and (args.maps or args.output):
        raise DataError("--results: expected one folder beside --maps or --output")
    if len(args.maps or []) > 1 and args.output:
        raise DataError("--maps: expected one folder beside --output")
    shown, differing = {}, {}
    for data in sets:
        runs = runs_of(data.name, args)
        if len(runs) > 1:
            same_images([run.maps for run in runs], [s.name for s in data.samples("test")])
        evaluations = []
        for run in runs:
            evaluations.append(evaluate(data, run, args))
            if chosen_on_test(run.maps):
                print(f"{run.maps}: the weights were CHOSEN ON THE TEST LIST")
            print(f"figures: {run.output}")
        for protocol in evaluations[0]:
            label = f"{data.name} {protocol}" if len(sets) > 1 else protocol
            found = [evaluation[protocol] for evaluation in evaluations]
            shown |= dict(rows_of(label, runs, found, mean=args.maps is None))
            rows = compared(runs, found, len(data.samples("test"))) if len(runs) > 1 else {}
            differing |= {f"{name} - {runs[0].label}, {label}": row for name, row in rows.items()}
    if differing:
        print(f"{difference_table(differing)}\n")
    print(table(shown, args.interval))


if __name__ == "__main__":
    sys.exit(main())
