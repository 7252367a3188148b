"""Speed and accuracy of the network on this machine, measured.

    python benchmark.py                                        # inference and a training step
    python benchmark.py --parts inference accuracy --dataset NUAA-SIRST

"as net.py reads": eager PyTorch, float32, NCHW; "default": what test.py and detect.py do; on a CPU also
the other backends that are installed. Prints a line for each way to run the network as soon as it is
measured, and writes all to benchmark.json in --output.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from dataset import Frames
from ismallnet.arguments import data_name
from ismallnet.cli import DataError, HelpFormatter, command, gone, summary
from ismallnet.datasets.find import find_dataset
from ismallnet.distributed import environment, pick_device
from ismallnet.files import check_place, write_json
from ismallnet.inference.predict import Network, autocast, mask_logits, prepared, standard_metrics
from ismallnet.inference.weights import SHIPPED, default_weights, open_network
from net import iSmallNet, load_weights, losses

SIDE = 256  # px, of the images of training
FRAMES = ((256, 256), (256, 320), (512, 640))  # height, width: what infrared cameras give
PARTS = ("inference", "training", "accuracy")
BACKENDS = (("onnxruntime", "off"), ("openvino", "off"), ("openvino", "bf16"))
AS_IT_READS = "as net.py reads"
Row = dict[str, str | float | None]


class Way(NamedTuple):
    """A way to run the network: which, its layout in memory, and its mixed precision."""

    network: Network
    layout: torch.memory_format = torch.channels_last
    amp: str = "off"

    @torch.inference_mode()
    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """Normalised images (N, 3, H, W) in any layout -> mask logits."""
        return mask_logits(self.network, image.contiguous(memory_format=self.layout), self.amp)


def ways_of(weights: Path, device: torch.device) -> dict[str, Way]:
    """The ways to run the network of a weights file, by name."""
    model, fast = load_weights(weights).to(device), prepared(load_weights(weights), device)
    ways = {AS_IT_READS: Way(model, torch.contiguous_format), "default": Way(fast)}
    ways["bf16"] = Way(fast, amp="bf16")
    for backend, amp in BACKENDS if device.type == "cpu" else ():
        try:
            ways[f"{backend} {amp}"] = Way(open_network(weights, backend, amp=amp))
        except DataError as error:  # an optional package is missing, or bf16
            print(f"left out: {error}")
    return ways


def measure(name: str, call: Callable[[], object], seconds: float) -> Row:
    """Median and interquartile range of the seconds of a call, after some to warm up."""
    timer = Timer("f()", globals={"f": call}, num_threads=torch.get_num_threads())
    measurement = timer.blocked_autorange(min_run_time=seconds)
    return {"way": name, "seconds": measurement.median, "iqr": measurement.iqr}


def inference(ways: dict[str, Way], seconds: float, device: torch.device) -> Iterator[Row]:
    """One frame; GFLOP of the network, and the largest difference of logits from the first way's."""
    for height, width in FRAMES:
        x = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)
        with FlopCounterMode(display=False) as flops:
            expected = ways[AS_IT_READS].logits(x)
        for name, way in ways.items():
            gap = (way.logits(x) - expected).abs().max().item()
            row = {"frame": f"{width}x{height}"} | measure(name, partial(way.logits, x), seconds)
            yield row | {"GFLOP": flops.get_total_flops() / 1e9, "difference": gap}


def training(seconds: float, device: torch.device) -> Iterator[Row]:
    """A step of the optimiser on 256x256 images, 4 on the CPU, 16 on a GPU."""
    size = 4 if device.type == "cpu" else 16
    x = torch.randn(size, 3, SIDE, SIDE, device=device)
    maps = (torch.rand(3, size, 1, SIDE, SIDE, device=device) > 0.99).float().unbind()

    def step(way: Way, optimizer: torch.optim.Optimizer) -> None:
        with autocast(device, way.amp):
            outputs = way.network(x.contiguous(memory_format=way.layout))
        optimizer.zero_grad()
        sum(losses(outputs, maps).values()).backward()
        optimizer.step()

    for name, amp in ((AS_IT_READS, "off"), ("default", "off"), ("bf16", "bf16")):
        layout = torch.contiguous_format if name == AS_IT_READS else torch.channels_last
        way = Way(iSmallNet().to(device, memory_format=layout).train(), layout, amp)
        optimizer = torch.optim.AdamW(way.network.parameters())
        yield measure(name, partial(step, way, optimizer), seconds) | {"images": size}


def accuracy(ways: dict[str, Way], frames: Frames) -> Iterator[Row]:
    """The standard metrics of each way on the test list of --dataset, as fractions."""
    for name, way in ways.items():
        if name != AS_IT_READS:  # its maps are the default's
            metrics = standard_metrics(way.network, frames, name, way.amp)
            yield {"way": name} | {key: metrics[key] for key in ("iou", "niou", "pd", "fa")}


def line_of(row: Row) -> str:
    """way default, seconds 0.1312, …"""
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=summary(__doc__), formatter_class=HelpFormatter)
    add = parser.add_argument
    parts = "default: inference, training; with --dataset also accuracy"
    add("--parts", nargs="+", choices=PARTS, help=parts)
    add("--seconds", type=float, default=5.0, metavar="S", help="each way is timed for so long")
    add("--dataset", type=data_name, metavar="NAME", help="whose test list accuracy is measured on")
    add("--data-root", default="data", metavar="DIR", help="where the data sets are")
    add("--weights", metavar="FILE", help="default: those shipped for --dataset, or for other sources")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--output", default="results", metavar="DIR", help="where benchmark.json is written")
    gone(parser, "--onnx", "leave it out: the backends that are installed are measured")
    gone(parser, "--quick", "type --parts inference training --seconds 1")
    gone(parser, "--rounds", "type --seconds S, for how long each way is timed")
    gone(parser, "--clock", "times are the wall clock's; measure on an idle machine")
    return parser


@command()
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    device, output = pick_device(args.device), Path(args.output) / "benchmark.json"
    parts = args.parts or (PARTS if args.dataset else PARTS[:2])
    if "accuracy" in parts and not args.dataset:
        raise DataError("--parts accuracy: needs a test list; type --dataset NAME, too")
    check_place(output)
    frames = Frames(find_dataset(args.dataset, args.data_root), "test") if "accuracy" in parts else []
    own = SHIPPED / f"{args.dataset}.safetensors"
    ways = ways_of(Path(args.weights or (own if own.exists() else default_weights())), device)
    measured = {
        "inference": inference(ways, args.seconds, device),
        "training": training(args.seconds, device),
        "accuracy": accuracy(ways, frames),
    }
    results = {"environment": environment(device)}
    print(line_of(results["environment"]))
    for part in parts:
        results[part] = []
        for row in measured[part]:
            print(f"{part}: {line_of(row)}", flush=True)
            results[part].append(row)
            write_json(output, results)
    print(f"all of it: {output}")


if __name__ == "__main__":
    sys.exit(main())
