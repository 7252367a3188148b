"""Times of the stages as one types them, start-up included: the parts of benchmark.py that run whole
command lines."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from cli import atomic_write, progress
from dataset import MAPS, Frames
from detect import SHIPPED
from inference import predict, prepared
from layouts import find_dataset
from net import load_weights
from utils import map_files

HERE = Path(__file__).parent
Rows = list[dict[str, str | float | int | None]]


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
    images = [frames[i][0] for i in range(len(frames))]
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


def images(args: argparse.Namespace, device: torch.device) -> Rows:
    """test.py (half width) and eval.py (all protocols) on the first images of a test list; and what
    each image more took."""
    names = [sample.name for sample in find_dataset(args.dataset, args.data_root).samples("test")]
    stages = {
        "test.py": ["--weights", str(weights_file(args)), "--device", str(device)],
        "eval.py": ["--protocol", "all"],
    }
    rows = []
    with tempfile.TemporaryDirectory() as top:
        chosen = Path(top) / "test.txt"
        shared = [*dataset(args), "--split", str(chosen), str(chosen), "--results", top]
        for count in sorted({min(n, len(names)) for n in (1, 10, 100, len(names))}):
            chosen.write_text("\n".join(names[:count]))
            row = {"images": count}
            for work, options in stages.items():
                key = f"{work}, seconds"
                row[key] = typed(work, *shared, *options)
                if rows:
                    gained = row[key] - rows[0][key]
                    row[f"{work}, ms an image more"] = 1000 * gained / (count - 1)
            rows.append(row)
    return rows


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
