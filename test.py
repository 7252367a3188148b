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
from ismallnet.baselines.choose import BASELINES, Unfinished, choose, run
from ismallnet.cli import DataError, HelpFormatter, command, positive, progress, some, summary
from ismallnet.datasets.sample import DatasetFolder
from ismallnet.distributed import pick_device
from ismallnet.evaluation.map_files import UNFINISHED, check_place
from ismallnet.evaluation.metrics import count_standard, metrics_standard, total
from ismallnet.evaluation.tables import table
from ismallnet.files import read_png, sweep, write_csv, write_json, write_png
from ismallnet.images.grey import PERCENTILES
from ismallnet.inference.onnx import BACKENDS
from ismallnet.inference.predict import OVERLAP, TILE, Tiling, infer, prepared
from ismallnet.inference.weights import (
    describe,
    find_weights,
    named_weights,
    open_network,
    seen_of,
)
from ismallnet.parallel import cores

GREY_SETTINGS = ("range", "percentiles", "polarity")
NETWORK_SETTINGS = (*GREY_SETTINGS, "resize", "flips", "amp", "backend")  # that about.json keeps
Found = Iterator[tuple[int, np.ndarray, np.ndarray]]  # index, map, mask: as `infer` yields them


def network(data: DatasetFolder, frames: Frames, args: argparse.Namespace) -> tuple[Found, dict]:
    """The network's maps of a list, and what about.json says of them."""
    if args.weights:
        path = named_weights(args.weights)
    else:
        path = find_weights(args.runs, args.dataset, data.name, data.command("train"))
    model = open_network(path, args.backend, args.width, args.amp)
    print(describe(path, model))
    print(describe_training(model.info, data, frames, args), end="")
    model = prepared(model, pick_device(args.device))
    about = {
        "weights": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "selected_on": model.info.get("selected_on", "unknown"),
        **{key: getattr(args, key) for key in NETWORK_SETTINGS},
    }
    tiling = Tiling(0 if args.resize else args.tile, args.overlap)
    if text := tiling.note(frames.shapes):
        print(f"{data.name} test: {text}")
        about |= {"tile": tiling.side, "overlap": tiling.overlap}
        about["tiled_images"] = sum(map(tiling.applies, frames.shapes))
    options = (args.batch_size, args.amp, args.resize, args.flips)
    return infer(model, frames, *options, tiling=tiling), about


def describe_training(info: dict, data: DatasetFolder, frames: Frames, args: argparse.Namespace) -> str:
    """Notes where images were part of the training, or are read otherwise than in it; else nothing."""
    trained = info.get("args")
    if not isinstance(trained, dict):
        return ""
    own = data.name in info.get("dataset", ())
    names = [sample.name for sample in frames.samples]
    seen, split = seen_of(info, data.name, names), trained.get("split")
    notes = []
    if seen:
        notes.append(
            f"warning: the weights have learned from images of {data.name} with the names of "
            f"{len(seen)} of these {len(names)}: {some(seen)}. The metrics are too good\n"
        )
    elif seen is None and own and split != args.split:
        then = f"--split {' '.join(split)}" if split else "the lists that are found without --split"
        notes.append(
            f"note: the weights were trained with {then}. Other lists may test them on images that "
            "they have seen\n"
        )
    flags = other_greys(trained, args, bool(frames.greys), own)
    notes += [f"note: the weights were trained with {flag}; type it here too\n" for flag in flags]
    return "".join(notes)


def other_greys(trained: dict, args: argparse.Namespace, deep: bool, own: bool) -> list[str]:
    """The flags with which a training read its images, where they are read otherwise here.

    Args:
        deep: images here have more than 8 bits, for which a range counts.
        own: the training had this data set.
    """
    flags, polarity = [], trained.get("polarity", "bright")
    if own and polarity != args.polarity:
        flags.append(f"--polarity {polarity}")
    default = ([], list(PERCENTILES))
    then = (list(trained.get("range") or ()), list(trained.get("percentiles") or PERCENTILES))
    now = (list(args.range or ()), list(args.percentiles))
    if deep and then != now and (own or then != default):
        values = " ".join(f"{value:g}" for value in then[0] or then[1])
        flags.append(f"{'--range' if then[0] else '--percentiles'} {values}")
    return flags


def baseline(
    data: DatasetFolder, frames: Frames, args: argparse.Namespace, folder: Path
) -> tuple[Found, dict]:
    """A classical method's maps of a list, and what about.json says of them. A call that was
    interrupted continues."""
    train = Frames(data, "train", args.mask_threshold, grey_range(args))
    settings = {key: getattr(args, key) for key in ("baseline", "mask_threshold", *GREY_SETTINGS)}
    settings["images"] = [str(sample.image) for sample in (*train.samples, *frames.samples)]
    unfinished = Unfinished(folder / UNFINISHED, settings)
    window, threshold, iou = choose(train, args.baseline, args.workers, unfinished)
    print(
        f"{args.baseline}: window {window} px, threshold {threshold:.2f} standard deviations, chosen "
        f"on the training list (IoU {100 * iou:.2f} there)"
    )
    paths = {i: folder / f"{sample.name}.png" for i, sample in enumerate(frames.samples)}
    if not unfinished.maps:  # those that are there are of an earlier call
        for path in (folder / "about.json", *paths.values()):
            path.unlink(missing_ok=True)
        unfinished.maps = True
        unfinished.write()
    there = {i: path for i, path in paths.items() if path.exists()}
    read = {i: read_png(path) for i, path in there.items()}
    done = {i: pred for i, pred in read.items() if pred is not None}
    if done:
        print(f"{folder}: {len(done)} of {len(frames)} maps are there already")
    about = {"baseline": args.baseline, "window": window, "threshold": threshold}
    about |= {key: getattr(args, key) for key in GREY_SETTINGS}
    about["selected_on"] = "the training list"
    return run(frames, args.baseline, window, threshold, args.workers, done), about


def write_maps(
    found: Iterator[tuple[int, np.ndarray, np.ndarray]],
    data: DatasetFolder,
    frames: Frames,
    folder: Path,
) -> dict[str, float | int | None]:
    """Writes the maps and images.csv of a list; returns its standard figures."""
    all_counts, rows = [], []
    bar = progress((), f"{data.name} test", len(frames))
    for i, pred, mask in found:
        name = frames.samples[i].name
        write_png(folder / f"{name}.png", pred)
        counts = count_standard(pred, mask)
        all_counts.append(counts)
        iou = f"{counts['image_iou']:.6f}"
        rows.append((i, [name, iou, *(counts[k] for k in ("targets", "matched", "false_pixels"))]))
        bar.update()
    bar.close()
    columns = ("image", "iou", "targets", "matched", "false_pixels")
    write_csv(folder / "images.csv", columns, (row for _, row in sorted(rows)))
    return metrics_standard(total(all_counts))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=summary(__doc__),
        formatter_class=HelpFormatter,
    )
    add_data_arguments(parser)
    add = parser.add_argument
    add("--weights", metavar="FILE", help="default: the newest run in RUNS/NAME, else weights/NAME.*")
    add("--width", type=int, help="that the weights must have; default: any")
    add("--results", default="results", metavar="DIR", help="maps go to DIR/NAME")
    add("--runs", default="runs", metavar="DIR", help="where runs are kept")
    add("--batch-size", type=int, default=1, metavar="N", help="images of equal padded size together")
    add("--baseline", choices=BASELINES, help="a classical method in place of the network")
    add(
        "--workers",
        type=positive,
        default=cores(),
        metavar="N",
        help="processes, for --baseline",
    )
    add("--resize", type=int, metavar="PX", help="run at PX x PX, as the authors do at 352")
    add("--flips", action="store_true", help="mean over the image and its three mirror images")
    add(
        "--tile",
        type=int,
        metavar="PX",
        help="images larger than this run in tiles; 0: none; default: those of 1024 px or more, in "
        "tiles of 512",
    )
    add(
        "--overlap",
        type=int,
        default=OVERLAP,
        metavar="PX",
        help="overlap of neighbouring tiles, in pixels, at least",
    )
    add = parser.add_argument_group("running").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--backend", choices=BACKENDS, default="torch", help="others: optional packages, on the CPU")
    add(
        "--amp",
        choices=("auto", "bf16", "fp16", "off"),
        default="auto",
        help="mixed precision; auto: on CUDA, off on the CPU; beside --backend openvino: bf16 or off",
    )
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """
    Raises:
        DataError: frames of one's own, which are detect.py's; a flag that the mode does not use.
    """
    typed = [text.split("=")[0] for text in (sys.argv[1:] if argv is None else argv)]
    if {"--input", "--watch"} & set(typed):
        raise DataError(
            "test.py runs data sets; for frames of your own type python detect.py PATH, or "
            "python detect.py --watch FOLDER"
        )
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.baseline:
        idle = ("weights", "width", "resize", "flips", "batch_size", "backend", "amp", "device")
        refuse_idle(parser, args, (*idle, "tile", "overlap"), "beside --baseline")
    else:
        refuse_idle(parser, args, ("workers",), "without --baseline")
    if args.batch_size < 1 or (args.resize is not None and args.resize < 1):
        raise DataError("expected --batch-size and --resize of 1 or more")
    tile = TILE if args.tile is None else args.tile
    if tile and (tile < 32 or not 0 <= 2 * args.overlap <= tile):
        raise DataError("expected --tile of 0, or 32 or more, and --overlap of 0 to half a --tile")
    if args.resize and args.tile:
        raise DataError("--resize and --tile: expected one of them; --resize makes images small")
    if args.overlap != OVERLAP and (args.tile == 0 or args.resize):
        raise DataError("--overlap: has no effect without tiles; leave it out")
    return args


@command()
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    figures = {}
    for data in open_datasets(args):
        folder = Path(args.results) / data.name
        check_place(folder, data.root)
        frames = Frames(data, "test", args.mask_threshold, grey_range(args))
        if args.baseline:
            found, about = baseline(data, frames, args, folder)
        else:
            found, about = network(data, frames, args)
            write_json(folder / UNFINISHED, {})
        sweep(folder)
        (folder / "about.json").unlink(missing_ok=True)  # until all maps are of this
        figures[data.name] = write_maps(found, data, frames, folder)
        write_json(folder / "about.json", about | {"images": [s.name for s in frames.samples]})
        (folder / UNFINISHED).unlink(missing_ok=True)
        print(f"maps, images.csv: {folder}")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
