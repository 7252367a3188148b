"""Training: a data set -> weights.

    python train.py --dataset NUDT-SIRST
    torchrun --nproc-per-node 4 train.py --dataset NUDT-SIRST

Everything of a run is in runs/NAME/RUN/: config.json, log.txt, metrics.json, TensorBoard events and
last.pt, the exponential moving average of the weights with all that `--resume` needs. The test list
is only watched; `--select test` keeps its best epoch as well (best.pt), and marks it as such.
"""

import argparse
import contextlib
import datetime
import hashlib
import json
import math
import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset import Frames, Item, maps_folder, open_datasets, read_lists
from ismallnet.checkpoints import WeightsError, save_checkpoint
from ismallnet.cli import DataError, UserError, command, progress
from ismallnet.distributed import Interruption, Processes, deterministic, environment, quiet_worker
from ismallnet.files import sweep, write_json
from ismallnet.inference import autocast, evaluate, pictures
from ismallnet.labels import decouple_dataset
from ismallnet.metrics import summary
from ismallnet.training.augmentation import TrainingSet
from ismallnet.training.eventlog import EventLog
from ismallnet.training.monitor import Monitor, dead_outputs
from ismallnet.training.options import find_run, parse, resume
from ismallnet.training.recipes import averaged, first_weights, learning_rate, make_optimizer
from net import Outputs, iSmallNet, losses


class TrainingError(UserError):
    """The training cannot go on; the message says where and what is kept."""


# --- the loop ------------------------------------------------------------------------------------


class Training:
    """The state of a run, and the loop over it. One step sees `batch_size` samples of an endless
    sequence; an epoch is as many samples as the training list has."""

    def __init__(
        self,
        args,
        processes: Processes,
        model: iSmallNet,
        train: list[Frames],
        test: list[Frames],
        folder: Path,
    ):
        self.args, self.processes, self.test, self.folder = args, processes, test, folder
        device = processes.device
        keys = ("batch_size", "seed", "augment", "crop", "target_share", "scale_jitter")
        keys += ("brightness", "contrast", "last_crop")
        length = sum(map(len, train))
        self.steps = math.ceil(args.epochs * length / args.batch_size)
        last_from = math.inf
        if args.last_crop:
            last_from = round((1 - args.last_share) * self.steps) * args.batch_size
        options = {key: getattr(args, key) for key in keys}
        self.samples = TrainingSet(train, last_from=last_from, **options)
        self.monitor = None if processes.rank else Monitor(train, args.crop, args.seed)
        if device.type == "cuda" and processes.world > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model.to(device, memory_format=torch.channels_last)
        self.ema = averaged(self.model, args.ema) if args.ema else None
        self.optimizer = make_optimizer(self.model, args.optimizer, args.lr, args.weight_decay)
        fp16 = args.amp == "fp16" and device.type == "cuda"
        fp16 |= args.amp == "auto" and device.type == "cuda" and not torch.cuda.is_bf16_supported()
        schedule = {key: getattr(args, key) for key in ("lr", "schedule", "warmup")}
        self.rate = partial(learning_rate, steps=self.steps, **schedule)
        self.scaler = torch.amp.GradScaler(device.type, enabled=fp16)
        self.step, self.history, self.best = 0, [], -1.0
        self.seconds = 0.0  # in the loop, all sessions together
        self.init = model.info  # of the weights that the run began with
        self.recent: list[list[float]] = []  # losses of the last steps, for the log
        names = "\n".join(s.name for frames in train for s in frames.samples)
        self.digest = hashlib.sha256(names.encode()).hexdigest()
        self.environment = environment(device)

    @property
    def kept(self) -> iSmallNet:
        """The weights that are kept: the moving average, or the last ones where there is none."""
        return self.ema.module if self.ema else self.model

    @property
    def epoch(self) -> float:
        return self.step * self.args.batch_size / len(self.samples)

    def info(self, selected_on: str = "nothing") -> dict:
        """What a weights file says of itself; plain values only."""
        current = self.history[-1] if self.history else None
        if selected_on == "nothing":
            selected_on = self.init.get("selected_on", "nothing")
        return {
            "dataset": list(self.args.dataset),
            "recipe": self.args.recipe,
            "width": self.args.width,
            "variant": self.args.variant,
            "seed": self.args.seed,
            "step": self.step,
            "steps": self.steps,
            "epoch": self.epoch,
            "hours": self.seconds / 3600,
            "init": self.init,
            "selected_on": selected_on,
            "figures": current["figures"] if current and current["step"] == self.step else {},
            "args": vars(self.args),
            "environment": self.environment,
        }

    def save(self) -> None:
        if self.processes.rank:
            return
        training = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": int(self.ema.n_averaged) if self.ema else 0,
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "recent": self.recent,
            "seconds": self.seconds,
            "list": self.digest,
        }
        checkpoint = {"state_dict": self.kept.state_dict(), "info": self.info(), "training": training}
        save_checkpoint(checkpoint, self.folder / "last.pt")

    def restore(self, checkpoint: dict) -> None:
        """Takes up a checkpoint of `save`; from here on, everything is as if it never stopped."""
        training = checkpoint["training"]
        if training.get("list") != self.digest:
            raise DataError(
                f"{self.folder}: the training list differs from the one this run began with; start "
                "another run: leave --resume out"
            )
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
            raise WeightsError(f"{self.folder}: this run's last.pt is damaged ({error})") from error

    def batches(self) -> DataLoader:
        """This process's share of each step from here on."""
        size, rank, world = self.args.batch_size, self.processes.rank, self.processes.world
        shares = [range(s * size + rank, (s + 1) * size, world) for s in range(self.step, self.steps)]
        forks = self.args.workers and sys.platform == "linux"
        options = {"prefetch_factor": 4, "persistent_workers": True} if self.args.workers else {}
        return DataLoader(
            self.samples,
            batch_sampler=shares,
            num_workers=self.args.workers,
            pin_memory=self.processes.device.type == "cuda",
            worker_init_fn=quiet_worker,
            multiprocessing_context="fork" if forks else None,  # the frames are shared, not copied
            **options,
        )

    def train_step(self, network: nn.Module, batch: Item) -> dict:
        """One step of the optimiser; returns the losses by output."""
        device = self.processes.device
        image = self.model.normalise(batch.image.to(device, non_blocking=True))
        image = image.contiguous(memory_format=torch.channels_last)
        maps = (batch.interior, batch.boundary, batch.mask)
        targets = Outputs(*(m.to(device, non_blocking=True) for m in maps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        with autocast(device, self.args.amp):
            outputs = network(image)
        parts = losses(outputs, targets, self.args.loss)
        values = torch.stack(list(parts.values())).detach().tolist()
        if not all(map(math.isfinite, values)):
            raise TrainingError(self.not_finite("loss"))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(sum(parts.values())).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.args.clip or math.inf)
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            raise TrainingError(self.not_finite("gradient"))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update_parameters(self.model)
        self.step += 1
        return dict(zip(parts, values))

    def not_finite(self, what: str) -> str:
        first = self.step * self.args.batch_size
        names = [self.samples.name(p) for p in range(first, first + self.args.batch_size)]
        kept = self.folder / "last.pt"
        return (
            f"the {what} is not finite in step {self.step + 1} (epoch {self.epoch:.1f}); its samples: "
            f"{', '.join(names)}. Last good checkpoint: {kept if kept.exists() else 'none yet'}. "
            "Try a lower --lr, --clip 1, or --amp off"
        )

    def look(self, log: EventLog | None, say) -> None:
        """Logs what each output gives on fixed training crops, and warns of one that learns nothing."""
        states = self.monitor(self.kept, "off" if self.args.amp == "off" else "auto")
        for name, state in states.items():
            if log:
                log.scalar(f"outputs/{name} peak", state.peak, self.step)
                log.scalar(f"outputs/{name} IoU", state.iou, self.step)
        text = "; ".join(f"{name} {state}" for name, state in states.items())
        say(f"epoch {self.epoch:.1f} step {self.step} on training crops | {text}")
        for name in dead_outputs(states, self.step, self.steps):
            say(
                f"warning: the {name} output is nearly empty after {self.step} of {self.steps} steps: "
                "it does not learn. Try a lower --lr, or --loss jaccard"
            )

    def evaluation_due(self) -> bool:
        if self.step == self.steps:
            return True
        if not self.args.eval_every:
            return False
        every = self.args.eval_every * len(self.samples) / self.args.batch_size
        return int(self.step / every) > int((self.step - 1) / every)

    def evaluate(self, log: EventLog | None, say) -> None:
        size = self.args.batch_size if self.processes.device.type == "cuda" else 1
        lists = dict(zip(self.args.dataset, self.test))
        amp = "off" if self.args.amp == "off" else "auto"  # as test.py would, on the CPU without bf16
        figures = evaluate(self.kept, lists, size, amp, self.processes)
        lr = self.rate(self.step - 1)
        loss = float(np.sum(self.recent) / len(self.recent))
        entry = {"step": self.step, "epoch": self.epoch, "loss": loss, "lr": lr}
        self.history.append({**entry, "figures": figures})
        for name, f in figures.items():
            say(f"epoch {self.epoch:.1f} step {self.step} loss {loss:.4f} | {name} {summary(f)}")
        if log:
            for name, f in figures.items():
                for key in ("iou", "niou", "pd", "fa"):
                    if f[key] is not None:
                        log.scalar(f"{name}/{key}", f[key], self.step)
            view = pictures(self.kept, self.test[0], amp)
            log.image(f"{self.args.dataset[0]}/image, mask, prediction", view, self.step)
        iou = float(np.mean([f["iou"] for f in figures.values()]))
        if self.args.select == "test" and iou > self.best and not self.processes.rank:
            self.best = iou
            best = {"state_dict": self.kept.state_dict(), "info": self.info("the test list")}
            save_checkpoint(best, self.folder / "best.pt")
        self.model.train()

    def run(self, interruption: Interruption, log: EventLog | None, say) -> None:
        """Trains until the last step or an interruption, which is saved."""
        network = torch.compile(self.model) if self.args.compile else self.model
        if self.processes.world > 1:
            ids = [self.processes.device] if self.processes.device.type == "cuda" else None
            network = DistributedDataParallel(network, device_ids=ids)
        self.model.train()
        bar = progress((), "training", self.steps * self.args.batch_size)
        bar.update(self.step * self.args.batch_size)
        bar.unpause()
        saved = time.monotonic()
        started = saved - self.seconds
        for batch in self.batches():
            values = self.train_step(network, batch)
            self.recent = [*self.recent[-49:], list(values.values())]
            lr = self.optimizer.param_groups[0]["lr"]
            bar.set_postfix(loss=f"{sum(values.values()):.3f}", lr=f"{lr:.1e}", refresh=False)
            bar.update(self.args.batch_size)
            if log:
                for name, value in values.items():
                    log.scalar(f"loss/{name}", value, self.step)
                log.scalar("lr", self.optimizer.param_groups[0]["lr"], self.step)
            if self.monitor and self.monitor.due(self.step, self.steps):
                self.look(log, say)
            if self.evaluation_due():
                self.evaluate(log, say)
            stop = self.processes.any(interruption.check()) and self.step < self.steps
            due = time.monotonic() - saved > 60 * self.args.save_every
            if stop or due or self.step == self.steps:
                self.seconds = time.monotonic() - started
                if log:
                    log.flush()  # all that comes before a checkpoint is on disk
                self.save()
                saved = time.monotonic()
            if stop:
                break
        bar.close()


def trained(
    args: argparse.Namespace, processes: Processes, checkpoint: dict | None, folder: Path
) -> int:
    """Sets a run up, or takes it up again, and trains; returns the exit code."""
    if args.batch_size % processes.world:
        raise DataError(
            f"--batch-size: found {args.batch_size}, expected a multiple of {processes.world}"
        )
    with contextlib.ExitStack() as stack:
        if processes.rank:  # one process speaks for all
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        data = open_datasets(args)
        for one in data:
            one.hold_out(args.hold_out)
        train, test = read_lists(data, args)
        if processes.rank == 0:
            for one in data:
                print(decouple_dataset(one, args.maps_root, args.labels, args.mask_threshold))
        processes.barrier()
        for one, frames in zip(data, train):
            frames.add_maps(maps_folder(one, args.maps_root))
        if checkpoint:
            model = iSmallNet(args.width, args.variant)
        else:
            model = first_weights(args.width, args.variant, args.seed, args.prior, train, args.init)
        training = Training(args, processes, model, train, test, folder)
        if checkpoint:
            training.restore(checkpoint)
            if training.step >= training.steps:
                print(f"{folder}: finished already, {training.steps} steps")
                return 0
        log = text = None
        if processes.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
            config = {"args": vars(args), "environment": training.environment}
            write_json(folder / "config.json", config)
            text = stack.enter_context(open(folder / "log.txt", "a"))
            # What a killed run logged beyond its checkpoint is logged again.
            log = EventLog(folder, training.step + 1)
            stack.callback(log.close)

        def say(line: str) -> None:
            tqdm.write(line)  # above the bar
            if text:
                print(datetime.datetime.now().isoformat(" ", "seconds"), line, file=text, flush=True)

        if args.batch_size > len(training.samples):
            say(f"note: --batch-size {args.batch_size} is more than all {len(training.samples)} images")
        start = "resumed at" if checkpoint else "from"
        say(f"run {folder}: {start} step {training.step} of {training.steps}")
        say(f"arguments: {json.dumps(vars(args))}")
        say(f"environment: {json.dumps(training.environment)}")
        interruption = stack.enter_context(Interruption(args.max_minutes, processes.world))
        training.run(interruption, log, say)
        if processes.rank == 0:
            metrics = {"final": {}, "selected_on": "nothing", "history": training.history}
            if training.step == training.steps:
                metrics["final"] = training.history[-1]["figures"]
            write_json(folder / "metrics.json", metrics)
        if training.step < training.steps:
            why = interruption.reason or "another process"
            say(
                f"stopped by {why} after step {training.step}, saved. Go on with: python train.py "
                f"--dataset {' '.join(args.dataset)} --resume {folder}"
            )
            return interruption.code
        say(
            f"weights: {folder / 'last.pt'} (last {'EMA ' if args.ema else ''}weights, no epoch chosen)"
        )
        if args.select == "test":
            best = f"chosen on the test list: IoU {100 * training.best:.2f}"
            say(f"weights: {folder / 'best.pt'} ({best})")
    return 0


@command("the last checkpoint is kept; continue with --resume", several=True)
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    checkpoint = None
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" and args.run_name:
        # torchrun --max-restarts starts all processes again after one died: from the last checkpoint
        kept = Path(args.runs) / "+".join(args.dataset) / args.run_name / "last.pt"
        args.resume = args.resume or ("newest" if kept.is_file() else None)
    if args.resume:
        path = find_run(args)
        folder = path.parent
        args, checkpoint = resume(argv, path)
    else:
        name = args.run_name or datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = Path(args.runs) / "+".join(args.dataset) / name
        if (folder / "last.pt").exists():
            raise DataError(
                f"{folder}: there is a run here; continue it: --resume, or name another --run-name"
            )
    if args.deterministic:
        deterministic()
    processes = Processes(args.device)
    try:
        return trained(args, processes, checkpoint, folder)
    except RuntimeError as error:
        if processes.world > 1 and "peer" in str(error):  # gloo's words
            raise TrainingError(
                f"another process has ended ({str(error).splitlines()[0]}). Go on from "
                f"{folder}/last.pt with --resume; torchrun --max-restarts N does it by itself"
            ) from error
        raise
    finally:
        processes.close()


if __name__ == "__main__":
    sys.exit(main())
