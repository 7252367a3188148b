"""Checkpoint files: written whole or not at all, read without executing anything from them."""

import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ismallnet.cli import UserError
from ismallnet.files import atomic_write

# What weights were chosen on, or their figures are of (`selected_on`, `figures_on` in a checkpoint's
# `info`).
NOTHING = "nothing"
TEST_LIST = "the test list"
HELD_OUT = "held-out training images (--hold-out {})"
# Under these names programs keep a state dict in a checkpoint.
WRAPPINGS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module")
WRAPPINGS += ("params", "weights")


class WeightsError(UserError):
    """A weights file that cannot be read, or holds another network; the message says which."""


def save_checkpoint(checkpoint: dict, path: Path) -> None:
    """Writes a checkpoint, whole or not at all; a full disk is an OSError, the old file stays."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    with atomic_write(path, sync=True) as file:
        file.write(buffer.getbuffer())


def save_weights(state: dict[str, Tensor], info: dict, path: Path) -> None:
    """Writes weights alone as safetensors: fp16, but for what has one dimension or none (biases,
    batch norm and its statistics, normalisation), which stays as it is. `info` goes into the header.
    """
    small = {k: v.half() if v.ndim > 1 else v for k, v in state.items()}
    small = {k: v.contiguous() for k, v in small.items()}  # not channels_last
    with atomic_write(path) as file:
        file.write(save(small, {"format": "pt", "info": json.dumps(info)}))


def numpy_numbers() -> list:
    """What a pickle needs for NumPy's floats and integers, which many programs leave in their
    checkpoints (a best IoU, an epoch); they are data, nothing of it can call anything else."""
    multiarray = sys.modules.get("numpy._core.multiarray") or sys.modules["numpy.core.multiarray"]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")  # NumPy 1 and 2
    types = {type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")}
    return [np.dtype, *types, *((multiarray.scalar, name) for name in names)]


def read_checkpoint(path: str | os.PathLike) -> dict:
    """Reads a checkpoint file without executing anything from it.

    Raises:
        WeightsError: no such file, not a checkpoint, or one that holds more than plain data.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"{path}: a folder, expected a weights file; runs keep theirs in last.pt")
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; train first: python train.py --help")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                info = json.loads((file.metadata() or {}).get("info", "{}"))
                names = file.keys()
                return {"state_dict": {k: file.get_tensor(k) for k in names}, "info": info}
        with torch.serialization.safe_globals(numpy_numbers()):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here, from EOFError to UnpicklingError
        lines = [*str(error).strip().splitlines(), type(error).__name__]
        # torch's own text on what it refuses ends in advice on how to run it after all.
        unsafe = any(words in str(error) for words in ("weights_only", "Weights only"))
        reason = "it is none, or holds more than tensors and plain values" if unsafe else lines[0]
        raise WeightsError(
            f"{path}: not a readable checkpoint ({reason}); expected a file written by train.py or "
            "the authors' weights. Nothing in it was executed. Name another file"
        ) from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: found a {type(found).__name__}, expected a state dict")
    return found


def unwrap(checkpoint: dict) -> dict[str, Tensor]:
    """The tensors in a checkpoint, out of the wrappings in use and without `module.`."""
    state = checkpoint
    for _ in range(4):  # one in another, at most so deep
        inner = (state[name] for name in WRAPPINGS if isinstance(state.get(name), dict))
        state = next(inner, state)
    state = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    return {re.sub(r"^(module\.|_orig_mod\.)+", "", k): v for k, v in state.items()}
