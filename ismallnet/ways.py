"""The ways to run the network that benchmark.py compares."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch

from ismallnet.cli import DataError
from ismallnet.datasets.sample import Item
from ismallnet.evaluation.metrics import count_standard, quantise
from ismallnet.inference.onnx import open_network
from ismallnet.inference.predict import autocast, prepared
from ismallnet.plain import plain
from net import iSmallNet, load_weights, pad_to_multiple

Way = Callable[[torch.Tensor], torch.Tensor]  # normalised images (N, 3, H, W) -> mask logits


def ways_of(model: iSmallNet, path: Path, files: Iterable[str], device: torch.device) -> dict[str, Way]:
    """The ways to run a network: by name, a function of normalised images that gives mask logits.
    "plain" runs the network as it is.

    Args:
        model: of the weights file `path`, on the device.
        files: ONNX files of the same weights, for the other backends (CPU).

    Raises:
        DataError: a file was made from other weights.
        WeightsError: a file that cannot be used.
    """
    fast = prepared(load_weights(path), device)

    def run(amp: str, x: torch.Tensor) -> torch.Tensor:
        with autocast(device, amp):
            return fast(x.contiguous(memory_format=torch.channels_last)).mask

    as_it_is = partial(plain, model) if model.variant == "full" else model
    ways = {"plain": lambda x: as_it_is(x).mask, "default": partial(run, "off")}
    ways["bf16"] = partial(run, "bf16")
    for file in files:
        for backend, amp in (("onnxruntime", "off"), ("openvino", "off"), ("openvino", "bf16")):
            try:
                exported = open_network(file, backend, amp=amp)
            except DataError as error:  # an optional package is missing, or bf16
                print(f"left out: {error}")
                continue
            if exported.info != model.info:
                raise DataError(f"{file}: made from other weights than {path}; export it from these")
            name = f"{backend}, {Path(file).stem}" + (", bf16" if amp == "bf16" else "")
            ways[name] = exported.mask_logits
    return ways


def counts_of(network: iSmallNet, way: Way, item: Item) -> dict[str, int]:
    """What one image adds to the standard figures; `network` normalises it, `way` runs it."""
    height, width = item.mask.shape
    image = torch.from_numpy(item.image.transpose(2, 0, 1).copy())[None].to(network.mean.device)
    logits = way(pad_to_multiple(network.normalise(image)))
    logits = logits if isinstance(logits, torch.Tensor) else logits.mask
    probability = torch.sigmoid(logits.float())[0, 0, :height, :width].cpu().numpy()
    return count_standard(quantise(probability), item.mask)
