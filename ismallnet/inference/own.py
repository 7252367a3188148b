"""A network of one's own in the place of iSmallNet: `--network FILE.py:CLASS`.

The class takes no required argument. Its `forward` maps normalised images (N, 3, H, W), sides multiples
of 32, to mask logits (N, 1, H, W), or to `Outputs` of logits. Which file a network came from is kept in
its checkpoints by name and SHA-256, and looked at when they are used again.
"""

import hashlib
import importlib.util
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from ismallnet.checkpoints import (
    AUTHORS_MEAN,
    AUTHORS_STD,
    WeightsError,
    check_tensors,
    read_checkpoint,
)
from ismallnet.cli import DataError
from ismallnet.unet import Normalised, Outputs, pad_to_multiple

KEPT = "network"  # what a checkpoint's info says of it


class OwnNetwork(Normalised):
    """A user's network with what the scripts expect of an iSmallNet: its normalisation, and `Outputs`
    for images of any size.

    Args:
        network: (N, 3, H, W) -> mask logits (N, 1, H, W), or `Outputs`.
        source: its class, file and the file's SHA-256.
    """

    width, variant = 0, "own"
    multiple = 32  # of which the network is given H and W

    def __init__(self, network: nn.Module, source: dict[str, str]):
        super().__init__(AUTHORS_MEAN, AUTHORS_STD)
        self.network, self.source = network, source

    def forward(self, image: Tensor) -> Outputs:
        height, width = image.shape[2:]
        given = self.network(pad_to_multiple(image, self.multiple))
        outputs = Outputs(None, None, given) if isinstance(given, Tensor) else Outputs(*given)
        return Outputs(*(x if x is None else x[..., :height, :width] for x in outputs))


def own_network(named: str) -> OwnNetwork:
    """A new network of FILE.py:CLASS. This runs the file, whose own errors keep their traceback.

    Raises:
        DataError: no such file or class, or it gives something else than logits.
    """
    file, _, name = named.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not path.is_file():
        raise DataError(f"--network {named}: expected FILE.py:CLASS, found no file {file!r}")
    spec = importlib.util.spec_from_file_location(f"own_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and worker processes look it up
    spec.loader.exec_module(module)
    kind = getattr(module, name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise DataError(f"--network {named}: found {kind}, expected a class of torch.nn.Module")
    source = {"class": name, "file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    model = OwnNetwork(kind(), source)
    check_outputs(model, named)
    return model


@torch.no_grad()
def check_outputs(model: OwnNetwork, named: str) -> None:
    """DataError where the network does not map an image to logits of its size."""
    example = torch.zeros(2, 3, 2 * model.multiple, 3 * model.multiple)
    expected = (len(example), 1, *example.shape[2:])
    shapes = {tuple(logits.shape) for logits in model.eval()(example) if logits is not None}
    if shapes != {expected}:
        found = " and ".join(map(str, shapes))
        raise DataError(f"--network {named}: found logits of shape {found}, expected {expected}")


def check_source(path: str | Path, info: dict, model: OwnNetwork) -> None:
    """WeightsError where they are of another network, or of a file that has changed since."""
    then, now = info.get(KEPT), model.source
    if not isinstance(then, dict):
        raise WeightsError(f"{path}: weights of an iSmallNet; leave --network out")
    texts = ["{file}:{class}, SHA-256 {sha256}".format_map(source) for source in (then, now)]
    if any(then[key] != now[key] for key in ("class", "sha256")):
        raise WeightsError(
            f"{path}: weights of {texts[0]}; found {texts[1]}. Type --network with the file as it was, "
            "or train again"
        )


def load_own(path: str | Path, named: str) -> OwnNetwork:
    """The network of FILE.py:CLASS with the weights of a checkpoint, in evaluation mode.

    Raises:
        DataError: as `own_network`.
        WeightsError: unreadable, or another network's.
    """
    model, checkpoint = own_network(named), read_checkpoint(path)
    info, state = checkpoint.get("info"), checkpoint.get("state_dict")
    check_source(path, info if isinstance(info, dict) else {}, model)
    check_tensors(path, state, model.state_dict())
    model.load_state_dict(state)
    model.info = info
    return model.eval()
