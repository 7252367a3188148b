"""Export: the checkpoint of a run -> a weights file to pass on, or an ONNX file for other programs.

    python export.py --weights runs/NUAA-SIRST/RUN/last.pt --output weights/NUAA-SIRST.safetensors
    python export.py --weights weights/NUAA-SIRST.safetensors --output NUAA-SIRST.onnx
    python export.py --weights weights/NUAA-SIRST.safetensors --output half.onnx --precision fp16 \\
        --verify NUAA-SIRST

A weights file holds the kept weights alone, the large tensors as fp16, and in its header what the run
says of itself: data set, recipe, seed, hardware, hours, and its metrics on the test list. An ONNX file
holds the network too. --verify runs it on a test list, beside the network itself: exit code 1, and
nothing is written, if IoU falls by more than 0.5 points.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import sys
from pathlib import Path

import torch

from dataset import Frames
from ismallnet.arguments import add_data_arguments, data_name, open_datasets, refuse_idle
from ismallnet.checkpoints import save_weights
from ismallnet.cli import DataError, HelpFormatter, command, gone, summary
from ismallnet.evaluation.tables import table
from ismallnet.files import atomic_write, check_place
from ismallnet.images.grey import GreyRange
from ismallnet.inference.onnx import OPSET, Exported, to_fp16, to_onnx, with_notes
from ismallnet.inference.own import load_own
from ismallnet.inference.predict import prepared, standard_metrics
from net import iSmallNet, load_weights

DATA_FLAGS = ("data_root", "split", "mask_threshold", "image_folder", "mask_folder", "image_suffix")
DATA_FLAGS += ("mask_suffix", "missing_masks", "follow_links")
TOLERANCE = 0.5  # points by which IoU may fall on the test list of --verify


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=summary(__doc__), formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--weights", required=True, metavar="FILE", help="a run's last.pt, or other weights")
    own = "a network of your own, of which the weights are (docs/RESEARCH.md)"
    add("--network", metavar="FILE.py:CLASS", help=own)
    add("--output", required=True, metavar="FILE", help="X.safetensors or X.onnx")
    add = parser.add_argument_group("ONNX").add_argument
    kinds = "of weights and activations; 8 bits: by the tools of your chip's vendor, from float32"
    add("--precision", choices=("fp32", "fp16"), default="fp32", help=kinds)
    verify = "data set on whose test list both networks are run"
    add("--verify", type=data_name, metavar="NAME", help=verify)
    group = parser.add_argument_group("data set of --verify")
    add_data_arguments(group, images=False, named=False)
    for flag in ("--calibrate", "--calibrate-images"):
        gone(parser, flag, "export float32, and quantise that with the tools of your chip's vendor")
    gone(parser, "--tolerance", f"leave it out; it is {TOLERANCE} points of IoU")
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Refuses names of another kind, and flags that have no effect."""
    parser = build_parser()
    args = parser.parse_args(argv)
    output = Path(args.output)
    if output.suffix not in (".safetensors", ".onnx"):
        raise DataError(f"--output {output}: expected a name that ends in .safetensors or .onnx")
    if args.weights.endswith(".onnx"):
        raise DataError(f"{args.weights}: an ONNX file; expected the weights that it was made of")
    check_place(output)
    if output.suffix != ".onnx":
        refuse_idle(parser, args, ("precision", "verify"), "without a name X.onnx")
    if not args.verify:
        refuse_idle(parser, args, DATA_FLAGS, "without --verify")
    return args


def export_weights(model: iSmallNet, source: str, output: Path) -> None:
    """Refuses values beyond fp16."""
    for name, value in model.state_dict().items():
        if value.abs().max() > torch.finfo(torch.float16).max and value.ndim > 1:
            raise DataError(f"{source}: {name} holds values beyond fp16")
    save_weights(model.state_dict(), model.info, output)
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")


def export_onnx(model: iSmallNet, args: argparse.Namespace) -> int:
    """Returns the exit code: 1 where the export loses too much; then nothing is written."""
    output, about = Path(args.output), {"precision": args.precision}
    if args.verify:
        args.dataset = [args.verify]
        grey = GreyRange.of_training(model.info)
        frames = Frames(open_datasets(args)[0], "test", args.mask_threshold, grey)
    raw = to_onnx(model)
    raw = to_fp16(raw) if args.precision == "fp16" else raw
    if args.verify:
        networks = {"original": prepared(model), args.precision: Exported(raw, "onnxruntime")}
        metrics = {name: standard_metrics(net, frames, name) for name, net in networks.items()}
        print(f"{args.verify}, {len(frames)} test images\n{table(metrics)}")
        before, after = metrics.values()
        if (fall := 100 * (before["iou"] - after["iou"])) > TOLERANCE:
            expected = f"expected {TOLERANCE} at most; {output} was not written"
            print(f"error: IoU falls by {fall:.2f} points, {expected}", file=sys.stderr)
            return 1
        about["verified"] = {"dataset": args.verify, "images": len(frames)}
        about["verified"] |= {"original": before, "export": after}
    with atomic_write(output) as file:
        file.write(with_notes(raw, export=about))
    checked = f"; verified on {args.verify}" if args.verify else ""
    print(
        f"{output}: {args.precision}, {output.stat().st_size / 2**20:.1f} MiB, opset {OPSET}, any "
        f"batch, H and W multiples of {model.multiple}; float32 logits checked against PyTorch{checked}"
    )
    return 0


@command()
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    model = load_own(args.weights, args.network) if args.network else load_weights(args.weights)
    if args.output.endswith(".onnx"):
        return export_onnx(model, args)
    export_weights(model, args.weights, Path(args.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
