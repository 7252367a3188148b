"""Distillation (Hinton et al., 2015): a small network learns a trained one's probabilities, beside
the masks."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from ismallnet.evaluation.map_files import NOTHING
from ismallnet.inference.predict import autocast
from ismallnet.inference.weights import named_weights
from net import load_weights


class Teacher:
    """A trained network that others learn from.

    Args:
        text: its weights file, or a run's folder.
        device: on which it runs.
        amp: mixed precision, as in `inference.precision`.

    Attributes:
        info: what the student's weights say of it: file name, digest, and what it was trained and
            selected on.

    Raises:
        WeightsError: it cannot be read.
    """

    def __init__(self, text: str, device: torch.device, amp: str):
        path = named_weights(text)
        self.model = load_weights(path).to(device, memory_format=torch.channels_last)
        self.model.requires_grad_(False)
        self.amp, self.device = amp, device
        self.info = {
            "file": path.name,
            "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
            "dataset": self.model.info.get("dataset", "unknown"),
            "selected_on": self.model.info.get("selected_on", NOTHING),
        }

    def __call__(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) in 0-255 units -> the mask's probabilities (N, 1, H, W), float32."""
        x = self.model.normalise(image).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), autocast(self.device, self.amp):
            return torch.sigmoid(self.model(x).mask.float())
