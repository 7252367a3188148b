"""Training: a data set -> weights.

    python train.py --dataset NUDT-SIRST
    torchrun --nproc-per-node 4 train.py --dataset NUDT-SIRST

Everything of a run is in runs/NAME/RUN/: config.json, log.txt, metrics.json, TensorBoard events and
last.pt, the exponential moving average of the weights with all that `--resume` needs. The test list
is only watched; `--select test` keeps its best epoch as well (best.pt), and marks it as such. With
`--hold-out` every Nth training image takes the test list's place, and the files say so.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import contextlib
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dataset import Frames, facts_of, fingerprint, mean_and_std, read_lists
from ismallnet.arguments import grey_range, open_datasets
from ismallnet.cli import DataError, command, launch, progress
from ismallnet.datasets.checks import copies_note, mirrors_for, offset_note
from ismallnet.datasets.sample import DatasetFolder, Item
from ismallnet.distributed import Interruption, Processes, deterministic, environment, run_script
from ismallnet.evaluation.map_files import HELD_OUT, TEST_LIST
from ismallnet.files import lock
from ismallnet.images.grey import GreyRange
from ismallnet.inference.own import KEPT, OwnNetwork, check_source, load_own, own_network
from ismallnet.inference.predict import autocast, precision
from ismallnet.inference.weights import merged_names
from ismallnet.labels import decouple_dataset, maps_folder, maps_lock
from ismallnet.training import options
from ismallnet.training.augmentation import TrainingSet, batches
from ismallnet.training.graphs import GraphedStep, can_be_captured
from ismallnet.training.recipes import MovingAverage, learning_rate, make_optimizer
from ismallnet.training.run import Run, State, claim
from ismallnet.training.watch import Watch, seen_note, training_crops
from net import LOSSES, VARIANTS, WIDTH, Outputs, iSmallNet, load_weights, losses

SAMPLES = ("batch_size", "seed", "augment", "crop", "target_share", "scale_jitter", "brightness")
SAMPLES += ("contrast", "last_crop", "balance", "clutter_share", "sensor_share")  # of TrainingSet

build_parser = partial(options.build_parser, VARIANTS, LOSSES, WIDTH)


# --- the loop ------------------------------------------------------------------------------------


def step(
    state: State,
    network: nn.Module,
    processes: Processes,
    batch: Iterable[Tensor],
    rate: float | Tensor,
    weight: float | Tensor,
    check: Callable[[dict[str, Tensor], Tensor], dict],
    *,
    loss_of: Callable,
    clip: float,
    amp: str,
) -> dict:
    """One step: a batch -> its losses, and weights that are a little better.

    Args:
        network: the state's model, or of several processes.
        batch: an `Item` of (N, 3, S, S) images in 0-255 units and (N, 1, S, S) maps in [0, 1].
        rate, weight: the learning rate, and the network's share in the moving average; tensors in a
            CUDA graph.
        check: makes numbers of the losses and the gradient's norm, and raises where one is not finite.
        loss_of: as net.losses.
        clip: the largest gradient norm; 0: any.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    image, mask, interior, boundary = (x.to(processes.device, non_blocking=True) for x in batch)
    image = state.model.normalise(image).contiguous(memory_format=torch.channels_last)
    with processes.collective(), autocast(processes.device, amp):
        outputs = network(image)
    parts = loss_of(outputs, Outputs(interior, boundary, mask))
    state.optimizer.zero_grad(set_to_none=True)
    with processes.collective():
        state.scaler.scale(sum(parts.values())).backward()
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), clip or math.inf)
    values = check({name: value.detach() for name, value in parts.items()}, norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.ema:
        state.ema.update(state.model, weight)
    return values


def train(
    watch: Watch,
    items: Iterable[Item],
    rate_of: Callable,
    take_step: Callable,
    interruption: Interruption,
) -> None:
    """Trains until the last step or an interruption, which is saved. One step sees `batch_size`
    samples of an endless sequence; an epoch is as many samples as the training list has.

    Args:
        rate_of: a step, counted from 0 -> its learning rate.
        take_step: `step`, or its replay as a CUDA graph.
    """
    state, run, size = watch.state, watch.run, watch.samples.batch_size
    began, before = time.monotonic(), state.seconds
    bar = progress((), "training", state.steps * size, initial=state.step * size)
    state.model.train()
    for batch in items:
        rate = rate_of(state.step)
        weight = state.ema.next_weight() if state.ema else 0.0
        values = take_step(batch, rate, weight, watch.check)
        state.step += 1

        state.recent = [*state.recent[-49:], list(values.values())]
        run.scalars({f"loss/{name}": v for name, v in values.items()} | {"lr": rate}, state.step)
        bar.set_postfix(loss=f"{sum(values.values()):.3f}", lr=f"{rate:.1e}", refresh=False)
        bar.update(size)
        watch.look()
        watch.evaluate(rate)
        stop = watch.processes.any(interruption.check()) and not state.finished
        if stop or state.finished or run.save_due():
            state.seconds = before + time.monotonic() - began
            run.save(state)
        if stop:
            break
    bar.close()


# --- what it is made of ----------------------------------------------------------------------------


def read_data(
    data: list[DatasetFolder],
    threshold: int,
    grey: GreyRange,
    maps_root: str | None,
    method: str,
    processes: Processes,
) -> tuple[list[Frames], list[Frames]]:
    """The frames of the data sets' training lists, with label maps, and of their test lists.

    Args:
        threshold: mask values from here up are target.
        maps_root, method: where the label maps are, and how those are made that are not there yet.

    Raises:
        DataError: files that cannot be used, or no target at all.
    """
    learned, tested = read_lists(data, threshold, grey)
    making = [] if processes.rank else data  # the first process makes the maps
    with maps_lock(making, maps_root):
        for folder, *lists in zip(making, learned, tested):
            shapes = {sample.name: facts.shape for sample, facts in facts_of(lists)}
            print(decouple_dataset(folder, maps_root, method, threshold, shapes=shapes))
        processes.barrier()
        for folder, frames in zip(data, learned):
            frames.add_maps(maps_folder(folder, maps_root), method)
        processes.barrier()
    if not any(len(centres) for frames in learned for centres in frames.centres):
        raise DataError(
            f"{', '.join(folder.name for folder in data)}: no training mask holds a target pixel, so "
            "there is nothing to learn; look at the masks, or type another --mask-threshold"
        )
    files = ({s: facts.digest for s, facts in facts_of(lists)} for lists in (learned, tested))
    if text := copies_note(*files):
        print(text)
    return learned, tested


def settle_mirrors(data: list[DatasetFolder], learned: list[Frames], wanted: str) -> list[str]:
    """How each data set's crops are mirrored, for --mirror; says where masks lie beside targets."""
    mirrors = []
    for folder, frames in zip(data, learned):
        offsets = np.concatenate([frame.offsets for frame in frames.known])
        mirrors.append(mirrors_for(offsets) if wanted == "auto" else wanted)
        if text := offset_note(folder.name, offsets, mirrors[-1]):
            print(text)
    return mirrors


def digests(learned: list[Frames], tested: list[Frames]) -> dict[str, str]:
    """What a run that is resumed must find as it was: the training list, and all files' contents."""
    names = "\n".join(sample.name for frames in learned for sample in frames.samples)
    return {
        "list": hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest(),
        "contents": fingerprint([*learned, *tested]),
    }


def names_of(data: list[DatasetFolder], kind: str) -> dict[str, list[str]]:
    return {folder.name: [sample.name for sample in folder.samples(kind)] for folder in data}


def initialise(model: iSmallNet | OwnNetwork, prior: float, lists: list[Frames]) -> None:
    """Gives a new network the normalisation of its training images, and `prior` as the probability
    that its outputs give at first."""
    mean, std = mean_and_std(lists)
    model.mean.copy_(torch.tensor(mean))
    model.std.copy_(torch.tensor(std))
    for name, layer in model.named_modules():
        if name in ("interior_head", "boundary_head", "mask_head.3"):
            nn.init.constant_(layer.bias, math.log(prior / (1 - prior)))


def make_samples(
    args: argparse.Namespace, data: list[DatasetFolder], learned: list[Frames], steps: int
) -> TrainingSet:
    """The samples of a training of so many steps; the last ones may be larger."""
    last_from = round((1 - args.last_share) * steps) * args.batch_size if args.last_crop else math.inf
    chosen = {key: getattr(args, key) for key in SAMPLES} | {"last_from": last_from}
    return TrainingSet(learned, mirrors=settle_mirrors(data, learned, args.mirror), **chosen)


def make_network(
    args: argparse.Namespace, info: dict | None, data: list[DatasetFolder], learned: list[Frames]
) -> tuple[iSmallNet | OwnNetwork, dict]:
    """The network that a training begins with, and the names of all images that its weights learn
    from, {"seen": …}: {} where those of --init do not say theirs.

    Args:
        info: that of the checkpoint that will be restored; its weights need no values here.

    Raises:
        DataError: --init has another variant, or --network is none.
        WeightsError: --init cannot be read, or holds another width.
    """
    torch.manual_seed(args.seed)
    init = None if info else args.init
    if args.network:
        model = load_own(init, args.network) if init else own_network(args.network)
        if info:
            check_source(f"--network {args.network}", info, model)
    else:
        model = load_weights(init, args.width) if init else iSmallNet(args.width, args.variant)
        if model.variant != args.variant:
            text = f"found variant {model.variant}, expected {args.variant}"
            raise DataError(f"--init {init}: {text}; type --variant {model.variant}")
    if not (info or init):
        initialise(model, args.prior, learned)
    before = info or (model.info if init else {"seen": {}})
    if init and (text := seen_note(init, before, names_of(data, "test"), args.hold_out)):
        print(text)
    names = names_of(data, "train")
    return model, {"seen": merged_names(names, before["seen"])} if "seen" in before else {}


def make_state(args: argparse.Namespace, model: iSmallNet | OwnNetwork, steps: int) -> State:
    """The state of a training before its first step, of a network on its device."""
    device = model.mean.device
    optimizer = make_optimizer(model, args.optimizer, args.lr, args.weight_decay)
    average = MovingAverage(model, args.ema) if args.ema else None
    fp16 = device.type == "cuda" and precision(device, args.amp) == torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=fp16)
    return State(model, optimizer, average, scaler, steps, model.info)


def make_step(args: argparse.Namespace, state: State, processes: Processes) -> Callable:
    """`step` of a batch, a rate, a weight and a check; on CUDA as a graph where that is possible."""
    network = processes.parallel(state.model)
    options = {"loss_of": partial(losses, loss=args.loss), "clip": args.clip, "amp": args.amp}
    take_step = partial(step, state, network, processes, **options)
    captured = can_be_captured(state, processes, varied=args.augment == "authors")
    if captured and not args.no_graphs:
        return GraphedStep(state, take_step, processes.device)
    return take_step


# --- a run -------------------------------------------------------------------------------------------


def about_run(args: argparse.Namespace, model: iSmallNet | OwnNetwork, images: int) -> dict:
    """What a run's checkpoints say of it from the first step to the last."""
    return {
        "images": images,
        "figures_on": HELD_OUT.format(args.hold_out) if args.hold_out else TEST_LIST,
        "environment": environment(model.mean.device),
        **{key: getattr(args, key) for key in ("dataset", "recipe", "seed")},
        **{key: getattr(model, key) for key in ("width", "variant")},
        **({KEPT: model.source} if args.network else {}),
        "args": vars(args),
    }


def session(
    args: argparse.Namespace, checkpoint: dict | None, folder: Path, processes: Processes
) -> int:
    """Reads the lists, sets a run up or restores it, and trains; returns the exit code."""
    data = processes.first(lambda: open_datasets(args, copies=False))
    for dataset in data:
        dataset.hold_out(args.hold_out)
    read = args.mask_threshold, grey_range(args), args.maps_root, args.labels
    learned, tested = read_data(data, *read, processes)

    steps = math.ceil(args.epochs * sum(map(len, learned)) / args.batch_size)
    samples = make_samples(args, data, learned, steps)
    model, seen = make_network(args, checkpoint and checkpoint["info"], data, learned)
    state = make_state(args, processes.place(model), steps)
    about = about_run(args, model, len(samples)) | seen
    run = Run(folder, about, digests(learned, tested), args.save_every, processes.rank == 0)
    if checkpoint:
        run.check_data(checkpoint["training"])
        state.restore(checkpoint, str(run.last))

    crops = None if processes.rank else training_crops(learned, args.crop, args.seed)
    amp = "off" if args.amp == "off" else "auto"  # as test.py would, on the CPU without bf16
    evaluations = (dict(zip(args.dataset, tested)), args.eval_every, args.select == "test", amp)
    watch = Watch(state, run, samples, crops, *evaluations, processes)
    take_step = make_step(args, state, processes)
    schedule = {"steps": steps, "lr": args.lr, "schedule": args.schedule, "warmup": args.warmup}
    rate_of = partial(learning_rate, **schedule)
    with run.opened(state), Interruption(args.max_minutes, processes.world) as interruption:
        items = batches(samples, range(state.step, steps), processes, args.workers)
        train(watch, items, rate_of, take_step, interruption)
        run.write_metrics(state)
        run.finish(state, interruption.reason)
    return 0 if state.finished else interruption.code


@contextlib.contextmanager
def open_run(argv: list[str] | None) -> Iterator[tuple[argparse.Namespace, dict | None, Path]]:
    """The arguments of a run, its checkpoint if it is resumed, and its folder; of several processes
    the first locks it and speaks."""
    args = options.parse(build_parser(), argv)
    runs, first = Path(args.runs) / "+".join(args.dataset), launch().rank == 0
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if restarted and args.run_name and (runs / args.run_name / "last.pt").is_file():
        args.resume = args.resume or "newest"  # torchrun --max-restarts: from the last checkpoint
    with contextlib.ExitStack() as stack:
        if not first:
            silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        if args.resume is None:
            yield args, None, stack.enter_context(claim(runs, args.run_name)) if first else runs
            return
        path = options.find_run(runs, args.resume, args.run_name)
        if first:
            stack.enter_context(lock(path.parent, "a training is running"))
        yield *options.resume(build_parser(), argv, path), path.parent


@command("if a checkpoint was saved, continue with --resume", several=True)
def main(argv: list[str] | None = None) -> int:
    with open_run(argv) as (args, checkpoint, folder):
        if args.deterministic:
            deterministic()
        with Processes(args.device) as processes:
            if args.batch_size % processes.world:
                raise DataError(
                    f"--batch-size: found {args.batch_size}, expected a multiple of {processes.world}"
                )
            folder = processes.gather([folder])[0]  # the first one's
            return session(args, checkpoint, folder, processes)


if __name__ == "__main__":
    run_script(main)
