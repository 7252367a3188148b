"""What is looked at between the steps of a training."""

import math

import numpy as np
import torch

from dataset import Frames
from ismallnet.cli import UserError
from ismallnet.distributed import Processes
from ismallnet.evaluation.tables import summary
from ismallnet.inference.predict import evaluate, pictures
from ismallnet.training.augmentation import TrainingSet
from ismallnet.training.monitor import Monitor, dead_outputs
from ismallnet.training.run import Run, State


class TrainingError(UserError):
    """The training cannot continue; the message says where and what is kept."""


class Watch:
    """What is looked at between the steps: the outputs on training crops, the figures of the lists
    that are tested on, and whether all is finite.

    Args:
        samples: that are trained on.
        lists: that are tested on, by data set.
        figures_on: what these lists are.
        every: epochs between evaluations; 0 for the last step alone.
        select: keep the best evaluation's weights.
        amp: of the evaluations, "auto" or "off".
    """

    def __init__(
        self,
        samples: TrainingSet,
        monitor: Monitor | None,
        lists: dict[str, Frames],
        figures_on: str,
        every: int,
        select: bool,
        amp: str,
        processes: Processes,
    ):
        self.samples, self.monitor, self.lists, self.figures_on = samples, monitor, lists, figures_on
        self.every, self.select, self.amp, self.processes = every, select, amp, processes
        self.batch_size = samples.batch_size

    def epoch(self, step: int) -> float:
        return step * self.batch_size / len(self.samples)

    def check_finite(self, what: str, value: float | torch.Tensor, state: State, run: Run) -> None:
        """
        Raises:
            TrainingError: it is not; names the samples of the step.
        """
        if math.isfinite(value):
            return
        first = state.step * self.batch_size
        names = [self.samples.name(p) for p in range(first, first + self.batch_size)]
        raise TrainingError(
            f"the {what} is not finite in step {state.step + 1} (epoch {self.epoch(state.step):.1f}); "
            f"its samples: {', '.join(names)}. Last good checkpoint: "
            f"{run.last if run.last.exists() else 'none yet'}. Try a lower --lr, --clip 1, or --amp off"
        )

    def look_due(self, state: State) -> bool:
        return self.monitor is not None and self.monitor.due(state.step, state.steps)

    def look(self, state: State, run: Run) -> None:
        """Logs what each output gives on fixed training crops, and warns of one that learns nothing."""
        states = self.monitor(state.kept, self.amp)
        if not states:  # no crop holds a target
            return
        for name, output in states.items():
            values = {f"outputs/{name}_peak": output.peak, f"outputs/{name}_IoU": output.iou}
            run.scalars(values, state.step)
        text = "; ".join(f"{name} {output}" for name, output in states.items())
        run.say(f"epoch {self.epoch(state.step):.1f} step {state.step} on training crops | {text}")
        other = "" if run.about["args"]["loss"] == "jaccard" else ", or --loss jaccard"
        for name in dead_outputs(states, state.step, state.steps):
            run.say(
                f"warning: the {name} output is nearly empty after {state.step} of {state.steps} "
                f"steps: it does not learn. Try a lower --lr{other}"
            )

    def evaluation_due(self, state: State) -> bool:
        if state.finished or not self.every:
            return state.finished
        every = self.every * len(self.samples) / self.batch_size  # steps
        return int(state.step / every) > int((state.step - 1) / every)

    def evaluate(self, state: State, run: Run, lr: float) -> None:
        """Figures of the weights that are kept, into the log, the events and the history."""
        size = self.batch_size if self.processes.device.type == "cuda" else 1
        figures = evaluate(state.kept, self.lists, size, self.amp, self.processes)
        epoch, loss = self.epoch(state.step), float(np.sum(state.recent) / len(state.recent))
        entry = {"step": state.step, "epoch": epoch, "loss": loss, "lr": lr, "figures": figures}
        state.history.append(entry)
        for name, values in figures.items():
            text = f"epoch {epoch:.1f} step {state.step} loss {loss:.4f} | {name} {summary(values)}"
            run.say(text)
            keys = ("iou", "niou", "pd", "fa")
            run.scalars({f"{name}/{key}": values[key] for key in keys}, state.step)
        if run.events:
            name, frames = next(iter(self.lists.items()))
            view = pictures(state.kept, frames, self.amp)
            run.events.image(f"{name}/image, mask, prediction", view, state.step)
        iou = float(np.mean([values["iou"] for values in figures.values()]))
        if self.select and iou > state.best:
            state.best = iou
            run.save_best(state, self.figures_on)
        state.model.train()
