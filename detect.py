"""Targets in frames of your own: images, folders, videos, multi-page TIFFs, NumPy stacks.

    python detect.py frames/ clip.mp4
    python detect.py --watch incoming/

Writes probability maps, overlays with a box on each target, detections.csv and detections.json to
RESULTS/NAME/. In a program of your own:

    from detect import Detector

    detector = Detector.from_weights()
    for target in detector.detect(frame):
        print(target.x, target.y, target.score)
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
from dataclasses import fields
from pathlib import Path

from ismallnet.cli import DataError, HelpFormatter, command, positive, summary
from ismallnet.detection.detector import (
    AMP,
    POLARITIES,
    DetectionSettings,
    Detector,
    Target,
    find_targets,
    unusable,
)
from ismallnet.detection.folder import results_folder
from ismallnet.detection.run import MODES, Request, run
from ismallnet.detection.sources import find_sources
from ismallnet.detection.tracks import DISTANCE, Confirmation
from ismallnet.distributed import Processes, run_script
from ismallnet.images.arrays import RawLayout
from ismallnet.images.grey import PERCENTILES
from ismallnet.inference.onnx import BACKENDS
from ismallnet.inference.predict import prepared
from ismallnet.inference.weights import DEFAULT, default_weights, describe, named_weights, open_network
from ismallnet.parallel import cores

FLAGS = {"limits": "range"}  # setting -> its flag, where that has another name
__all__ = ["DetectionSettings", "Detector", "Target", "find_targets"]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=summary(__doc__),
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument_group("input").add_argument
    add(
        "input",
        nargs="*",
        metavar="PATH",
        help="image files, folders, patterns ('scan_*.tif'), videos, multi-page TIFFs, NumPy stacks, "
        "or a .txt file with a path a line",
    )
    add("--watch", metavar="FOLDER", help="frames as they appear in a folder, until Ctrl-C")
    add("--recursive", action="store_true", help="also take the sub-folders of folders")
    add(
        "--raw",
        metavar="WxH:TYPE",
        help="read files that hold nothing but pixels, as 640x512:uint16 (big-endian: >u2)",
    )
    add(
        "--every",
        type=positive,
        default=1,
        metavar="N",
        help="every Nth frame of a video, TIFF or stack",
    )
    add("--strict", action="store_true", help="stop at the first frame that cannot be read")

    add = parser.add_argument_group("grey values of frames with more than 8 bits").add_argument
    add(
        "--range",
        nargs=2,
        type=float,
        metavar=("MIN", "MAX"),
        help="values that become 0 and 255; default: --percentiles of each frame",
    )
    add(
        "--percentiles",
        nargs=2,
        type=float,
        default=PERCENTILES,
        metavar=("LOW", "HIGH"),
        help="percentiles of a frame's own values that become 0 and 255; with --polarity dark "
        "counted from the bright end",
    )
    add(
        "--limits",
        choices=MODES,
        default="each",
        help="whose percentiles: each frame's own; those of a sequence's first frame; their running "
        "mean. A sequence is a folder in the order of its names, a video, or a stack",
    )

    add = parser.add_argument_group("network and targets").add_argument
    add("--weights", metavar="FILE", help=f"default: weights/{DEFAULT}.safetensors")
    add("--width", type=int, help="width that the weights must have; default: any")
    add("--threshold", type=float, default=0.5, metavar="P", help="least probability of a target pixel")
    add(
        "--polarity",
        choices=tuple(POLARITIES),
        default="bright",
        help="targets that are brighter or darker than their surroundings; both takes twice as long",
    )
    add("--min-area", type=int, default=1, metavar="PX", help="least area of a target, in pixels")
    add("--max-targets", type=int, default=100, metavar="N", help="most targets a frame, by score")
    add("--tile", type=int, default=512, metavar="PX", help="frames larger than this run in tiles")
    add(
        "--overlap",
        type=int,
        default=64,
        metavar="PX",
        help="overlap of neighbouring tiles, in pixels, at least",
    )
    add("--flips", action="store_true", help="mean over the frame and its three mirror images")
    add(
        "--confirm",
        metavar="N:M",
        help="report a target only where it is seen in N of M successive frames of a sequence",
    )
    add(
        "--confirm-distance",
        type=float,
        metavar="PX",
        help=f"pixels that it may move from a frame to the next, with --confirm; default: {DISTANCE:g}",
    )

    add = parser.add_argument_group("results").add_argument
    add("--results", default="results", metavar="DIR", help="results go to DIR/NAME")
    add("--name", help="NAME of the results; default: the input's name, or 'frames' for several")
    add("--save-npy", action="store_true", help="also save probabilities as .npy, float32")
    add("--resume", action="store_true", help="continue an interrupted run; finished frames are kept")
    add("--overwrite", action="store_true", help="delete what an earlier run left in DIR/NAME first")

    add = parser.add_argument_group("running").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--backend", choices=BACKENDS, default="torch", help="others: optional packages, on the CPU")
    add(
        "--amp",
        choices=AMP,
        default="auto",
        help="mixed precision; auto: on CUDA, off on the CPU; beside --backend openvino: bf16 or off",
    )
    add("--batch-size", type=positive, default=1, metavar="N", help="frames of equal size run together")
    add("--workers", type=positive, default=cores(), metavar="N", help="threads that read frames")
    return parser


def settings_of(args: argparse.Namespace) -> dict[str, object]:
    """The values of DetectionSettings, by name."""
    values = {f.name: getattr(args, FLAGS.get(f.name, f.name)) for f in fields(DetectionSettings)}
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def check(args: argparse.Namespace) -> None:
    """
    Raises:
        DataError: names all values that cannot be used.
    """
    expected = {
        "one of PATH and --watch FOLDER": bool(args.input) != bool(args.watch),
        "a folder after --watch": not args.watch or Path(args.watch).is_dir(),
        "--watch without --recursive and --raw": not (args.watch and (args.recursive or args.raw)),
        "one of --range and --percentiles": not args.range or tuple(args.percentiles) == PERCENTILES,
        "one of --range and --limits": not args.range or args.limits == "each",
        "--watch without --confirm": not (args.watch and args.confirm),
        "--confirm-distance with --confirm": args.confirm_distance is None or bool(args.confirm),
        "--name without a folder in it": not args.name or (Path(args.name).name == args.name != ".."),
        "one of --resume and --overwrite": not (args.resume and args.overwrite),
    }
    wrong = unusable(settings_of(args))
    if flags := [f"--{FLAGS.get(key, key).replace('_', '-')}: {text}" for key, text in wrong.items()]:
        raise DataError(f"{'; '.join(flags)}. Type python detect.py --help")
    if wrong := [text for text, right in expected.items() if not right]:
        raise DataError(f"expected {'; '.join(wrong)}. Type python detect.py --help")


@command("finished frames are kept; type the same command with --resume to continue", several=True)
def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check(args)
    path = named_weights(args.weights) if args.weights else default_weights()
    paths = [args.watch] if args.watch else args.input
    names = ("every", "save_npy", "resume", "overwrite", "strict", "batch_size", "workers", "limits")
    request = Request(
        paths=paths,
        watch=bool(args.watch),
        folder=results_folder(args.results, args.name, paths),
        weights=path,
        confirm=Confirmation.parse(args.confirm, args.confirm_distance) if args.confirm else None,
        **{name: getattr(args, name) for name in (*names, "recursive", "backend", "raw")},
    )
    raw = RawLayout(args.raw) if args.raw else None
    sources = [] if args.watch else find_sources(args.input, args.recursive, raw)
    model = open_network(path, args.backend, args.width, args.amp)
    settings = DetectionSettings(**settings_of(args))
    with Processes(args.device) as processes:
        if processes.rank == 0:
            print(describe(path, model))
        detector = Detector(prepared(model, processes.device), settings)
        return run(request, sources, detector, processes)


if __name__ == "__main__":
    run_script(main)
