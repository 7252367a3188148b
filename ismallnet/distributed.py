"""The processes of a training: those that torchrun started, the loader's, and how they stop."""

import contextlib
import datetime
import importlib.metadata
import math
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
import torch.distributed as dist

from ismallnet.cli import DataError, UserError, launch
from ismallnet.parallel import follow

T = TypeVar("T")
PATIENCE = datetime.timedelta(days=7)  # for what the others do before they meet: read, detect, evaluate


class PeerError(UserError):
    """Another process of the same training has ended."""


def pick_device(name: str = "auto") -> torch.device:
    """The device that "auto" or a torch device name stands for.

    Raises:
        DataError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"--device {name}: not available here ({reason}); type --device cpu") from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # what names no device means this one, too
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether a CUDA device computes in bfloat16: from compute capability 8.0 on. PyTorch's own
    `is_bf16_supported` says so of older ones, which emulate it slowly and fail in cuDNN."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def deterministic() -> None:
    """The same bytes from the same steps on CUDA, too. Before CUDA's first use.
    (https://docs.pytorch.org/docs/stable/notes/randomness.html)"""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


class Processes:
    """This process among those that torchrun started; alone without it."""

    def __init__(self, device: str):
        self.rank, self.world, local_rank, _ = launch()
        if self.world > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
            device = f"cuda:{local_rank}"
        self.device = pick_device(device)
        self.waiting = None  # the group in which processes wait for each other
        if self.world > 1:
            # After a restart of torchrun's the store may still hold the dead processes' addresses.
            store, rank, world = next(dist.rendezvous("env://"))
            store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=world)
            self.waiting = dist.new_group(backend="gloo", timeout=PATIENCE)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, error: type | None, *_) -> None:
        """After an error the group is left as it is: NCCL would wait for the others to take it down,
        and the error would never be printed."""
        if error is None and dist.is_initialized():
            dist.destroy_process_group()

    @contextlib.contextmanager
    def collective(self) -> Iterator[None]:
        """Around what processes do together: PeerError in place of the RuntimeError (NCCL:
        DistBackendError) with which PyTorch says that another process does not answer."""
        try:
            yield
        except RuntimeError as error:
            if self.world == 1 or type(error) not in (RuntimeError, dist.DistBackendError):
                raise  # out of memory, for example
            reason = str(error).strip().splitlines()[0]
            raise PeerError(
                f"another process has ended, or this step failed ({reason}). Continue from what was "
                "saved with --resume; torchrun --max-restarts N does it by itself"
            ) from error

    def first(self, function: Callable[[], T]) -> T:
        """What a function returns, which the first process calls before all others: these find what it
        wrote."""
        result = function() if self.rank == 0 else None
        self.barrier()
        return function() if self.rank else result

    def gather(self, items: list) -> list:
        """The items of all processes, on each of them."""
        if self.world == 1:
            return items
        parts = [None] * self.world
        with self.collective():
            dist.all_gather_object(parts, items, group=self.waiting)
        return [item for part in parts for item in part]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return any(self.gather([flag]))

    def barrier(self) -> None:
        self.gather([])

    def place(self, model: torch.nn.Module) -> torch.nn.Module:
        """A network on the device, with batch norm across processes where PyTorch has it: on CUDA."""
        if self.device.type == "cuda" and self.world > 1:
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model.to(self.device, memory_format=torch.channels_last)

    def parallel(self, model: torch.nn.Module) -> torch.nn.Module:
        """The network whose gradients are the means over all processes."""
        if self.world == 1:
            return model
        ids = [self.device] if self.device.type == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def share(self, model: torch.nn.Module) -> None:
        """Gives all processes the first one's weights and batch-norm statistics; outside CUDA each has
        statistics of its own."""
        if self.world > 1:
            with self.collective():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, 0)


class Interruption:
    """Ctrl-C, SIGTERM and the clock: `reason` is set, and the loop saves and leaves. A second Ctrl-C
    ends at once. Only the main thread may handle signals.

    Of several processes one that leaves with an error stays deaf to SIGTERM: torchrun sends it as
    soon as another has died, and the message would be lost."""

    def __init__(self, minutes: float | None, processes: int = 1):
        self.reason, self.code, self.processes = "", 0, processes
        self.deadline = time.monotonic() + 60 * minutes if minutes is not None else math.inf

    def __enter__(self):
        main = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if main else ()
        self.before = {number: signal.signal(number, self._asked) for number in signals}
        return self

    def _asked(self, number, frame) -> None:
        if self.reason and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.reason, self.code = signal.Signals(number).name, 128 + number

    def check(self) -> bool:
        if not self.reason and time.monotonic() > self.deadline:
            self.reason = "--max-minutes"
        return bool(self.reason)

    def __exit__(self, error, *_) -> None:
        for number, handler in self.before.items():
            if error is None or self.processes == 1 or number != signal.SIGTERM:
                signal.signal(number, handler)


def loader_worker(_: int) -> None:
    """Loader processes leave signals, which a group is sent as a whole, to the training process, which
    needs samples until it has saved. They end with it."""
    follow()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def run_script(main: Callable[[], int]) -> None:
    """Calls a script's main and ends the program with its exit code. Of several processes one that
    fails ends at once, with its message: Python's own clean-up could wait for the others in NCCL."""
    several = os.environ.get("WORLD_SIZE", "").strip() not in ("", "1")
    try:
        code = main()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        if not several:
            raise
        traceback.print_exc()
        code = 1
    if code and several:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
    sys.exit(code)


def environment(device: torch.device) -> dict[str, str]:
    """Versions, hardware and commit, for the log and the checkpoint."""
    here = str(Path(__file__).parent.parent)
    git = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        instructions = torch.backends.cpu.get_cpu_capability()  # that torch uses
        hardware = f"{processor()} ({instructions}), {torch.get_num_threads()} threads"
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": importlib.metadata.version("torchvision"),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "hardware": hardware,
        "commit": commit,
    }


def processor() -> str:
    with contextlib.suppress(OSError, TypeError):  # not Linux, or a processor that has no name there
        return re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))[1]
    return platform.processor() or platform.machine()
