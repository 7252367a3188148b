"""A training run: the state that its steps change, and the folder that keeps it."""

import contextlib
import datetime
import errno
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.optim import Optimizer
from tqdm import tqdm

from ismallnet.checkpoints import WeightsError, save_checkpoint
from ismallnet.cli import DataError
from ismallnet.evaluation.map_files import NOTHING, TEST_LIST
from ismallnet.files import disk_errors_of, sweep, write_json
from ismallnet.training.eventlog import EventLog
from ismallnet.training.recipes import MovingAverage
from net import iSmallNet

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None


class State:
    """All that training changes from step to step.

    Args:
        model: on its device.
        optimizer: of its parameters.
        ema: the moving average of its weights; None for none.
        scaler: of the gradients; does nothing unless training is in fp16.
        steps: of the whole training.
    """

    def __init__(
        self,
        model: iSmallNet,
        optimizer: Optimizer,
        ema: MovingAverage | None,
        scaler: torch.amp.GradScaler,
        steps: int,
    ):
        self.model, self.optimizer, self.ema, self.scaler = model, optimizer, ema, scaler
        self.step, self.steps = 0, steps
        self.history: list[dict] = []  # of evaluations
        self.best = -1.0  # the largest IoU among them
        self.recent: list[list[float]] = []  # losses of the last steps, for the log
        self.seconds = 0.0  # in the loop, all sessions together
        self.init = model.info  # of the weights that the run began with

    @property
    def kept(self) -> iSmallNet:
        """The weights that are kept: the moving average, or the last ones where there is none."""
        return self.ema.module if self.ema else self.model

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    def figures(self) -> dict:
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
            "averaged": int(self.ema.n_averaged) if self.ema else 0,
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "recent": self.recent,
            "seconds": self.seconds,
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
                self.ema.n_averaged.fill_(training["averaged"])
            self.optimizer.load_state_dict(training["optimizer"])
            if training["scaler"]:  # none of a run without fp16
                self.scaler.load_state_dict(training["scaler"])
            torch.set_rng_state(training["rng"])
            for key in ("step", "history", "best", "recent"):
                setattr(self, key, training[key])
            self.seconds = training.get("seconds", 0.0)
            self.init = checkpoint["info"].get("init", {})
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise WeightsError(f"{name}: this run's checkpoint is damaged ({error})") from error


class Run:
    """A run's folder: config.json, log.txt, TensorBoard events, checkpoints and metrics.json.

    Args:
        folder: of the run.
        about: what its checkpoints say of it from the first step to the last.
        data: digests of its data, which a run that is resumed must find again.
        save_every: minutes between checkpoints.
        writes: whether this process writes; of several the first alone does.
    """

    def __init__(self, folder: Path, about: dict, data: dict, save_every: float, writes: bool = True):
        self.folder, self.about, self.data, self.writes = folder, about, data, writes
        self.save_every, self.saved = 60 * save_every, time.monotonic()
        self.log = self.events = None

    @property
    def last(self) -> Path:
        return self.folder / "last.pt"

    @contextlib.contextmanager
    def session(self, step: int) -> Iterator:
        """Opens the log and the events of a session whose first step is the one after `step`."""
        if not self.writes:
            yield
            return
        sweep(self.folder)
        config = {key: self.about[key] for key in ("args", "environment")}
        write_json(self.folder / "config.json", config)
        with disk_errors_of(self.folder), open(self.folder / "log.txt", "a") as self.log:
            # What a killed run logged beyond its checkpoint is logged again.
            self.events = EventLog(self.folder, step + 1)
            try:
                yield
            finally:
                self.events.close()
                self.log = self.events = None

    def say(self, line: str) -> None:
        """Prints a line, above the progress bar, and logs it."""
        tqdm.write(line)
        if self.log:
            now = datetime.datetime.now().isoformat(" ", "seconds")
            print(now, line, file=self.log, flush=True)

    def scalars(self, values: dict[str, float | None], step: int) -> None:
        """TensorBoard's values of a step, by name; those that are None are left out."""
        for name, value in values.items() if self.events else ():
            if value is not None:
                self.events.scalar(name, value, step)

    def info(self, state: State, selected_on: str = NOTHING) -> dict:
        """What a weights file says of itself; plain values only."""
        for source in (state.init, self.about.get("teacher", {})):
            before = source.get("selected_on", NOTHING)
            if selected_on == NOTHING or before == TEST_LIST:  # which no later choice undoes
                selected_on = before
        return self.about | {
            "step": state.step,
            "steps": state.steps,
            "epoch": state.step * self.about["args"]["batch_size"] / self.about["images"],
            "hours": state.seconds / 3600,
            "init": {key: value for key, value in state.init.items() if key != "seen"},  # is in ours
            "selected_on": selected_on,
            "figures": state.figures(),
        }

    def save_due(self) -> bool:
        return time.monotonic() - self.saved > self.save_every

    def save(self, state: State) -> None:
        """Writes last.pt, after all that was logged before it."""
        self.saved = time.monotonic()
        if not self.writes:
            return
        self.events.flush()
        training = state.training() | self.data
        checkpoint = {"state_dict": state.kept.state_dict(), "info": self.info(state)}
        save_checkpoint(checkpoint | {"training": training}, self.last)

    def save_best(self, state: State, selected_on: str) -> None:
        """Writes best.pt, which says what it was chosen on."""
        if self.writes:
            best = {"state_dict": state.kept.state_dict(), "info": self.info(state, selected_on)}
            save_checkpoint(best, self.folder / "best.pt")

    def write_metrics(self, state: State) -> None:
        metrics = {"final": state.figures() if state.finished else {}, "selected_on": NOTHING}
        metrics |= {"figures_on": self.about["figures_on"], "history": state.history}
        if self.writes:
            write_json(self.folder / "metrics.json", metrics)

    def check_data(self, training: dict) -> None:
        """
        Raises:
            DataError: a checkpoint's `training` part was made with other data.
        """
        if training.get("list") != self.data["list"]:
            raise DataError(
                f"{self.folder}: the training list differs from the one this run began with; start "
                "another run: leave --resume out"
            )
        if training.get("contents", self.data["contents"]) != self.data["contents"]:  # older runs: none
            raise DataError(
                f"{self.folder}: an image or a mask of its lists is not the one that this run began "
                "with; put the files back, or start another run: leave --resume out"
            )
        if training.get("teacher") != self.data.get("teacher"):
            raise DataError(
                f"{self.folder}: --distill {self.about['args']['distill']} is not the file that this "
                "run began with; put it back, or start another run: leave --resume out"
            )


# --- whose folder it is ------------------------------------------------------------------------------


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keeps other trainings out of a run's folder. The lock ends with this process, however it ends.

    Raises:
        DataError: another training is running there.
    """
    with open(folder / ".lock", "a") as file:
        try:
            if (
                fcntl
            ):  # not flock: the loader's processes would inherit it, and outlive a kill by a second
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise DataError(
                    f"another training is running in {folder}; wait until it ends, or start one in "
                    "another folder: --run-name"
                ) from error
            print(
                f"note: {folder} cannot be locked ({error.strerror}); never train there twice at once"
            )
        yield


@contextlib.contextmanager
def claim(runs: Path, name: str | None) -> Iterator[Path]:
    """A new run's folder, made and locked; removed again if nothing was written to it.

    Args:
        runs: the folder of a data set's runs.
        name: of the new one; by default date and time, with _2, _3, … where that is taken.

    Raises:
        DataError: there is a run of that name.
    """
    if name:
        folder = runs / name
        folder.mkdir(parents=True, exist_ok=True)  # a run that was killed early may have left it
    else:
        folder = unused(runs, datetime.datetime.now().strftime("%Y%m%d-%H%M%S"))
    with lock(folder):
        if (folder / "last.pt").exists():
            raise DataError(
                f"{folder}: there is a run here; continue it: --resume, or name another --run-name"
            )
        try:
            yield folder
        finally:
            if [path.name for path in folder.iterdir()] == [".lock"]:
                (folder / ".lock").unlink()
                folder.rmdir()
                with contextlib.suppress(OSError):  # other runs are there
                    runs.rmdir()


def unused(runs: Path, name: str) -> Path:
    """A folder that this call made, named `name`, or `name`_2, `name`_3, … where there is one."""
    for number in itertools.count(1):
        folder = runs / (f"{name}_{number}" if number > 1 else name)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("unreachable")
