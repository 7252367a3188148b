"""Evaluation: probability maps and masks -> IoU, nIoU, Pd, Fa, under any protocol in use.

    python eval.py --dataset IRSTD-1k
    python eval.py --dataset NUAA-SIRST --protocol all
    python eval.py --dataset NUAA-SIRST --results results/seed0 results/seed1 results/seed2
    python eval.py --dataset NUAA-SIRST --maps ../OTHER/maps    # of another program

Writes the figures as JSON (unrounded fractions, null where undefined), and the points of the ROC,
precision-recall and Pd-Fa curves as CSV beside it; and which maps they are of (metrics_about.json).
Nothing is written into a folder that --maps names.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from dataset import add_data_arguments, complaint, is_resized, open_datasets, resized_note
from ismallnet.cli import DataError, HelpFormatter, command, cores, in_processes, progress
from ismallnet.files import write_csv, write_json
from ismallnet.images import image_shape
from ismallnet.layouts import DatasetFolder, Sample
from ismallnet.masks import read_mask_values
from ismallnet.metrics import (
    PD_FA_THRESHOLDS,
    PROTOCOLS,
    auc,
    count_levels,
    count_pd_fa,
    pd_fa_curve,
    pixel_curves,
    spread,
    table,
)
from ismallnet.results import (
    TEST_LIST,
    check_finished,
    chosen_on_test,
    map_file,
    read_about,
    read_map,
    survey_maps,
)


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
    for name in protocols:
        options = {"threshold": threshold} if name == "standard" else {}
        counts.protocols[name] = Counter(PROTOCOLS[name].count(pred, mask, **options))
    if curve:
        counts.pd_fa = count_pd_fa(pred, mask, threshold)
    return counts


def count_all(data: DatasetFolder, maps: Path, args: argparse.Namespace) -> Counts:
    """The counts of a test list, by several processes.

    Raises:
        DataError: names all maps and masks that are missing or cannot be used.
    """
    samples = data.samples("test")
    if not maps.is_dir():
        again = data.command("test", results=f"--results {maps.parent}" if args.results else "")
        raise DataError(f"{maps}: found no maps; make them: {again}, or name their folder: --maps DIR")
    protocols = tuple(PROTOCOLS) if args.protocol == "all" else (args.protocol,)
    zero_one = False
    if not read_about(maps):  # of another program
        zero_one = survey_maps(maps, [sample.name for sample in samples])
        if zero_one:
            print(f"{maps}: the maps' values are 0 and 1; 1 is taken for 255")
    options = {"zero_one": zero_one, "protocols": protocols, "threshold": args.mask_threshold}
    one = partial(count, maps=maps, curve=not args.no_pd_fa, **options)
    total, problems = Counts(), list(data.problems["test"])
    results = in_processes(one, samples, args.workers)
    for result in progress(results, f"{data.name} eval", len(samples)):
        if isinstance(result, DataError):
            problems.append(str(result))
        else:
            total.add(result)
    if problems:
        raise DataError(complaint(data, "test", problems))
    if not data.targets.get("test"):
        print(f"note: {data.name}: no mask of the test list holds a target pixel; Pd is not defined")
    if total.resized:
        print(f"{data.name} test: {resized_note(total.resized)}")
    return total


def write_curve(path: Path, points: list[dict]) -> None:
    """Points of a curve as CSV; an undefined value is an empty field."""
    write_csv(path, points[0], [point.values() for point in points])


def evaluate(data: DatasetFolder, maps: Path, output: Path, args: argparse.Namespace) -> dict:
    """Figures by protocol; writes them to `output`, and the curves beside it."""
    check_finished(maps)
    counts = count_all(data, maps, args)
    figures = {name: PROTOCOLS[name].figures(n) for name, n in counts.protocols.items()}
    points = pixel_curves(counts.levels)
    if "standard" in figures:
        figures["standard"]["auc"] = auc(points)
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
    write_json(about, read_about(maps))
    return figures


def places(name: str, results: str, maps: str | None) -> tuple[Path, Path]:
    """Where the maps of a data set are, and where its figures go: never among maps that --maps names,
    which may be another project's."""
    if maps is None:
        return Path(results) / name, Path(results) / name / "metrics.json"
    inside = Path(maps) / name
    output = Path(results) / Path(maps).resolve().name / name / "metrics.json"
    return inside if inside.is_dir() else Path(maps), output


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=HelpFormatter,
    )
    add_data_arguments(parser, images=False)
    add = parser.add_argument
    add("--protocol", choices=(*PROTOCOLS, "all"), default="standard", help="whose definitions")
    add("--maps", metavar="DIR", help="folder of the maps X.png, or NAME/X.png; default: RESULTS/NAME")
    add(
        "--results",
        nargs="+",
        metavar="DIR",
        help="where test.py wrote (default: results); with several folders, one for each seed for "
        "example, also mean ± standard deviation",
    )
    add(
        "--output",
        metavar="FILE",
        help="default: RESULTS/NAME/metrics.json; with --maps RESULTS/MAPS/NAME/metrics.json, MAPS the "
        "name of that folder",
    )
    add("--no-pd-fa", action="store_true", help="leave the Pd-Fa curve out: it labels at 33 thresholds")
    add("--workers", type=int, default=cores(), metavar="N", help="processes")
    return parser


@command()
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    sets = open_datasets(args)
    if args.output and len(sets) > 1:
        raise DataError("--output: expected one data set; leave it out for a file in each one's folder")
    folders = args.results or ["results"]
    if len(folders) > 1 and (args.maps or args.output):
        raise DataError("--results: expected one folder beside --maps or --output")
    rows: dict[tuple[str, ...], list[dict]] = {}
    for data in sets:
        for results in folders:
            maps, output = places(data.name, results, args.maps)
            output = Path(args.output) if args.output else output
            for protocol, figures in evaluate(data, maps, output, args).items():
                rows.setdefault((data.name, protocol), []).append(figures)
            if chosen_on_test(maps):
                print(f"{maps}: the weights were CHOSEN ON THE TEST LIST")
            print(f"figures: {output}")
    shown = {}
    for (name, protocol), runs in rows.items():
        label = f"{name} {protocol}" if len(sets) > 1 else protocol
        if len(runs) == 1:
            shown[label] = runs[0]
            continue
        shown |= {f"{label}, {results}": run for results, run in zip(folders, runs)}
        shown[f"{label}, {len(runs)} runs"] = spread(runs)
    print(table(shown))


if __name__ == "__main__":
    sys.exit(main())
