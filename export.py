"""Export: the checkpoint of a run -> a weights file to pass on.

    python export.py --weights runs/NUAA-SIRST/RUN/last.pt --output weights/NUAA-SIRST.safetensors
    python export.py --weights weights/NUAA-SIRST.safetensors --output NUAA-SIRST.onnx

The file holds the kept weights alone, the large tensors as fp16 (ONNX: the network, float32), and in
its header what the run says of itself: data set, recipe, seed, hardware, hours, and its figures on the
test list.
"""

import argparse
import sys
from pathlib import Path

import torch

from ismallnet.backends import OPSET, save_onnx
from ismallnet.checkpoints import save_weights
from ismallnet.cli import DataError, HelpFormatter, command
from net import load_weights


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--weights", required=True, metavar="FILE", help="a run's last.pt, or other weights")
    add("--output", required=True, metavar="FILE", help="X.safetensors or X.onnx")
    return parser


@command()
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    output = Path(args.output)
    if output.suffix not in (".safetensors", ".onnx"):
        raise DataError(f"--output {output}: expected a name that ends in .safetensors or .onnx")
    model = load_weights(args.weights)
    if output.suffix == ".onnx":
        save_onnx(model, output)
        print(
            f"{output}: {output.stat().st_size / 2**20:.1f} MiB, opset {OPSET}, any batch, height and "
            "width (multiples of 16); checked against PyTorch"
        )
        return
    for name, value in model.state_dict().items():
        if value.abs().max() > torch.finfo(torch.float16).max and value.ndim > 1:
            raise DataError(f"{args.weights}: {name} holds values beyond fp16")
    save_weights(model.state_dict(), model.info, output)
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    sys.exit(main())
