"""Training: a data set -> weights.

    python train.py --dataset NUDT-SIRST
    torchrun --nproc-per-node 4 train.py --dataset NUDT-SIRST

Everything of a run is in runs/NAME/RUN/: config.json, log.txt, metrics.json, TensorBoard events and
last.pt, the exponential moving average of the weights with all that `--resume` needs. The test list
is only watched; `--select test` keeps its best epoch as well (best.pt), and marks it as such. With
`--hold-out` every Nth training image takes the test list's place, and the files say so.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import shlex
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dataset import Frames, fingerprint, read_lists
from ismallnet.arguments import grey_range, open_datasets
from ismallnet.cli import DataError, command, progress
from ismallnet.datasets.checks import mirrors_for, offset_note
from ismallnet.datasets.sample import DatasetFolder, Item
from ismallnet.distributed import (
    Interruption,
    Processes,
    deterministic,
    environment,
    run_script,
)
from ismallnet.evaluation.map_files import HELD_OUT, TEST_LIST
from ismallnet.images.grey import GreyRange
from ismallnet.inference.predict import precision
from ismallnet.inference.weights import merged
from ismallnet.labels import decouple_dataset, maps_folder
from ismallnet.training.augmentation import TrainingSet, batches
from ismallnet.training.distillation import Teacher
from ismallnet.training.graphs import steps_of
from ismallnet.training.leaks import copies_note, seen_note
from ismallnet.training.monitor import Monitor
from ismallnet.training.options import find_run, parse, resume
from ismallnet.training.recipes import (
    MovingAverage,
    StepOptions,
    first_weights,
    learning_rate,
    make_optimizer,
)
from ismallnet.training.run import Run, State, claim, lock
from ismallnet.training.watch import Watch
from net import iSmallNet

SAMPLES = ("batch_size", "seed", "augment", "crop", "target_share", "scale_jitter", "brightness")
SAMPLES += ("contrast", "last_crop", "balance", "clutter_share")  # arguments of TrainingSet


# --- the loop ------------------------------------------------------------------------------------


def train(
    state: State,
    items: Iterable[Item],
    options: StepOptions,
    watch: Watch,
    run: Run,
    processes: Processes,
    interruption: Interruption,
) -> None:
    """Trains until the last step or an interruption, which is saved. One step sees `batch_size`
    samples of an endless sequence; an epoch is as many samples as the training list has."""
    take = steps_of(
        state,
        options,
        processes,
        watch.samples.augment == "authors",
        lambda what, value: watch.check_finite(what, value, state, run),
    )
    started = time.monotonic() - state.seconds
    bar = progress((), "training", state.steps * watch.batch_size)
    bar.update(state.step * watch.batch_size)
    bar.unpause()
    state.model.train()
    for batch in items:
        lr = options.rate(state.step)
        values = take(batch)
        state.step += 1

        state.recent = [*state.recent[-49:], list(values.values())]
        run.scalars({f"loss/{name}": value for name, value in values.items()} | {"lr": lr}, state.step)
        bar.set_postfix(loss=f"{sum(values.values()):.3f}", lr=f"{lr:.1e}", refresh=False)
        bar.update(watch.batch_size)
        if watch.look_due(state):
            watch.look(state, run)
        if watch.evaluation_due(state):
            watch.evaluate(state, run, lr)
        stop = processes.any(interruption.check()) and not state.finished
        if stop or state.finished or run.save_due():
            state.seconds = time.monotonic() - started
            run.save(state)
        if stop:
            break
    bar.close()


# --- what it is made of ------------------------------------------------------------------------------


def read_data(
    data: list[DatasetFolder],
    threshold: int,
    grey: GreyRange,
    maps_root: str | None,
    method: str,
    processes: Processes,
) -> tuple[list[Frames], list[Frames]]:
    """The frames of all training lists, with label maps, and of all test lists."""
    train, test = read_lists(data, threshold, grey)
    if processes.rank == 0:
        for one in data:
            print(decouple_dataset(one, maps_root, method, threshold))
    processes.barrier()
    for one, frames in zip(data, train):
        frames.add_maps(maps_folder(one, maps_root))
    return train, test


def digests(train: list[Frames], test: list[Frames], teacher: Teacher | None) -> dict[str, str]:
    """What a run that is resumed must find as it was: the training list, and all files' contents."""
    names = "\n".join(sample.name for frames in train for sample in frames.samples)
    found = {"teacher": teacher.info["sha256"]} if teacher else {}
    return found | {
        "list": hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest(),
        "contents": fingerprint([*train, *test]),
    }


def new_state(
    model: iSmallNet,
    steps: int,
    optimizer: str,
    lr: float,
    weight_decay: float,
    ema: float,
    amp: str,
    processes: Processes,
) -> State:
    """A network with what its training needs, on the device."""
    device = processes.device
    if device.type == "cuda" and processes.world > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model = model.to(device, memory_format=torch.channels_last)
    fp16 = device.type == "cuda" and precision(device, amp) == torch.float16
    return State(
        model,
        make_optimizer(model, optimizer, lr, weight_decay),
        MovingAverage(model, ema) if ema else None,
        torch.amp.GradScaler(device.type, enabled=fp16),
        steps,
    )


def session(
    args: argparse.Namespace, checkpoint: dict | None, folder: Path, processes: Processes
) -> int:
    """Sets a run up, or continues it, and trains; returns the exit code. What the command line said
    goes no further than here."""
    data = processes.first(lambda: open_datasets(args))
    for one in data:
        one.hold_out(args.hold_out)
    options = (args.mask_threshold, grey_range(args), args.maps_root, args.labels)
    lists, tested = read_data(data, *options, processes)
    if not any(len(centres) for frames in lists for centres in frames.centres):
        raise DataError(
            f"{', '.join(args.dataset)}: no training mask holds a target pixel, so there is nothing to "
            "learn; look at the masks, or type another --mask-threshold"
        )
    if (len(data) > 1 or args.hold_out) and (text := copies_note(lists, tested)):
        print(text)  # of one data set its own lists are looked at when it is opened
    mirrors = []  # one for each data set
    for one, frames in zip(data, lists):
        found = np.concatenate(frames.offsets)
        mirrors.append(mirrors_for(found) if args.mirror == "auto" else args.mirror)
        if text := offset_note(one.name, found, mirrors[-1]):
            print(text)
    steps = math.ceil(args.epochs * sum(map(len, lists)) / args.batch_size)
    last_from = round((1 - args.last_share) * steps) * args.batch_size if args.last_crop else math.inf
    options = {key: getattr(args, key) for key in SAMPLES}
    samples = TrainingSet(lists, last_from=last_from, mirrors=mirrors, **options)
    if checkpoint:
        model = iSmallNet(args.width, args.variant)
    else:
        model = first_weights(args.width, args.variant, args.seed, args.prior, lists, args.init)
    options = (args.optimizer, args.lr, args.weight_decay, args.ema, args.amp)
    state = new_state(model, steps, *options, processes)
    teacher = Teacher(args.distill, processes.device, args.amp) if args.distill else None
    others = [("--init", args.init, model.info)] if args.init and not checkpoint else []
    taught = [teacher.model.info] if teacher else []
    others += [("--distill", args.distill, info) for info in taught]
    tests = {one.name: [sample.name for sample in one.samples("test")] for one in data}
    for other in others:
        if text := seen_note(*other, tests, args.hold_out):
            print(text)
    figures_on = HELD_OUT.format(args.hold_out) if args.hold_out else TEST_LIST
    about = {
        "images": len(samples),
        "figures_on": figures_on,
        "environment": environment(processes.device),
    }
    about |= {key: getattr(args, key) for key in ("dataset", "recipe", "width", "variant", "seed")}
    about |= {"args": vars(args)} | ({"teacher": teacher.info} if teacher else {})
    learned = {one.name: [sample.name for sample in one.samples("train")] for one in data}
    before = [checkpoint["info"]] if checkpoint and "seen" in checkpoint["info"] else []
    before = before or ([model.info] if args.init else []) + taught
    if all("seen" in info for info in before):  # else nobody knows all
        about["seen"] = merged(learned, *(info["seen"] for info in before))
    run = Run(folder, about, digests(lists, tested, teacher), args.save_every, processes.rank == 0)
    if checkpoint:
        run.check_data(checkpoint["training"])
        state.restore(checkpoint, str(run.last))
        if state.finished:
            if not (folder / "metrics.json").exists():  # killed just after the last checkpoint
                run.write_metrics(state)
            print(f"{folder}: finished already, {steps} steps")
            return 0
    monitor = None if processes.rank else Monitor(lists, args.crop, args.seed)
    amp = "off" if args.amp == "off" else "auto"  # as test.py would, on the CPU without bf16
    evaluations = (dict(zip(args.dataset, tested)), figures_on, args.eval_every, args.select == "test")
    watch = Watch(samples, monitor, *evaluations, amp, processes)
    schedule = {"steps": steps, "lr": args.lr, "schedule": args.schedule, "warmup": args.warmup}
    rate = partial(learning_rate, **schedule)
    ways = (args.amp, args.compile, not args.no_graphs)
    with run.session(state.step), Interruption(args.max_minutes, processes.world) as interruption:
        if args.batch_size > len(samples):
            run.say(f"note: --batch-size {args.batch_size} is more than all {len(samples)} images")
        start = "resumed at" if checkpoint else "from"
        run.say(f"run {folder}: {start} step {state.step} of {steps}")
        run.say(f"arguments: {json.dumps(vars(args))}")
        run.say(f"environment: {json.dumps(about['environment'])}")
        train(
            state,
            batches(samples, range(state.step, steps), processes, args.workers),
            StepOptions(rate, args.loss, args.clip, *ways, teacher),
            watch,
            run,
            processes,
            interruption,
        )
        run.write_metrics(state)
        finish(run, state, interruption.reason)
    return 0 if state.finished else interruption.code


def finish(run: Run, state: State, reason: str) -> None:
    """Says where the weights are, or how to continue after an interruption."""
    if not state.finished:
        names = shlex.join(run.about["dataset"])
        run.say(
            f"stopped by {reason or 'another process'} after step {state.step}, saved. Continue with: "
            f"python train.py --dataset {names} --resume {shlex.quote(str(run.folder))}"
        )
        return
    average = "EMA " if state.ema else ""
    run.say(f"weights: {run.last} (last {average}weights, no epoch chosen)")
    if run.about["args"]["select"] == "test":
        best = f"chosen on {run.about['figures_on']}: IoU {100 * state.best:.2f}"
        run.say(f"weights: {run.folder / 'best.pt'} ({best})")


@command("if a checkpoint was saved, continue with --resume", several=True)
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    runs, checkpoint = Path(args.runs) / "+".join(args.dataset), None
    first = os.environ.get("RANK", "0") == "0"  # of several processes one writes and speaks
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if restarted and args.run_name and (runs / args.run_name / "last.pt").is_file():
        args.resume = args.resume or "newest"  # torchrun --max-restarts: from the last checkpoint
    with contextlib.ExitStack() as stack:
        folder = runs
        if not first:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        if args.resume is not None:
            path = find_run(args)
            folder = path.parent
            if first:
                stack.enter_context(lock(folder))
            args, checkpoint = resume(argv, path)
        elif first:
            folder = stack.enter_context(claim(runs, args.run_name))
        if args.deterministic:
            deterministic()
        processes = stack.enter_context(Processes(args.device))
        if args.batch_size % processes.world:
            raise DataError(
                f"--batch-size: found {args.batch_size}, expected a multiple of {processes.world}"
            )
        folder = processes.gather([folder])[0]  # the first one's
        return session(args, checkpoint, folder, processes)


if __name__ == "__main__":
    run_script(main)
