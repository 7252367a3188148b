"""Speed, memory and accuracy, measured: what the ways to run the network bring, and how things scale.

    python benchmark.py --quick                          # the network alone, two minutes
    python benchmark.py --dataset NUDT-SIRST             # all parts, on a data set's test list
    python benchmark.py --parts training --device cuda
    python benchmark.py --parts inference accuracy --dataset NUAA-SIRST --onnx fp32.onnx int8.onnx

Ways are run in turn, and a ratio is the median over the rounds, since machines are noisy. "plain" is
the network as its description reads (ismallnet/plain.py): eager PyTorch, float32, NCHW; "default" is
what test.py and detect.py do. Prints tables, and writes them to benchmark.json (and speed.png,
scaling.png) in --output.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dataset import Frames
from ismallnet.charts import draw_accuracy, draw_scaling
from ismallnet.cli import DataError, HelpFormatter, command, positive, progress
from ismallnet.datasets.find import find_dataset
from ismallnet.detection.detector import find_targets
from ismallnet.distributed import environment, pick_device
from ismallnet.evaluation.metrics import figures_standard
from ismallnet.files import check_place, write_json
from ismallnet.inference.predict import autocast, predict, predict_frame, prepared
from ismallnet.inference.weights import SHIPPED, default_weights
from ismallnet.plain import network, plain
from ismallnet.roofline import report
from ismallnet.timing import CLOCKS, Rows, alone, markdown, rows_of, seconds_in_turn
from ismallnet.ways import counts_of, ways_of
from net import iSmallNet, load_weights, losses

HERE = Path(__file__).parent
SIDE = 256
FRAMES = ((256, 256), (256, 320), (512, 640))  # height, width: what infrared cameras give


def typed(*argv: str, **environment: str) -> float:
    """Seconds of one of this project's command lines.

    Raises:
        CalledProcessError: it failed; what it said is on standard error.
    """
    start = time.perf_counter()
    command = [sys.executable, *argv]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, cwd=HERE, env=os.environ | environment
    )
    return time.perf_counter() - start


def dataset(args: argparse.Namespace) -> list[str]:
    """The arguments that name the data set."""
    return ["--dataset", args.dataset, "--data-root", str(Path(args.data_root).resolve())]


def weights_file(args: argparse.Namespace) -> Path:
    """--weights; else those that come with the repository for --dataset, or the default ones."""
    own = SHIPPED / f"{args.dataset}.safetensors"
    return Path(args.weights or (own if own.exists() else default_weights())).resolve()


def pipeline(args: argparse.Namespace, device: torch.device) -> Rows:
    """test.py and eval.py on a test list; the forward passes alone."""
    frames = Frames(find_dataset(args.dataset, args.data_root), "test")
    model = prepared(load_weights(weights_file(args)), device)
    images = [frames[i].image for i in range(len(frames))]
    predict(model, images[:1])
    start = time.perf_counter()
    for image in images:
        predict(model, [image])
    seconds = {"forward passes alone": time.perf_counter() - start}
    with tempfile.TemporaryDirectory() as folder:
        shared = [*dataset(args), "--results", folder]
        weights = ["--weights", str(weights_file(args)), "--device", str(device)]
        seconds["test.py"] = typed("test.py", *shared, *weights)
        seconds["eval.py, pixel curves"] = typed("eval.py", *shared, "--no-pd-fa")
        seconds["eval.py, all, Pd-Fa"] = typed("eval.py", *shared, "--protocol", "all")
    count = len(images)
    return [
        {"work": work, "seconds": value, "images": count, "a second": count / value}
        for work, value in seconds.items()
    ]


def labels(args: argparse.Namespace, device: torch.device) -> Rows:
    """Label decoupling of all of a data set's masks as one types it, start-up included, each time into
    a new folder."""
    data = find_dataset(args.dataset, args.data_root)
    masks = sum(len(data.samples(part)) for part in data.lists)

    def decouple(workers: int, top: str) -> None:
        folder = tempfile.mkdtemp(dir=top)
        typed("utils.py", *dataset(args), "--workers", str(workers), "--maps-root", folder)

    with tempfile.TemporaryDirectory() as top:
        ways = {f"utils.py, {n} workers": partial(decouple, n, top) for n in (1, 2)}
        rows = rows_of(seconds_in_turn(ways, args.rounds, device), "utils.py, 1 workers")
    return [row | {"masks a second": masks / row["seconds"]} for row in rows]


def processes(args: argparse.Namespace, device: torch.device) -> Rows:
    """train.py alone and as two processes (gloo on the CPU), one thread each: samples a second."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = ["synthetic.py", "--data-root", f"{folder}/data", "--train", "64", "--test", "2"]
        options = ["--dataset", "Synthetic-SIRST", "--data-root", f"{folder}/data", "--width", "8"]
        options += ["--batch-size", "8", "--crop", "128", "--epochs", "3", "--eval-every", "0"]
        options += ["--workers", "0", "--device", device.type]
        typed(*made)
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        for count in (1, 2):
            run = ["train.py", *options, "--runs", folder, "--run-name", str(count)]
            typed(*launcher, str(count), *run, OMP_NUM_THREADS="1")
            info = load_weights(f"{folder}/Synthetic-SIRST/{count}/last.pt").info
            rate = info["steps"] * 8 / (3600 * info["hours"])
            rows.append({"processes": count, "samples a second": rate})
            rows[-1]["ratio"] = rate / rows[0]["samples a second"]
    return rows


# --- parts -------------------------------------------------------------------------------------------


def inference(args: argparse.Namespace, device: torch.device) -> Rows:
    """One frame by each way: PyTorch, and ONNX files (--onnx) on other backends; how many times as
    fast as "plain" and as the default; the largest difference of the logits from the plain ones, which
    are of the size `largest logit`. Weights: --weights."""
    model = load_weights(weights_file(args)).to(device)
    ways = ways_of(model, weights_file(args), args.onnx, device)
    rows = []
    with torch.inference_mode():
        for height, width in FRAMES:
            x = torch.randn(1, 3, height, width, device=device)
            logits = {name: way(x).float() for name, way in ways.items()}
            calls = {name: partial(way, x) for name, way in ways.items()}
            seconds = seconds_in_turn(calls, args.rounds, device, args.clock)
            for row in rows_of(seconds, "plain", "default"):
                gap = (logits[row["way"]] - logits["plain"]).abs().max().item()
                row |= {"difference": gap, "largest logit": logits["plain"].abs().max().item()}
                rows.append({"frame": f"{width}x{height}"} | row)
    return rows


def roofline(args: argparse.Namespace, device: torch.device) -> Rows:
    """What the machine could do at best: memory bandwidth, matrix products, and what both mean for one
    256x256 image (ismallnet/roofline.py), in PyTorch, by kind of layer. CPU."""
    model = prepared(load_weights(weights_file(args)))
    x = torch.randn(1, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        return report(lambda: model(x), args.clock, args.rounds)


def accuracy(args: argparse.Namespace, device: torch.device) -> Rows:
    """IoU on the test list of --dataset of each way, image by image in turn, and of the joint weights;
    and the time of one 256x256 image. Drawn in speed.png."""
    frames = Frames(find_dataset(args.dataset, args.data_root), "test")
    model = load_weights(weights_file(args)).to(device)
    joint = prepared(load_weights(SHIPPED / "joint.safetensors"), device)
    ways = {k: (model, way) for k, way in ways_of(model, weights_file(args), args.onnx, device).items()}
    del ways["plain"]  # its maps are the default's
    ways["default, joint weights"] = (joint, joint)
    counts = {name: Counter() for name in ways}
    x = torch.randn(1, 3, SIDE, SIDE, device=device)
    with torch.inference_mode():
        for i in progress(range(len(frames)), f"{args.dataset} test", len(frames)):
            for name, (network, way) in ways.items():
                counts[name].update(counts_of(network, way, frames[i]))
        calls = {name: partial(way, x) for name, (_, way) in ways.items()}
        rows = rows_of(seconds_in_turn(calls, args.rounds, device, args.clock), "default")
    for row in rows:
        figures = figures_standard(counts[row["way"]])
        row |= {key: 100 * figures[key] for key in ("iou", "niou", "pd")} | {"fa": 1e6 * figures["fa"]}
    draw_accuracy(rows, args.dataset, Path(args.output) / "speed.png")
    return rows


def light(args: argparse.Namespace, device: torch.device) -> Rows:
    """Inference of one frame by the network and by smaller ones, as test.py and detect.py run them."""
    sizes = (("full", 16), ("full", 8), ("single", 8), ("single", 6), ("plain", 8))
    models = {f"{v}, width {w}": prepared(network(w, v), device) for v, w in sizes}
    rows = []
    for height, width in FRAMES:
        x = torch.randn(1, 3, height, width, device=device).contiguous(
            memory_format=torch.channels_last
        )
        with torch.inference_mode():
            calls = {k: partial(m, x) for k, m in models.items()}
            timed = rows_of(seconds_in_turn(calls, args.rounds, device, args.clock), next(iter(models)))
        rows += [
            {"frame": f"{width}x{height}"} | row | {"a second": 1 / row["seconds"]} for row in timed
        ]
    return rows


def training(args: argparse.Namespace, device: torch.device) -> Rows:
    """A step of the optimiser on 256x256 images (128x128 with --quick), 4 on the CPU, 16 on a GPU."""
    size, side = 4 if device.type == "cpu" else 16, SIDE // 2 if args.quick else SIDE
    x = torch.randn(size, 3, side, side, device=device)
    maps = (torch.rand(3, size, 1, side, side, device=device) > 0.99).float().unbind()

    def stepper(forward: Callable, model: iSmallNet, image: torch.Tensor, amp: str) -> Callable:
        optimizer = torch.optim.AdamW(model.train().parameters())

        def step() -> None:
            with autocast(device, amp):
                outputs = forward(model, image)
            optimizer.zero_grad()
            sum(losses(outputs, maps).values()).backward()
            optimizer.step()

        return step

    def ours(amp: str) -> Callable:
        model = network().to(device, memory_format=torch.channels_last)
        image = x.contiguous(memory_format=torch.channels_last)
        return stepper(iSmallNet.__call__, model, image, amp)

    ways = {"plain": stepper(plain, network().to(device), x, "off"), "default": ours("off")}
    ways["default, bf16"] = ours("bf16")
    return rows_of(seconds_in_turn(ways, args.rounds, device, args.clock), "plain", "default")


def tiles(args: argparse.Namespace, device: torch.device) -> Rows:
    """What tiles change: 1024x1024 synthetic scenes in one piece and in tiles of 512 px."""
    model = prepared(load_weights(weights_file(args)), device)
    with tempfile.TemporaryDirectory() as top:
        typed("synthetic.py", "--data-root", top, "--train", "4", "--test", "1", "--size", "1024")
        scenes = [item.image[..., 0] for item in Frames(find_dataset("Synthetic-SIRST", top), "train")]
    scenes = [scene.astype(np.uint8) for scene in scenes]
    whole = [predict_frame(model, scene, tile=1024) for scene in scenes]
    rows = []
    for overlap in (0, 32, 64, 128, 256):
        parts = [predict_frame(model, scene, tile=512, overlap=overlap) for scene in scenes]
        gaps = [np.abs(a - b) for a, b in zip(whole, parts)]
        before, after = ([find_targets(p, s) for p, s in zip(maps, scenes)] for maps in (whole, parts))
        row = {"overlap": overlap, "largest difference": max(float(gap.max()) for gap in gaps)}
        row |= {"mean difference": float(np.mean(gaps)), "targets": sum(map(len, before))}
        row["lost"] = sum(unmatched(a, b) for a, b in zip(before, after))
        row["new"] = sum(unmatched(b, a) for a, b in zip(before, after))
        rows.append(row)
    return rows


def unmatched(targets: list, others: list) -> int:
    """How many targets have no other within 3 px."""
    return sum(all(np.hypot(t.x - o.x, t.y - o.y) >= 3 for o in others) for t in targets)


def scaling(args: argparse.Namespace, device: torch.device) -> Rows:
    """Time of a warm call and peak memory against the side of one image in one piece, in tiles of
    512 px, and against the batch, with the half-width weights, CPU; each in a process of its own."""
    cases = [(side, side, 1) for side in (128, 256, 512, 1024, 2048, 4096)]
    cases += [(side, 512, 1) for side in (1024, 2048, 4096)]
    cases += [(SIDE, SIDE, batch) for batch in (2, 4, 8, 16, 32, 64)]
    rows = []
    for side, tile, batch in cases:
        seconds, mib = alone(side, tile, batch, str(weights_file(args)))
        row = {"side": side, "tile": tile, "batch": batch, "seconds": seconds, "peak MiB": mib}
        rows.append(row | {"µs a pixel": 1e6 * seconds / side**2 / batch})
    draw_scaling(rows, Path(args.output) / "scaling.png", SIDE)
    return rows


# --- tables ------------------------------------------------------------------------------------------

QUICK = (inference, training)
PARTS = (*QUICK, roofline, accuracy, pipeline, labels, light, tiles, scaling, processes)
ON_DATA = {"accuracy", "pipeline", "labels"}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=HelpFormatter)
    add = parser.add_argument
    names = [part.__name__ for part in PARTS]
    add("--parts", nargs="+", choices=names, help="default: all; with --quick inference, training")
    add("--quick", action="store_true", help="the network alone, fewer rounds")
    add("--rounds", type=positive, default=7, metavar="N", help="of each way; with --quick 5")
    add(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="of the network alone; processor: with OMP_NUM_THREADS=1, where other work is running",
    )
    add(
        "--onnx",
        nargs="+",
        default=(),
        metavar="FILE",
        help="files of export.py from the same weights, to run on other backends",
    )
    add("--dataset", default="NUDT-SIRST", metavar="NAME", help="for accuracy, pipeline and labels")
    add("--data-root", default="data", metavar="DIR", help="where the data sets are")
    add("--weights", metavar="FILE", help="default: those shipped for --dataset, or for other sources")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--output", default="results", metavar="DIR", help="where benchmark.json is written")
    return parser


@command()
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    device = pick_device(args.device)
    if args.onnx and device.type != "cpu":
        raise DataError(f"--onnx: has no effect on {device}; add --device cpu, or leave it out")
    args.rounds = 5 if args.quick else args.rounds
    wanted = args.parts or [part.__name__ for part in (QUICK if args.quick else PARTS)]
    if ON_DATA & set(wanted):
        find_dataset(args.dataset, args.data_root)
    check_place(Path(args.output) / "benchmark.json")
    found = {"environment": environment(device)}
    print(json.dumps(found["environment"]))
    for part in PARTS:
        if part.__name__ in wanted:
            found[part.__name__] = part(args, device)
            print(f"\n{part.__name__}: {' '.join(part.__doc__.split())}\n")
            print(markdown(found[part.__name__]), flush=True)
            write_json(Path(args.output) / "benchmark.json", found)
    print(f"tables: {args.output}/benchmark.json")


if __name__ == "__main__":
    sys.exit(main())
