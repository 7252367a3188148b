"""The least time that a machine needs for a network: what its memory and its arithmetic allow.

Each operation moves bytes and computes. It takes at least bytes / memory bandwidth, and at least
operations / arithmetic rate. The larger of the two is its roof (Williams, Waterman and Patterson,
"Roofline", CACM 2009). What really bounds a layer lies between the two bandwidths that are measured
here: tensors that the processor's cache still holds need not come from memory.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ismallnet.timing import CLOCKS, Rows

LARGE, SMALL = 2**28, 2**20  # bytes that are copied: far more than a cache holds, and less
SIDE = 1024  # of the square matrices
KINDS = {  # by the name of PyTorch's operation
    **dict.fromkeys(("cat", "stack"), "concatenation"),
    **dict.fromkeys(("upsample_bilinear2d", "upsample_nearest2d"), "up- and down-sampling"),
    **dict.fromkeys(("mean", "amax", "adaptive_max_pool2d", "max_pool2d_with_indices"), "pooling"),
    **dict.fromkeys(("add", "mul", "relu", "sigmoid", "div", "sub"), "element-wise"),
    **dict.fromkeys(("mm", "addmm"), "matrix products"),
    **dict.fromkeys(("clone", "_to_copy", "copy"), "copies"),
}


@dataclass
class Work:
    """What operations of a kind add up to: floating-point operations (a multiplication and an addition
    are two), bytes of their inputs and outputs, seconds, calls."""

    flop: int = 0
    bytes: int = 0
    seconds: float = 0.0
    calls: int = 0


def size(tensors: list[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def kind_of(name: str, tensors: list[Tensor]) -> str:
    """The kind of an operation, by its name in `torch.ops.aten`; of a convolution with its kernel."""
    if name in ("convolution", "mkldnn_convolution"):
        height, width = tensors[1].shape[2:]
        return f"convolution {height}×{width}"
    return KINDS.get(name, "other")


class Counter(TorchDispatchMode):
    """Within it PyTorch's operations are counted by kind, in `work`; views, which move nothing, are
    not."""

    def __init__(self, clock: str = "wall"):
        super().__init__()
        self.work: dict[str, Work] = defaultdict(Work)
        self.now = CLOCKS[clock]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        start = self.now()
        out = func(*args, **(kwargs or {}))
        seconds = self.now() - start
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        written = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if not any(a.data_ptr() == b.data_ptr() for a in read for b in written):
            name = func.overloadpacket.__name__
            entry = self.work[kind_of(name, read)]
            entry.flop += flop(name, read, written)
            entry.bytes += size(read) + size(written)
            entry.seconds += seconds
            entry.calls += 1
        return out


def flop(name: str, read: list[Tensor], written: list[Tensor]) -> int:
    """Of a convolution and a matrix product; of others one for each value that is read."""
    if kind_of(name, read).startswith("convolution"):
        return 2 * written[0].numel() * read[1][0].numel()
    if name in ("mm", "addmm"):
        return 2 * written[0].numel() * read[-1].shape[0]
    return sum(t.numel() for t in read)


def best(way: Callable, clock: str, rounds: int = 7) -> float:
    """Seconds of the fastest call: what the machine can do when nobody disturbs."""
    seconds = []
    for _ in range(rounds + 1):
        start = CLOCKS[clock]()
        way()
        seconds.append(CLOCKS[clock]() - start)
    return min(seconds[1:])


def bandwidth(count: int, clock: str) -> float:
    """Bytes a second, read and written, of copies of so many bytes."""
    source, target = torch.ones(count // 4), torch.empty(count // 4)
    times = max(1, LARGE // count // 4)

    def copies() -> None:
        for _ in range(times):
            target.copy_(source)

    return 2 * count * times / best(copies, clock)


def matrix_rates(clock: str) -> dict[str, float]:
    """Operations a second of square matrix products, by type; without those that PyTorch lacks here."""
    a, b = torch.randn(2, SIDE, SIDE).unbind()
    c, d = (torch.randint(-9, 9, (SIDE, SIDE), dtype=torch.int8) for _ in range(2))
    half_a, half_b = a.bfloat16(), b.bfloat16()
    ways = {"float32": lambda: a @ b, "bf16": lambda: half_a @ half_b}
    ways["int8"] = lambda: torch._int_mm(c, d)
    rates = {}
    for name, way in ways.items():
        try:
            rates[name] = 2 * SIDE**3 / best(way, clock)
        except (RuntimeError, NotImplementedError, AttributeError):  # no such product here
            continue
    return rates


def count(forward: Callable, clock: str = "wall", rounds: int = 5) -> dict[str, Work]:
    """The work of a network by kind of layer; seconds are medians over rounds.

    Args:
        forward: one call of it, in float32, on the CPU.
    """
    counted = []
    for _ in range(rounds + 1):
        with Counter(clock) as counter:
            forward()
        counted.append(counter.work)
    for kind, work in counted[0].items():
        work.seconds = median(other[kind].seconds for other in counted[1:])
    return counted[0]


def lowest(work: Work, rate: float, memory: float, part: float = 1.0) -> float:
    """The roof of operations, in seconds.

    Args:
        rate, memory: operations and bytes a second.
        part: of the bytes of float32, 1/2 for bf16.
    """
    return max(work.flop / rate, part * work.bytes / memory)


def machine_rows(large: float, small: float, matrix: dict[str, float]) -> Rows:
    rows: Rows = [{"rate": f"copy of {LARGE >> 20} MiB, GB/s", "value": large / 1e9}]
    rows.append({"rate": f"copy of {SMALL >> 20} MiB, in cache, GB/s", "value": small / 1e9})
    return rows + [
        {"rate": f"matrix product, {kind}, GFLOP/s", "value": rate / 1e9}
        for kind, rate in matrix.items()
    ]


def layer_rows(kinds: dict[str, Work], rate: float, memory: float) -> Rows:
    """Of each kind of layer, slowest first, and of all: its work, what arithmetic and memory need at
    least in float32, and what was measured."""
    rows: Rows = []
    for kind, work in sorted(kinds.items(), key=lambda item: -item[1].seconds):
        rows.append({"layers": kind, "calls": work.calls, "GFLOP": work.flop / 1e9})
        rows[-1] |= {"MB": work.bytes / 1e6, "arithmetic s": work.flop / rate}
        rows[-1] |= {"memory s": work.bytes / memory, "roof s": lowest(work, rate, memory)}
        rows[-1] |= {"measured s": work.seconds}
    rows.append({"layers": "all"} | {key: sum(row[key] for row in rows) for key in list(rows[0])[1:]})
    return [row | {"measured / roof": row["measured s"] / row["roof s"]} for row in rows]


def roof_rows(kinds: dict[str, Work], matrix: dict[str, float], memory: float) -> Rows:
    """The least seconds of the whole network by precision; "int8" is of convolutions alone."""
    single = {kind: lowest(work, matrix["float32"], memory) for kind, work in kinds.items()}
    rows: Rows = [{"precision": "float32", "lowest s": sum(single.values())}]
    if "bf16" in matrix:
        half = (lowest(work, matrix["bf16"], memory, 1 / 2) for work in kinds.values())
        rows.append({"precision": "bf16", "lowest s": sum(half)})
    if "int8" in matrix:
        seconds = (
            lowest(work, matrix["int8"], memory, 1 / 4)
            if kind.startswith("convolution")
            else single[kind]
            for kind, work in kinds.items()
        )
        rows.append({"precision": "int8 convolutions, the rest float32", "lowest s": sum(seconds)})
    return rows


def report(forward: Callable, clock: str, rounds: int) -> Rows:
    """The machine's rates, the least seconds by precision, and the layers. As `count`."""
    large, small = (bandwidth(size, clock) for size in (LARGE, SMALL))
    matrix = matrix_rates(clock)
    kinds = count(forward, clock, rounds)
    layers = layer_rows(kinds, matrix["float32"], large)
    return [*machine_rows(large, small, matrix), *roof_rows(kinds, matrix, large), *layers]
