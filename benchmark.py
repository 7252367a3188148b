"""Speed and memory, measured: what the faster ways bring over the plain network, and how things scale.

    python benchmark.py --quick                          # the network alone, two minutes
    python benchmark.py --dataset NUDT-SIRST             # all parts, on a data set's test list
    python benchmark.py --parts training --device cuda

Ways are run in turn, and a ratio is the median over the rounds of plain time / a way's time, since
machines are noisy. "plain" is the network as its description reads (ismallnet/plain.py): eager PyTorch,
float32, NCHW. Prints tables, and writes them to benchmark.json (and scaling.png) in --output.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dataset import MAPS, Frames
from ismallnet.backends import BACKENDS, Exported, to_onnx
from ismallnet.cli import DataError, HelpFormatter, command, progress
from ismallnet.detection.detector import find_targets
from ismallnet.distributed import environment, pick_device
from ismallnet.files import atomic_write, write_json
from ismallnet.inference import autocast, predict, predict_frame, prepared
from ismallnet.labels import map_files
from ismallnet.layouts import find_dataset
from ismallnet.plain import network, plain
from ismallnet.weights import SHIPPED
from net import iSmallNet, load_weights, losses

HERE = Path(__file__).parent
Rows = list[dict[str, str | float | int | None]]
SIDE = 256
FRAMES = ((256, 256), (256, 320), (512, 640))  # height, width: what infrared cameras give
WARM_SECONDS = 2.0  # a warm call is timed again and again for so long
PRODUCT = 3125  # a product of square matrices of this side is 61.0 GFLOP, as is an image of SIDE


def in_turn(ways: dict[str, Callable], rounds: int, device: torch.device) -> Rows:
    """Seconds of each way, and how many times faster than the first it is, medians over rounds."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    seconds = {name: [] for name in ways}
    for k in progress(range(rounds + 1), "rounds", rounds + 1, "round", leave=False):
        for name, way in ways.items():
            wait()
            start = time.perf_counter()
            way()
            wait()
            if k:  # the first is to warm up
                seconds[name].append(time.perf_counter() - start)
    first = next(iter(seconds.values()))
    rows = []
    for name, values in seconds.items():
        ratios = sorted(a / b for a, b in zip(first, values))
        rows.append({"way": name, "seconds": statistics.median(values)})
        rows[-1] |= {"ratio": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}
    return rows


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
    return Path(args.weights or SHIPPED / "NUAA-SIRST.safetensors").resolve()


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
    a new folder; and what the file system takes of it: images and masks read, and files of the masks'
    sizes written where the maps would be, in one process; just written, or whole or absent."""
    data = find_dataset(args.dataset, args.data_root)
    samples = [sample for part in data.lists for sample in data.samples(part)]

    def copy(writer: Callable, top: str) -> None:
        folder = Path(tempfile.mkdtemp(dir=top))
        for kind in MAPS:
            (folder / kind).mkdir()
        for sample in samples:
            sample.image.read_bytes()
            content = (sample.mask or sample.image).read_bytes()
            for path in map_files(folder, sample):
                with writer(path) as file:
                    file.write(content)

    def decouple(workers: int, top: str) -> None:
        folder = tempfile.mkdtemp(dir=top)
        typed("utils.py", *dataset(args), "--workers", str(workers), "--maps-root", folder)

    with tempfile.TemporaryDirectory() as top:
        ways = {f"utils.py, {n} workers": partial(decouple, n, top) for n in (1, 2)}
        ways["files just written"] = lambda: copy(partial(open, mode="wb"), top)
        ways["files written and renamed"] = lambda: copy(atomic_write, top)
        rows = in_turn(ways, args.rounds, device)
    return [row | {"masks a second": len(samples) / row["seconds"]} for row in rows]


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
    """One 256x256 image on the CPU, a batch of 16 on a GPU; each way's largest difference of the
    logits from the plain ones, which are of the size `largest logit`. The last row is what the machine
    can do: float32 matrix products of as many operations."""
    model = network().to(device)
    x = torch.randn(1 if device.type == "cpu" else 16, 3, SIDE, SIDE, device=device)
    fast = prepared(network(), device)
    last = x.contiguous(memory_format=torch.channels_last)

    def bf16():
        with autocast(device, "bf16"):
            return fast(last).mask

    ways = {"plain": lambda: plain(model, x).mask, "ours": lambda: fast(last).mask, "ours, bf16": bf16}
    if device.type == "cpu":
        try:
            raw = to_onnx(model)
            for backend in BACKENDS[1:]:
                exported = Exported(raw, backend)
                ways[backend] = partial(exported.mask_logits, x)
        except DataError as error:  # an optional package is missing
            print(f"left out: {error}")
    with torch.inference_mode():
        reference = ways["plain"]().float()
        found = {
            name: {
                "difference": (way().float() - reference).abs().max().item(),
                "largest logit": reference.abs().max().item(),
            }
            for name, way in ways.items()
        }
        matrix = torch.randn(len(x), PRODUCT, PRODUCT, device=device)
        ways["matrix product"] = lambda: matrix @ matrix
        rows = in_turn(ways, args.rounds, device)
    for row in rows:
        row["GFLOP/s"] = 2 * PRODUCT**3 * len(x) / 1e9 / row["seconds"]
    return [row | found.get(row["way"], {}) for row in rows]


def light(args: argparse.Namespace, device: torch.device) -> Rows:
    """Inference of one frame by the network and by smaller ones, as test.py and detect.py run them."""
    sizes = (("full", 16), ("full", 8), ("single", 8), ("single", 6))
    models = {f"{v}, width {w}": prepared(network(w, v), device) for v, w in sizes}
    rows = []
    for height, width in FRAMES:
        x = torch.randn(1, 3, height, width, device=device).contiguous(
            memory_format=torch.channels_last
        )
        with torch.inference_mode():
            timed = in_turn({k: partial(m, x) for k, m in models.items()}, args.rounds, device)
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

    ways = {"plain": stepper(plain, network().to(device), x, "off"), "ours": ours("off")}
    return in_turn(ways | {"ours, bf16": ours("bf16")}, args.rounds, device)


def most_memory() -> float:
    """The most memory that this process ever had, MiB. (getrusage gives that of the process which
    started it, too.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def peak(side: int, tile: int, batch: int, weights: str) -> tuple[float, float]:
    """Seconds of a warm call and peak memory in MiB of this process, of `batch` frames of a side; for
    a process of its own."""
    model = prepared(load_weights(weights))
    frames = np.random.default_rng(0).integers(0, 65536, (batch, side, side), np.uint16)

    def call() -> float:
        start = time.perf_counter()
        if batch == 1:
            predict_frame(model, frames[0], tile=tile)
        else:
            predict(model, [np.repeat((f >> 8).astype(np.uint8)[..., None], 3, 2) for f in frames])
        return time.perf_counter() - start

    call()  # the first call loads and compiles
    seconds = [call()]
    while sum(seconds) < WARM_SECONDS:
        seconds.append(call())
    return statistics.median(seconds), most_memory()


def alone(*argv) -> tuple[float, float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak, *argv).result()


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
    draw_scaling(rows, Path(args.output) / "scaling.png")
    return rows


def draw_scaling(rows: Rows, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.8), dpi=110)
    groups = [("one image", [r for r in rows if r["batch"] == 1 and r["tile"] == r["side"]])]
    groups += [("one image, tiles of 512", [r for r in rows if r["tile"] < r["side"]])]
    groups += [(f"batches of {SIDE}x{SIDE}", [r for r in rows if r["side"] == SIDE])]
    for panel, key in zip(panels, ("seconds", "peak MiB")):
        for name, group in groups:
            pixels = [r["side"] ** 2 * r["batch"] / 1e6 for r in group]
            panel.loglog(pixels, [r[key] for r in group], "o-", label=name)
        panel.set(xlabel="megapixels", ylabel=key)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.tight_layout()
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
    pyplot.close(figure)


# --- tables ------------------------------------------------------------------------------------------

QUICK = (inference, training)
PARTS = (*QUICK, pipeline, labels, light, tiles, scaling, processes)


def shown(value: str | float | int | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(rows: Rows) -> str:
    """Rows as a Markdown table."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    for cells in (keys, ["---"] * len(keys), *([shown(row.get(k, "")) for k in keys] for row in rows)):
        print("|", " | ".join(cells), "|", file=out)
    return out.getvalue()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=HelpFormatter)
    add = parser.add_argument
    names = [part.__name__ for part in PARTS]
    add("--parts", nargs="+", choices=names, help="default: all; with --quick inference, training")
    add("--quick", action="store_true", help="the network alone, fewer rounds")
    add("--rounds", type=int, default=7, metavar="N", help="of each way; with --quick 5")
    add("--dataset", default="NUDT-SIRST", metavar="NAME", help="for the pipeline")
    add("--data-root", default="data", metavar="DIR", help="where the data sets are")
    add("--weights", metavar="FILE", help="default: those of NUAA-SIRST")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--output", default="results", metavar="DIR", help="where benchmark.json is written")
    return parser


@command()
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if args.rounds < 1:
        raise DataError(f"--rounds: found {args.rounds}, expected 1 or more")
    device = pick_device(args.device)
    args.rounds = 5 if args.quick else args.rounds
    wanted = args.parts or [part.__name__ for part in (QUICK if args.quick else PARTS)]
    if {"pipeline", "labels"} & set(wanted):
        find_dataset(args.dataset, args.data_root)
    found = {"environment": environment(device)}
    print(json.dumps(found["environment"]))
    for part in PARTS:
        if part.__name__ in wanted:
            found[part.__name__] = part(args, device)
            print(f"\n{part.__name__}: {' '.join(part.__doc__.split())}\n")
            print(table(found[part.__name__]), flush=True)
            write_json(Path(args.output) / "benchmark.json", found)
    print(f"tables: {args.output}/benchmark.json")


if __name__ == "__main__":
    sys.exit(main())
