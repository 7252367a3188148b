"""Targets in frames of your own: images, folders, videos, multi-page TIFFs, NumPy stacks.

    python detect.py frames/ clip.mp4
    python detect.py --watch incoming/

Writes probability maps, overlays with a box on each target, and detections.csv to RESULTS/NAME/. In a
program of your own:

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

from ismallnet.cli import DataError, HelpFormatter, command, gone, launch, positive, summary
from ismallnet.detection.detector import (
    DetectionSettings,
    Detector,
    Target,
    find_targets,
    threshold_for,
)
from ismallnet.detection.live import NAME, Camera, is_address, public
from ismallnet.detection.records import results_folder
from ismallnet.detection.run import Request, run_detection
from ismallnet.detection.sources import find_sources, read_frames
from ismallnet.detection.tracks import Confirmation
from ismallnet.distributed import Processes, run_script
from ismallnet.images.grey import PERCENTILES
from ismallnet.inference.predict import OVERLAP, TILE, prepared
from ismallnet.inference.weights import (
    DEFAULT,
    add_network_arguments,
    default_weights,
    describe,
    named_weights,
    open_network,
)

__all__ = ["DetectionSettings", "Detector", "Target", "find_targets"]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=summary(__doc__), formatter_class=HelpFormatter)
    add = parser.add_argument_group("input").add_argument
    paths = "image files, folders, patterns ('f/**/*.tif'), videos, multi-page TIFFs, NumPy stacks"
    add("input", nargs="*", metavar="PATH", help=paths)
    add("--watch", metavar="FOLDER", help="frames as they appear in a folder, until Ctrl-C")
    camera = "the newest frames of a camera (0, 1, …) or a stream (rtsp://…, udp://…), until Ctrl-C"
    add("--camera", metavar="ADDRESS", help=camera)
    every = "every Nth frame of a video, TIFF or stack"
    add("--every", type=positive, default=1, metavar="N", help=every)

    add = parser.add_argument_group("grey values of frames with more than 8 bits").add_argument
    two = {"nargs": 2, "type": float}
    values = "values that become 0 and 255; default: --percentiles of each frame"
    add("--range", **two, metavar=("MIN", "MAX"), help=values)
    own = "percentiles of a frame's own values that become 0 and 255; with --polarity dark counted "
    own += "from the bright end"
    add("--percentiles", **two, default=PERCENTILES, metavar=("LOW", "HIGH"), help=own)

    add = parser.add_argument_group("network").add_argument
    add_network_arguments(add, f"weights/{DEFAULT}.safetensors")
    add("--batch-size", type=positive, default=1, metavar="N", help="frames of equal size run together")
    add("--tile", type=int, default=TILE, metavar="PX", help="frames larger than this run in tiles")
    overlap = "overlap of neighbouring tiles, in pixels, at least"
    add("--overlap", type=int, default=OVERLAP, metavar="PX", help=overlap)
    scale = "enlarge frames so many times for the network: 2 for small frames, as 320x256; 0.5 for "
    scale += "large targets"
    add("--scale", type=float, default=1.0, metavar="X", help=scale)

    add = parser.add_argument_group("targets").add_argument
    default = DetectionSettings.threshold
    add("--threshold", type=float, default=default, metavar="P", help="least probability of a target")
    polarity = "targets that are brighter or darker than their surroundings"
    add("--polarity", default="bright", metavar="{bright,dark}", help=polarity)
    add("--min-area", type=int, default=1, metavar="PX", help="minimum area of a target, in pixels")
    add("--max-area", type=int, metavar="PX", help="maximum area of a target; default: no limit")
    add("--max-targets", type=int, default=100, metavar="N", help="maximum targets per frame")
    alarms = "in place of --threshold the lowest with at most RATE false alarms a frame on --background"
    add("--false-alarms", type=float, metavar="RATE", help=alarms)
    add("--background", metavar="PATH", help="frames without targets, for --false-alarms")
    ignore = "a picture of the frames' size that is white where nothing counts: text, a mast, the sun"
    add("--ignore", metavar="MASK", help=ignore)
    confirm = "report a target only where it is seen in N of M successive frames of a sequence: a "
    confirm += "folder in the order of its names, a video, a stack, or what came while it ran"
    add("--confirm", metavar="N:M", help=confirm)
    moving = "with --confirm, of a camera that stands still: leave out what stays within PX of where "
    moving += "it was first seen"
    add("--moving", type=float, default=0.0, metavar="PX", help=moving)

    add = parser.add_argument_group("results").add_argument
    add("--results", default="results", metavar="DIR", help="results go to DIR/NAME")
    add("--name", help="NAME of the results; default: the input's name, or 'frames' for several")
    add("--format", choices=("mot",), help="also write tracks as MOTChallenge's text, mot/SEQUENCE.txt")
    add("--resume", action="store_true", help="continue an interrupted run; finished frames are kept")
    fixed = "type --range MIN MAX, with the values that a run prints for the first frame"
    gone(parser, "--limits", fixed)
    gone(parser, "--width", "leave it out; the weights say how wide their network is")
    gone(parser, "--raw", "save them as .npy first (docs/FRAMES.md)")
    gone(parser, "--overwrite", "delete the folder of the results, or type another --name")
    gone(parser, "--confirm-distance", "leave it out; it is 5 px")
    gone(parser, "--recursive", "type a pattern: 'frames/**/*.png'")
    gone(parser, "--save-npy", "in Python Detector.from_weights().probability(frame) gives float32")
    gone(parser, "--workers", "leave it out; 4 threads read frames")
    gone(parser, "--strict", "leave it out; the exit code is 1 where a frame could not be read")
    return parser


def check(args: argparse.Namespace) -> None:
    """Refuses flags that do not go together."""
    inputs = sum(map(bool, (args.input, args.watch, args.camera)))
    alarms = args.false_alarms is not None
    expected = {
        "one of PATH, --watch FOLDER and --camera ADDRESS": inputs == 1 or (not inputs and alarms),
        "an address after --camera, as 0 or rtsp://…": args.camera is None or is_address(args.camera),
        "--moving with --confirm": not args.moving or bool(args.confirm),
        "--watch and --camera without torchrun": not (args.watch or args.camera) or launch().world == 1,
        "--camera without --resume": not (args.camera and args.resume),
        "--false-alarms with --background, and --background with it": alarms == bool(args.background),
        "--false-alarms above 0, without --threshold": not alarms
        or (args.false_alarms > 0 and args.threshold == DetectionSettings.threshold),
        "a folder after --watch": not args.watch or Path(args.watch).is_dir(),
        "one of --range and --percentiles": not args.range or tuple(args.percentiles) == PERCENTILES,
        "--name without a folder in it": not args.name or (Path(args.name).name == args.name != ".."),
    }
    if wrong := [text for text, right in expected.items() if not right]:
        raise DataError(f"expected {'; '.join(wrong)}. Type python detect.py --help")


def settings_of(args: argparse.Namespace) -> DetectionSettings:
    """Refuses values that cannot be used."""
    names = {f.name for f in fields(DetectionSettings)} - {"limits"}
    try:
        return DetectionSettings(limits=args.range, **{name: getattr(args, name) for name in names})
    except ValueError as error:
        raise DataError(f"{error}. Type python detect.py --help") from None


def request_of(args: argparse.Namespace) -> Request:
    paths = [args.watch] if args.watch else [public(args.camera)] if args.camera else args.input
    name = args.name or (NAME if args.camera else None)
    given = {
        "paths": paths,
        "camera": Camera(args.camera) if args.camera else None,
        "folder": results_folder(args.results, name, paths),
        "weights": named_weights(args.weights) if args.weights else default_weights(),
        "watch": bool(args.watch),
        "confirm": Confirmation.parse(args.confirm, args.moving) if args.confirm else None,
    }
    rest = {f.name: getattr(args, f.name) for f in fields(Request) if f.name not in given}
    return Request(**given, **rest)


@command("finished frames are kept; type the same command with --resume to continue", several=True)
def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    settings = settings_of(args)
    check(args)
    request = request_of(args)
    sources = find_sources(args.input) if args.input else []
    model = open_network(request.weights, args.backend, args.amp)
    with Processes(args.device) as processes:
        if processes.rank == 0:
            print(describe(request.weights, model))
        detector = Detector(prepared(model, processes.device), settings)
        if args.background:
            own = []
            if processes.rank == 0:
                empty = read_frames(find_sources([args.background]))
                own = [threshold_for(detector, empty, args.false_alarms, args.background)]
            detector = Detector(detector.model, settings, threshold=processes.gather(own)[0])
        if not (args.input or args.watch or args.camera):
            return 0
        return run_detection(request, sources, detector, processes)


if __name__ == "__main__":
    run_script(main)
