"""Deterministic weights for the golden forward test, the same on every machine.

`fill(t, name, shape)` gives tensor number t of the authors' checkpoint (its place in
authors_checkpoint.json) its values. The hash is integer arithmetic, so nothing depends on a
random generator's version.
"""

import json
import math
from pathlib import Path

import numpy as np


def uniform(t, n):
    """n float64 values in [-0.5, 0.5): a multiplicative hash of (t, element index)."""
    j = np.arange(n, dtype=np.uint64)
    h = (j + np.uint64(1)) * np.uint64(2654435761) + np.uint64(t + 1) * np.uint64(40503)
    h ^= h >> np.uint64(13)
    h = (h * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    h ^= h >> np.uint64(15)
    return h.astype(np.float64) / 2**32 - 0.5


def fill(t, name, shape):
    """Values of the tensor `name` (number t) as float32; int64 zeros for num_batches_tracked."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    v = uniform(t, math.prod(shape)).reshape(shape)
    if len(shape) == 4:  # convolution: He-scaled
        v = v * math.sqrt(12) * math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith("running_var"):
        v = 1 + np.abs(v)
    elif name.endswith("running_mean") or name.endswith("bias"):
        v = 0.2 * v
    else:  # batch-norm weight
        v = 1 + 0.2 * v
    return v.astype(np.float32)


def authors_state_dict():
    """The whole checkpoint as {name: array}, in the authors' order."""
    keys = json.loads(Path(__file__).with_name("authors_checkpoint.json").read_text())
    return {name: fill(t, name, shape) for t, (name, shape) in enumerate(keys)}


def image(shape=(1, 3, 64, 80), t=10_000):
    """The test image, already normalised: (N, 3, H, W) float32, about [-2, 2]."""
    return (4 * uniform(t, math.prod(shape))).reshape(shape).astype(np.float32)
