"""Measuring: ways to do the same work run in turn, peak memory, tables.

Machines are noisy. So all ways run one after the other, round after round, and what is compared is the
median over the rounds of the ratio within a round. On a machine that others use too, the processor's
time of one thread says more than the wall's clock.
"""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from pathlib import Path
from statistics import median

import numpy as np
import torch

from ismallnet.cli import progress
from ismallnet.inference.predict import predict, predict_frame, prepared
from net import load_weights

Rows = list[dict[str, str | float | int | None]]
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
WARM_SECONDS = 2.0  # a warm call is timed again and again for so long


def seconds_in_turn(
    ways: Mapping[str, Callable], rounds: int, device: torch.device, clock: str = "wall"
) -> dict[str, list[float]]:
    """Seconds of each way in each round, after one round to warm up.

    Args:
        clock: of CLOCKS; "processor" adds up all threads of this process.
    """
    now = CLOCKS[clock]

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for k in progress(range(rounds + 1), "rounds", rounds + 1, "round", leave=False):
        for name, way in ways.items():
            wait()
            start = now()
            way()
            wait()
            if k:
                seconds[name].append(now() - start)
    return seconds


def times_as_fast(seconds: Mapping[str, list[float]], reference: str) -> dict[str, list[float]]:
    """How many times as fast as the reference each way is: [least, median, most] over the rounds."""
    found = {}
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(seconds[reference], values)]
        found[name] = [min(ratios), median(ratios), max(ratios)]
    return found


def rows_of(seconds: Mapping[str, list[float]], *references: str) -> Rows:
    """A row for each way: seconds (median), how many times as fast as each of the references it is,
    and least and most of the last one."""
    rows: Rows = [{"way": name, "seconds": median(values)} for name, values in seconds.items()]
    for reference in references:
        for row, (least, ratio, most) in zip(rows, times_as_fast(seconds, reference).values()):
            row |= {f"× {reference}": ratio, "least": least, "most": most}
    return rows


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
    return median(seconds), most_memory()


def alone(*argv) -> tuple[float, float]:
    """`peak`, in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak, *argv).result()


def cell(value: str | float | int | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def markdown(rows: Rows) -> str:
    """Rows as Markdown tables, each with the columns of all its rows; where the first column changes,
    a new table begins."""
    return "\n".join(
        one_table(list(part)) for _, part in groupby(rows, key=lambda row: next(iter(row)))
    )


def one_table(rows: Rows) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [keys, ["---"] * len(keys), *([cell(row.get(k, "")) for k in keys] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
