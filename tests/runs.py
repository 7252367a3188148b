"""Small trainings that the tests share: 6 images in batches of 2, 3 steps an epoch, of the smallest of
the networks, unless another --variant follows."""

import multiprocessing
import os
import re
import socket
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from tensorboardX import proto

from ismallnet.checkpoints import read_checkpoint
from train import main

REPOSITORY = Path(__file__).parent.parent
TINY = ["--dataset", "tiny", "--width", "4", "--crop", "32", "--batch-size", "2", "--lr", "1e-3"]
TINY += ["--workers", "0", "--device", "cpu", "--variant", "plain"]
RUN = Path("runs/tiny/x")
FORKS = multiprocessing.get_context("forkserver")  # whose processes have imported most already
FORKS.set_forkserver_preload(
    ["torchvision", "tensorboardX", "skimage.measure", "scipy.optimize", "pytest"]
)


def run(*argv, folder="x"):
    return main([*TINY, "--run-name", folder, *map(str, argv)])


def weights(folder: Path | str, name="last.pt") -> dict[str, torch.Tensor]:
    return read_checkpoint(Path(folder) / name)["state_dict"]


def equal(a: dict, b: dict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a) and a.keys() == b.keys()


def start(script: Callable, argv: list, **environment: str) -> multiprocessing.Process:
    """A script's main in a process, and a process group, of its own, that writes to output.txt."""
    process = FORKS.Process(target=child, args=(script, [str(a) for a in argv], environment))
    process.start()
    return process


def child(script: Callable, argv: list[str], environment: dict[str, str]) -> None:
    os.setsid()
    os.environ |= environment
    multiprocessing.set_start_method("fork", force=True)  # as scripts do: workers end with them
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with open("output.txt", "a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            sys.exit(script(argv))
        except SystemExit as stop:
            os._exit(stop.code or 0)


def torchrun(rank: int, world: int, port: str) -> dict[str, str]:
    """What torchrun sets for a process."""
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    return ranks | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def output() -> str:
    """What processes that `start` began have written."""
    return Path("output.txt").read_text(encoding="utf-8")


def begun(path: Path) -> tuple[int, int]:
    """When a file of events was begun: by its name, in seconds; then by its own time."""
    return int(re.search(r"tfevents\.(\d+)", path.name)[1]), path.stat().st_mtime_ns


def logged(folder: Path | str, tag: str = "loss/mask") -> dict[int, float]:
    """The values of a scalar in a run's TensorBoard files by step, as TensorBoard shows them: a file
    takes the place of all that earlier ones hold from its first step on. Each step is there once."""
    pairs = []
    for path in sorted(Path(folder).glob("events*"), key=begun):
        raw = memoryview(path.read_bytes())
        while raw:  # records: 8 bytes length, 4 checksum, the event, 4 checksum
            size = int.from_bytes(raw[:8], "little")
            if len(raw) < 16 + size:  # cut off by a kill: TensorBoard, too, leaves the file there
                break
            event = proto.event_pb2.Event.FromString(raw[12 : 12 + size])
            raw = raw[16 + size :]
            if event.session_log.status == proto.event_pb2.SessionLog.START:
                pairs = [(step, value) for step, value in pairs if step < event.step]
            pairs += [(event.step, v.simple_value) for v in event.summary.value if v.tag == tag]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)
