"""Export: the checkpoint of a run -> a weights file to pass on, or an ONNX file for other programs.

    python export.py --weights runs/NUAA-SIRST/RUN/last.pt --output weights/NUAA-SIRST.safetensors
    python export.py --weights weights/NUAA-SIRST.safetensors --output NUAA-SIRST.onnx
    python export.py --weights weights/NUAA-SIRST.safetensors --output int8.onnx --precision int8 \\
        --calibrate NUAA-SIRST --verify NUAA-SIRST

A weights file holds the kept weights alone, the large tensors as fp16, and in its header what the run
says of itself: data set, recipe, seed, hardware, hours, and its figures on the test list. An ONNX file
holds the network too. --verify runs it on a test list, beside the network itself: exit code 1, and no
file, if IoU falls by more than --tolerance.
"""

import argparse
import sys
from pathlib import Path

import torch

from dataset import Frames
from ismallnet.arguments import add_data_arguments, data_name, open_datasets, refuse_idle
from ismallnet.checkpoints import save_weights
from ismallnet.cli import DataError, HelpFormatter, command, positive
from ismallnet.datasets.sample import SHARED
from ismallnet.files import atomic_write, check_place
from ismallnet.images.grey import GreyRange
from ismallnet.inference.comparison import Comparison, compare
from ismallnet.inference.onnx import OPSET, Exported, to_onnx
from ismallnet.inference.quantisation import calibration_frames, to_fp16, to_int8, with_notes
from net import iSmallNet, load_weights

PRECISIONS = ("fp32", "fp16", "int8")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--weights", required=True, metavar="FILE", help="a run's last.pt, or other weights")
    add("--output", required=True, metavar="FILE", help="X.safetensors or X.onnx")
    add = parser.add_argument_group("ONNX").add_argument
    add(
        "--precision",
        choices=PRECISIONS,
        help="of weights and activations; int8: of convolutions that bear it; default: fp32",
    )
    set_name = {"type": data_name, "metavar": "NAME"}
    add("--calibrate", **set_name, help="int8: data set whose training images give the ranges")
    add(
        "--calibrate-images",
        type=positive,
        default=32,
        metavar="N",
        help="int8: at most so many, evenly spaced in the training list",
    )
    add("--verify", **set_name, help="data set on whose test list both networks are run")
    add(
        "--tolerance",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="by how much IoU may fall: with --verify on the test list, of int8 also on the "
        "calibration images",
    )
    group = parser.add_argument_group("data sets of --calibrate and --verify")
    add_data_arguments(group, images=False, named=False)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """
    Raises:
        DataError: a name of another kind, a flag that is missing, or one that has no effect.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    output = Path(args.output)
    if output.suffix not in (".safetensors", ".onnx"):
        raise DataError(f"--output {output}: expected a name that ends in .safetensors or .onnx")
    if output.exists() and Path(args.weights).exists() and output.samefile(args.weights):
        raise DataError(f"--output {output}: is the file that is exported; expected another name")
    check_place(output)
    int8 = args.precision == "int8"
    unused = {
        "a name X.onnx": ("precision", "verify") if output.suffix != ".onnx" else (),
        "--precision int8": () if int8 else ("calibrate", "calibrate_images"),
        "--verify or --precision int8": () if int8 or args.verify else ("tolerance", *SHARED),
    }
    for needed, keys in unused.items():
        refuse_idle(parser, args, keys, f"without {needed}")
    if int8 and not args.calibrate:
        raise DataError("--precision int8 needs training images: type --calibrate NAME (a data set)")
    if not args.tolerance >= 0:
        raise DataError(f"--tolerance: found {args.tolerance:g}, expected 0 or more")
    args.precision = args.precision or PRECISIONS[0]
    return args


def export_weights(model: iSmallNet, source: str, output: Path) -> None:
    """
    Raises:
        DataError: values beyond fp16.
    """
    for name, value in model.state_dict().items():
        if value.abs().max() > torch.finfo(torch.float16).max and value.ndim > 1:
            raise DataError(f"{source}: {name} holds values beyond fp16")
    save_weights(model.state_dict(), model.info, output)
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")


def convert(raw: bytes, precision: str, calibration: Frames | None, tolerance: float):
    """A float32 ONNX file in another precision -> its bytes, and notes on how it was made."""
    notes = {"precision": precision}
    if precision == "fp16":
        raw = to_fp16(raw)
    if precision == "int8":
        raw, made = to_int8(raw, calibration, tolerance)
        kept = ", ".join(made["float_groups"]) or "none"
        print(
            f"int8: {made['int8']} of {made['convolutions']} convolutions; on {len(made['images'])} "
            f"calibration images {made['points']:+.2f} points of IoU; groups kept float: {kept}"
        )
        notes |= made
    return raw, notes


def verified(name: str, images: int, comparison: Comparison) -> dict:
    """What an export's metadata says of its comparison with the network."""
    original, export = comparison.figures
    return {"dataset": name, "images": images, "original": original, "export": export}


def export_onnx(model: iSmallNet, args: argparse.Namespace) -> int:
    """Returns the exit code."""
    output = Path(args.output)
    args.dataset = [name for name in (args.calibrate, args.verify) if name]
    sets = {data.name: data for data in open_datasets(args)}
    reading = {"threshold": args.mask_threshold, "grey": GreyRange.of_training(model.info)}
    test = Frames(sets[args.verify], "test", **reading) if args.verify else None
    count = args.calibrate_images
    calibration = calibration_frames(sets[args.calibrate], count, **reading) if args.calibrate else None
    raw, notes = convert(to_onnx(model), args.precision, calibration, args.tolerance)
    if args.calibrate:
        notes["calibrate"] = args.calibrate
    if test:
        comparison = compare(model, Exported(raw, "onnxruntime"), test, ("original", args.precision))
        print(f"{args.verify}, {len(test)} test images\n{comparison.text()}")
        if comparison.points < -args.tolerance:
            print(
                f"error: IoU falls by {-comparison.points:.2f} points, expected {args.tolerance:g} at "
                f"most; {output} was not written. Type a larger --tolerance to accept it",
                file=sys.stderr,
            )
            return 1
        notes["verified"] = verified(args.verify, len(test), comparison)
    with atomic_write(output) as file:
        file.write(with_notes(raw, export=notes))
    checked = "float32 logits checked against PyTorch"
    checked += f"; verified on {args.verify}" if test else ""
    print(
        f"{output}: {args.precision}, {output.stat().st_size / 2**20:.1f} MiB, opset {OPSET}, any "
        f"batch, height and width (multiples of 16); {checked}"
    )
    return 0


@command()
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.weights.endswith(".onnx"):
        raise DataError(f"{args.weights}: an ONNX file; expected the weights that it was made of")
    model = load_weights(args.weights)
    if args.output.endswith(".onnx"):
        return export_onnx(model, args)
    export_weights(model, args.weights, Path(args.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
