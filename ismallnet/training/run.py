"""A training run: the state that its steps change, and the folder that keeps it."""

import contextlib
import datetime
import itertools
import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import torch
from tensorboardX import proto
from tensorboardX import summary as tensorboard
from tensorboardX.event_file_writer import EventsWriter
from torch import nn
from torch.optim import Optimizer
from tqdm import tqdm

from ismallnet.checkpoints import WeightsError, save_checkpoint
from ismallnet.cli import DataError
from ismallnet.evaluation.map_files import NOTHING, TEST_LIST
from ismallnet.files import disk_errors_of, lock, sweep, write_json
from ismallnet.training.recipes import MovingAverage

COUNTED = ("step", "history", "best", "recent", "seconds")  # of `State`: kept in a checkpoint


@dataclass
class State:
    """All that training changes from step to step."""

    model: nn.Module  # an iSmallNet, on its device
    optimizer: Optimizer  # of its parameters
    ema: MovingAverage | None  # of its weights
    scaler: torch.amp.GradScaler  # of the gradients; does nothing unless training is in fp16
    steps: int  # of the whole training
    init: dict  # what the weights that the run was initialised from say of themselves
    step: int = 0
    history: list[dict] = field(default_factory=list)  # of evaluations
    best: float = -1.0  # the largest IoU among them
    recent: list[list[float]] = field(default_factory=list)  # losses of the last steps, for the log
    seconds: float = 0.0  # in the loop, all sessions together

    @property
    def kept(self) -> nn.Module:
        """The weights that are kept: the moving average, or the last ones where there is none."""
        return self.ema.module if self.ema else self.model

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    def metrics(self) -> dict:
        """Those of the evaluation after this step; empty where there was none."""
        current = self.history[-1] if self.history else {}
        return current["figures"] if current.get("step") == self.step else {}

    def training(self) -> dict:
        """What `restore` needs beside the weights that are kept."""
        optimizer = self.optimizer.state_dict()
        for group in optimizer["param_groups"]:  # as they are without graphs, see GraphedStep
            group["lr"] = float(group["lr"])
            if "capturable" in group:
                group["capturable"] = False
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer,
            "averaged": self.ema.count if self.ema else 0,
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            **{key: getattr(self, key) for key in COUNTED},
        }

    def restore(self, checkpoint: dict, name: str) -> None:
        """Continues from a checkpoint: from here on, everything is as if training never stopped.

        Raises:
            WeightsError: the checkpoint called `name` is damaged.
        """
        training = checkpoint["training"]
        try:
            self.model.load_state_dict(training["model"])
            if self.ema:
                self.ema.module.load_state_dict(checkpoint["state_dict"])
                self.ema.count = int(training["averaged"])
            self.optimizer.load_state_dict(training["optimizer"])
            if training["scaler"]:  # none of a run without fp16
                self.scaler.load_state_dict(training["scaler"])
            torch.set_rng_state(training["rng"])
            for key in COUNTED:
                setattr(self, key, training[key])
            self.init = checkpoint["info"]["init"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise WeightsError(f"{name}: this run's checkpoint is damaged ({error})") from error


@dataclass
class Run:
    """A run's folder: config.json, log.txt, TensorBoard events, checkpoints and metrics.json."""

    folder: Path
    about: dict  # what its checkpoints say of it from the first step to the last
    data: dict  # digests of its data, which a run that is resumed must find again
    save_every: float  # minutes between checkpoints
    writes: bool = True  # of several processes the first alone does
    log: TextIO | None = None
    events: EventsWriter | None = None
    saved: float = field(default_factory=time.monotonic)

    @property
    def last(self) -> Path:
        return self.folder / "last.pt"

    @contextlib.contextmanager
    def opened(self, state: State) -> Iterator:
        """Opens the log and the events of a session, and says where it starts."""
        if not self.writes:
            yield
            return
        sweep(self.folder)
        config = {key: self.about[key] for key in ("args", "environment")}
        write_json(self.folder / "config.json", config)
        # Not tensorboardX's SummaryWriter: what waits in its thread is lost when a run is killed.
        events = EventsWriter(str(self.folder / "events"), f".{state.step + 1}")
        log = self.folder / "log.txt"  # with names of files as they are on disk
        with (
            disk_errors_of(self.folder),
            open(log, "a", encoding="utf-8", errors="surrogateescape") as self.log,
            contextlib.closing(events) as self.events,
        ):
            # What a killed run logged beyond its checkpoint is logged again, and shown once.
            start = proto.event_pb2.SessionLog(status=proto.event_pb2.SessionLog.START)
            self.event(state.step + 1, session_log=start)
            begun = "resumed at" if state.step else "from"
            self.say(f"run {self.folder}: {begun} step {state.step} of {state.steps}")
            self.say(f"arguments: {json.dumps(config['args'])}", screen=False)  # it shows the command
            self.say(f"environment: {json.dumps(config['environment'])}")
            yield
        self.log = self.events = None

    def finish(self, state: State, reason: str) -> None:
        """Says where the weights are, or how to continue after an interruption."""
        if not state.finished:
            names, folder = shlex.join(self.about["dataset"]), shlex.quote(str(self.folder))
            self.say(
                f"stopped by {reason or 'another process'} after step {state.step}, saved. Continue "
                f"with: python train.py --dataset {names} --resume {folder}"
            )
            return
        average = "EMA " if state.ema else ""
        self.say(f"weights: {self.last} (last {average}weights, no epoch chosen)")
        if self.about["args"]["select"] == "test":
            best = f"chosen on {self.about['figures_on']}: IoU {100 * state.best:.2f}"
            self.say(f"weights: {self.folder / 'best.pt'} ({best})")

    def say(self, line: str, screen: bool = True) -> None:
        """Logs a line, and prints it above the progress bar."""
        if screen:
            tqdm.write(line)
        if self.log:
            now = datetime.datetime.now().isoformat(" ", "seconds")
            print(now, line, file=self.log, flush=True)

    def event(self, step: int, **content) -> None:
        """An event of TensorBoard's."""
        if self.events:
            event = proto.event_pb2.Event(wall_time=time.time(), step=step, **content)
            self.events.write_event(event)

    def scalars(self, values: dict[str, float | None], step: int) -> None:
        """TensorBoard's values of a step, by name; those that are None are left out."""
        for name, value in values.items():
            if value is not None:
                self.event(step, summary=tensorboard.scalar(name, value))

    def content(self, state: State, selected_on: str) -> dict:
        """A weights file: the weights, and what it says of itself, in plain values only."""
        before = state.init.get("selected_on", NOTHING)
        if selected_on == NOTHING or before == TEST_LIST:  # which no later choice undoes
            selected_on = before
        info = self.about | {
            "step": state.step,
            "steps": state.steps,
            "epoch": state.step * self.about["args"]["batch_size"] / self.about["images"],
            "hours": state.seconds / 3600,
            "init": {key: value for key, value in state.init.items() if key != "seen"},  # is in ours
            "selected_on": selected_on,
            "figures": state.metrics(),
        }
        return {"state_dict": state.kept.state_dict(), "info": info}

    def save_due(self) -> bool:
        return time.monotonic() - self.saved > 60 * self.save_every

    def save(self, state: State) -> None:
        """Writes last.pt, after all that was logged before it."""
        self.saved = time.monotonic()
        if self.writes:
            self.events.flush()
            training = state.training() | self.data
            save_checkpoint(self.content(state, NOTHING) | {"training": training}, self.last)

    def save_best(self, state: State, selected_on: str) -> None:
        """Writes best.pt, which says what it was chosen on."""
        if self.writes:
            save_checkpoint(self.content(state, selected_on), self.folder / "best.pt")

    def write_metrics(self, state: State) -> None:
        metrics = {"final": state.metrics() if state.finished else {}, "selected_on": NOTHING}
        metrics |= {"figures_on": self.about["figures_on"], "history": state.history}
        if self.writes:
            write_json(self.folder / "metrics.json", metrics)

    def check_data(self, training: dict) -> None:
        """DataError where a checkpoint's `training` part was made with other data."""
        for key, what in (("list", "the training list"), ("contents", "an image or a mask")):
            if training.get(key) != self.data[key]:
                raise DataError(
                    f"{self.folder}: {what} is not the one that this run began with; put the files "
                    "back, or start another run: leave --resume out"
                )


@contextlib.contextmanager
def claim(runs: Path, name: str | None) -> Iterator[Path]:
    """A new run's folder, made and locked; removed again if nothing was written to it.

    Args:
        runs: the folder of a data set's runs.
        name: of the new one; by default date and time, with _2, _3, … where that is taken.

    Raises:
        DataError: there is a run of that name, or another training is running there.
    """
    folder = runs / name if name else new_folder(runs)
    with lock(folder, "a training is running"):  # a run that was killed early may have left the folder
        if (folder / "last.pt").exists():
            raise DataError(f"{folder}: holds a run; type --resume, or another --run-name")
        try:
            yield folder
        finally:
            if [path.name for path in folder.iterdir()] == [".lock"]:
                (folder / ".lock").unlink()
                folder.rmdir()
                with contextlib.suppress(OSError):  # other runs are there
                    runs.rmdir()


def new_folder(runs: Path) -> Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        folder = runs / (f"{now}_{number}" if number > 1 else now)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
