"""Small trainings that the tests share: 6 images in batches of 2, 3 steps an epoch."""

import subprocess
import sys
from pathlib import Path

import torch
from tensorboardX import proto

from ismallnet.checkpoints import read_checkpoint
from train import main

REPOSITORY = Path(__file__).parent.parent
TINY = ["--dataset", "tiny", "--width", "4", "--crop", "32", "--batch-size", "2", "--lr", "1e-3"]
TINY += ["--workers", "0", "--device", "cpu"]
RUN = Path("runs/tiny/x")


def run(*argv, folder="x"):
    return main([*TINY, "--run-name", folder, *map(str, argv)])


def weights(folder: Path | str, name="last.pt") -> dict[str, torch.Tensor]:
    return read_checkpoint(Path(folder) / name)["state_dict"]


def equal(a: dict, b: dict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a) and a.keys() == b.keys()


def start(*argv, **options) -> subprocess.Popen:
    command = [sys.executable, str(REPOSITORY / "train.py"), *TINY, *map(str, argv)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, **pipes, **options)


def logged(folder, tag: str = "loss/mask") -> dict[int, float]:
    """The values of a scalar in a run's TensorBoard files by step, as TensorBoard shows them: a session
    that starts at a step takes the place of what was logged from there on. Each step is there once."""
    values = {}
    for path in sorted(Path(folder).glob("events*"), key=lambda p: p.stat().st_mtime_ns):
        raw = path.read_bytes()
        while raw:  # records: 8 bytes length, 4 checksum, the event, 4 checksum
            size = int.from_bytes(raw[:8], "little")
            if len(raw) < 16 + size:  # cut off by a kill: TensorBoard, too, leaves the file there
                break
            event = proto.event_pb2.Event.FromString(raw[12 : 12 + size])
            raw = raw[16 + size :]
            if event.session_log.status == proto.event_pb2.SessionLog.START:
                values = {step: value for step, value in values.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == tag:
                    assert event.step not in values
                    values[event.step] = value.simple_value
    return values
