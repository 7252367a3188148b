"""Inference: weights and a data set's test images -> probability maps and the standard figures.

    python test.py --dataset NUAA-SIRST

Writes RESULTS/NAME/X.png, round(255·p) at the image's own size, images.csv with each image's counts,
and about.json, which says what weights the maps came from.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dataset import Frames
from ismallnet.arguments import add_data_arguments, grey_range, open_datasets, refuse_idle
from ismallnet.baselines.choose import BASELINES, baseline_maps, choose
from ismallnet.cli import DataError, HelpFormatter, command, gone, positive, progress, some, summary
from ismallnet.datasets.sample import DatasetFolder
from ismallnet.distributed import pick_device
from ismallnet.evaluation.map_files import UNFINISHED
from ismallnet.evaluation.metrics import count_standard, metrics_standard, total
from ismallnet.evaluation.tables import table
from ismallnet.files import lock, sweep, write_csv, write_json, write_png
from ismallnet.images.grey import GreyRange
from ismallnet.inference.predict import OVERLAP, Tiling, infer, prepared
from ismallnet.inference.weights import (
    add_network_arguments,
    describe,
    find_weights,
    named_weights,
    open_network,
    seen_of,
)
from ismallnet.parallel import cores

GREY_SETTINGS = ("range", "percentiles", "polarity")
NETWORK_SETTINGS = (*GREY_SETTINGS, "resize", "flips", "amp", "backend")  # that about.json keeps
Predictions = Iterator[tuple[int, np.ndarray, np.ndarray]]  # index, map, mask: as `infer` yields them


def network(data: DatasetFolder, frames: Frames, args: argparse.Namespace) -> tuple[Predictions, dict]:
    """The network's maps of a list, and what about.json says of them."""
    if not (path := args.weights and named_weights(args.weights)):
        path = find_weights(args.runs, args.dataset, data.name)
    model = open_network(path, args.backend, args.amp, args.network)
    print(describe(path, model))
    for text in training_notes(model.info, data.name, frames, args.split):
        print(text)
    about = {
        "weights": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "selected_on": model.info.get("selected_on", "unknown"),
        **{key: getattr(args, key) for key in NETWORK_SETTINGS},
    }
    tiling = Tiling(0 if args.resize else args.tile)
    if text := tiling.note(frames.shapes):
        print(f"{data.name} test: {text}")
        about |= {"tile": tiling.side, "overlap": tiling.overlap}
        about["tiled_images"] = sum(map(tiling.applies, frames.shapes))
    options = {key: getattr(args, key) for key in ("amp", "resize", "flips")}
    return infer(prepared(model, pick_device(args.device)), frames, **options, tiling=tiling), about


def training_notes(info: dict, name: str, frames: Frames, split: list[str] | None) -> Iterator[str]:
    """What is said where images of a data set were part of the training, or are read otherwise than in
    it; `info` is what the weights say of themselves, `split` the lists that were named."""
    if not isinstance(trained := info.get("args"), dict):
        return
    own, then, now = name in (info.get("dataset") or ()), GreyRange.of_training(info), frames.grey
    seen = seen_of(info, name, [sample.name for sample in frames.samples])
    if seen:
        yield (
            f"warning: the weights have learned from images of {name} with the names of {len(seen)} of "
            f"these {len(frames)}: {some(seen)}. The metrics are too good"
        )
    elif seen is None and own and (lists := trained.get("split")) != split:
        used = f"--split {' '.join(lists)}" if lists else "the lists that are found without --split"
        other = "Other lists may test them on images that they have seen"
        yield f"note: the weights were trained with {used}. {other}"
    flags = [f"--polarity {'dark' if then.dark else 'bright'}"] if then.dark != now.dark else []
    if frames.greys and (then.limits, then.percentiles) != (now.limits, now.percentiles):
        values = " ".join(f"{value:g}" for value in then.limits or then.percentiles)
        flags.append(f"{'--range' if then.limits else '--percentiles'} {values}")
    if own and flags:
        yield f"note: the weights were trained with {' '.join(flags)}; type it here too"


def baseline(data: DatasetFolder, frames: Frames, args: argparse.Namespace) -> tuple[Predictions, dict]:
    """A classical method's maps of a list, and what about.json says of them."""
    train = Frames(data, "train", args.mask_threshold, grey_range(args))
    window, threshold, iou = choose(train, args.baseline, args.workers)
    print(
        f"{args.baseline}: window {window} px, threshold {threshold:.2f} standard deviations, chosen "
        f"on the training list (IoU {100 * iou:.2f} there)"
    )
    about = {"baseline": args.baseline, "window": window, "threshold": threshold}
    about |= {key: getattr(args, key) for key in GREY_SETTINGS}
    about["selected_on"] = "the training list"
    return baseline_maps(frames, args.baseline, window, threshold, args.workers), about


def write_results(
    maps: Predictions, label: str, frames: Frames, folder: Path
) -> dict[str, float | int | None]:
    """Writes the maps and images.csv of a list; returns its standard metrics."""
    counts = {}
    for i, pred, mask in progress(maps, label, len(frames)):
        write_png(folder / f"{frames.samples[i].name}.png", pred)
        counts[i] = count_standard(pred, mask)
    columns = ("targets", "matched", "false_pixels")
    rows = (
        [frames.samples[i].name, f"{n['image_iou']:.6f}", *(n[key] for key in columns)]
        for i, n in sorted(counts.items())
    )
    write_csv(folder / "images.csv", ("image", "iou", *columns), rows)
    return metrics_standard(total(counts.values()))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=summary(__doc__), formatter_class=HelpFormatter)
    add_data_arguments(parser)
    add = parser.add_argument
    add_network_arguments(add, "the newest run in RUNS/NAME, else weights/NAME.*, else IRSTD-1k.*")
    own = "a network of your own, of which the weights are (docs/RESEARCH.md)"
    add("--network", metavar="FILE.py:CLASS", help=own)
    add("--results", default="results", metavar="DIR", help="maps go to DIR/NAME")
    add("--runs", default="runs", metavar="DIR", help="where runs are kept")
    add("--baseline", choices=BASELINES, help="a classical method in place of the network")
    workers = {"type": positive, "default": cores(), "metavar": "N"}
    add("--workers", **workers, help="processes, for --baseline")
    add("--resize", type=positive, metavar="PX", help="run at PX x PX, as the authors do at 352")
    tile = "images larger than this run in tiles; 0: none; default: from 1024 px on, in tiles of 512"
    add("--tile", type=int, metavar="PX", help=tile)
    gone(parser, "--batch-size", "leave it out: images run one by one")
    gone(parser, "--overlap", f"leave it out: tiles overlap by {OVERLAP} px, small ones by half")
    gone(parser, "--width", "leave it out; the weights say how wide their network is")
    for flag in ("--input", "--watch"):
        gone(parser, flag, "for frames of your own type python detect.py PATH, or --watch FOLDER there")
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Refuses flags that the mode does not use, and values that cannot be."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.baseline:
        idle = ("weights", "network", "resize", "flips", "backend", "amp")
        refuse_idle(parser, args, (*idle, "device", "tile"), "beside --baseline")
    else:
        refuse_idle(parser, args, ("workers",), "without --baseline")
    if args.tile and args.tile < 32:
        raise DataError(f"--tile: found {args.tile}, expected 0, or 32 or more")
    if args.resize and args.tile:
        raise DataError("--resize and --tile: expected one of them; --resize makes images small")
    return args


@command()
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    metrics = {}
    for data in open_datasets(args):
        folder = Path(args.results) / data.name
        if folder.resolve() == data.root.resolve():
            raise DataError(f"{folder}: is the data set itself; expected another folder, as results")
        frames = Frames(data, "test", args.mask_threshold, grey_range(args))
        maps, about = (baseline if args.baseline else network)(data, frames, args)
        with lock(folder, "test.py writes maps"):
            write_json(folder / UNFINISHED, {})
            sweep(folder)
            (folder / "about.json").unlink(missing_ok=True)  # until all maps are of this call
            metrics[data.name] = write_results(maps, f"{data.name} test", frames, folder)
            write_json(folder / "about.json", about | {"images": [s.name for s in frames.samples]})
            (folder / UNFINISHED).unlink(missing_ok=True)
        print(f"maps, images.csv: {folder}")
    print(table(metrics))
    return 0


if __name__ == "__main__":
    sys.exit(main())
