"""What is looked at beside the steps of a training: whether all is finite, the outputs on training
crops, the metrics of the test lists; and what would make these too good."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from ismallnet.cli import UserError, note, some
from ismallnet.datasets.sample import Item
from ismallnet.distributed import Processes
from ismallnet.evaluation.tables import one_line
from ismallnet.inference.predict import TILING, autocast, standard_metrics
from ismallnet.inference.weights import seen_of
from ismallnet.training.augmentation import TrainingSet
from ismallnet.training.run import Run, State

DEAD = 0.1  # of the true map's peak
LEAST_STEPS = 100  # before an output may be called dead
CROPS = 16  # that are looked at


class TrainingError(UserError):
    """The training cannot continue; the message says where and what is kept."""


@dataclass
class Watch:
    """What is looked at between the steps of a run."""

    state: State
    run: Run
    samples: TrainingSet  # that are trained on
    crops: Item | None  # of `training_crops`; None in processes that do not look
    lists: dict[str, Sequence]  # that are tested on, by data set
    every: int  # epochs between evaluations; 0 for the last step alone
    select: bool  # keep the best evaluation's weights
    amp: str  # of the evaluations, "auto" or "off"
    processes: Processes

    def epoch(self, step: int) -> float:
        return step * self.samples.batch_size / len(self.samples)

    def where(self) -> str:
        """The last step of a run may reach beyond its last epoch."""
        epoch = min(self.epoch(self.state.step), self.run.about["args"]["epochs"])
        return f"epoch {epoch:.1f} step {self.state.step}"

    def check(self, losses: dict[str, Tensor], norm: Tensor) -> dict[str, float]:
        """The losses of a step as numbers.

        Raises:
            TrainingError: one, or the gradient's norm, is not finite; names the samples of the step.
        """
        values = dict(zip(losses, torch.stack(list(losses.values())).tolist()))
        if not math.isfinite(sum(values.values())):
            raise TrainingError(self.not_finite("loss"))
        if not self.state.scaler.is_enabled() and not math.isfinite(norm):  # it skips such steps itself
            raise TrainingError(self.not_finite("gradient"))
        return values

    def not_finite(self, what: str) -> str:
        step, last, size = self.state.step, self.run.last, self.samples.batch_size
        names = [self.samples.name(p) for p in range(step * size, (step + 1) * size)]
        return (
            f"the {what} is not finite in step {step + 1} (epoch {self.epoch(step):.1f}); its samples: "
            f"{', '.join(names)}. Last good checkpoint: {last if last.exists() else 'none yet'}. Try a "
            "lower --lr, --clip 1, or --amp off"
        )

    def look(self) -> None:
        """Logs what each output gives on fixed training crops, and warns of one that learns nothing."""
        state, run = self.state, self.run
        if self.crops is None or not look_due(state.step, state.steps):
            return
        peaks = output_peaks(state.kept, self.crops, self.amp)
        run.scalars({f"outputs/{name}_peak": peak for name, (peak, _) in peaks.items()}, state.step)
        texts = [f"{name} peak {peak:.2f} of {true:.2f}" for name, (peak, true) in peaks.items()]
        run.say(f"{self.where()} on training crops | {'; '.join(texts) or 'no target'}")
        dead = [name for name, (peak, true) in peaks.items() if peak < DEAD * true]
        if dead and state.step >= max(LEAST_STEPS, state.steps // 10):
            run.say(
                f"warning: the outputs {', '.join(dead)} are nearly empty: they do not learn. Try a "
                "lower --lr, and the default --loss"
            )

    def evaluation_due(self) -> bool:
        if self.state.finished or not self.every:
            return self.state.finished
        every = self.every * len(self.samples) / self.samples.batch_size  # steps
        return int(self.state.step / every) > int((self.state.step - 1) / every)

    def evaluate(self, lr: float) -> None:
        """When it is due: metrics of the weights that are kept, into the log, the events and the
        history."""
        if not self.evaluation_due():
            return
        state, run = self.state, self.run
        self.processes.share(state.kept)
        metrics = {}
        for name, frames in self.lists.items():
            if text := TILING.note(frames.shapes):
                note(f"tiles {name}", f"{name} test: {text}")
            evaluated = (state.kept, frames, f"{name} test", self.amp, self.processes)
            metrics[name] = standard_metrics(*evaluated)
        loss = float(np.sum(state.recent) / len(state.recent))
        entry = {"step": state.step, "epoch": self.epoch(state.step), "loss": loss, "lr": lr}
        state.history.append(entry | {"figures": metrics})
        for name, values in metrics.items():
            run.say(f"{self.where()} loss {loss:.4f} | {name} {one_line(values)}")
            keys = ("iou", "niou", "pd", "fa")
            run.scalars({f"{name}/{key}": values[key] for key in keys}, state.step)
        iou = float(np.mean([values["iou"] for values in metrics.values()]))
        if self.select and iou > state.best:
            state.best = iou
            run.save_best(state, run.about["figures_on"])
        state.model.train()


# --- the outputs on training crops -----------------------------------------------------------------


def look_due(step: int, steps: int) -> bool:
    """Whether to look after a step: early ones, then every twentieth of the run."""
    return step in (25, 50, 100, 200, 400) or step % max(20, steps // 20) == 0


def training_crops(lists: list[Sequence], crop: int, seed: int) -> Item:
    """Fixed crops with a target, where there are any: (N, 3, crop, crop) images and (N, 1, crop, crop)
    maps, the same in every run with that seed."""
    plain = {"scale_jitter": 1.0, "brightness": 0.0, "contrast": 0.0, "target_share": 1.0}
    crops = TrainingSet(lists, 1, seed, crop=crop, mirrors=["none"] * len(lists), **plain)
    return default_collate([crops[i] for i in range(min(CROPS, len(crops)))])


@torch.no_grad()
def output_peaks(model: nn.Module, crops: Item, amp: str = "auto") -> dict[str, tuple[float, float]]:
    """Of each output that the network has, by name, the largest probability on the target, and that of
    its label map (1 of a mask): means over the crops that hold a target, where there are any. The
    network is left in the mode it was in."""
    training, peaks = model.training, {}
    model.eval()
    with autocast(model.mean.device, amp):
        outputs = model(model.normalise(crops.image.to(model.mean.device)))
    model.train(training)
    for name, logits in outputs._asdict().items():
        target = getattr(crops, name)
        true = target.amax((1, 2, 3))
        if logits is not None and true.any():
            reached = (torch.sigmoid(logits.float()).cpu() * (target > 0)).amax((1, 2, 3))
            peaks[name] = reached[true > 0].mean().item(), true[true > 0].mean().item()
    return peaks


# --- test images that were trained on --------------------------------------------------------------


def seen_note(file: str, info: dict, tested: dict[str, list[str]], hold_out: int) -> str:
    """A warning where the weights of --init, whose `info` is given, have learned from images that this
    training is tested on, by data set; empty where they have not. The shipped weights name no images:
    they have seen the training lists of their data sets, less what they held out."""
    known = [seen_of(info, dataset, names) for dataset, names in tested.items()]
    if None not in known:
        seen = [name for names in known for name in names]
    elif not hold_out or info.get("args", {}).get("hold_out") == hold_out:
        seen = []
    else:
        seen = [f"all held out of {name}" for name in tested if name in info.get("dataset", ())]
    if not seen:
        return ""
    return (
        f"warning: --init {file} has learned from images that are tested on here: {some(seen)}. The "
        "metrics are too good: take weights of a training with the same lists and --hold-out"
    )
