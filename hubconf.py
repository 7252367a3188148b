"""The network and the detector for other programs, through PyTorch Hub:

network = torch.hub.load("PATH/TO/THIS/REPOSITORY", "ismallnet", source="local")
detector = torch.hub.load("PATH/TO/THIS/REPOSITORY", "detector", source="local")
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from ismallnet.detection.detector import Detector
from ismallnet.inference.weights import DEFAULT, named_weights, open_network

dependencies = ["torch", "torchvision", "numpy", "scipy", "skimage", "cv2", "PIL", "safetensors"]
OWN = "ismallnet_net"  # what net.py is called here, as a program may have a `net` of its own


@contextlib.contextmanager
def own_net() -> Iterator[None]:
    """Within it `net` is this repository's; after it, what it was before."""
    if OWN not in sys.modules:
        spec = importlib.util.spec_from_file_location(OWN, Path(__file__).with_name("net.py"))
        sys.modules[OWN] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[OWN])
    before = sys.modules.get("net")
    sys.modules["net"] = sys.modules[OWN]
    try:
        yield
    finally:
        del sys.modules["net"]
        sys.modules |= {"net": before} if before else {}


@own_net()
def ismallnet(weights: str = DEFAULT) -> nn.Module:
    """The network in evaluation mode, on the CPU: `network(network.normalise(image))`, image
    (N, 3, H, W) in 0-255, gives interior, boundary and mask logits (N, 1, H, W).

    Args:
        weights: the name of a file in weights/, "NUDT-SIRST" for example, or any weights file.
    """
    return open_network(named_weights(weights))


@own_net()
def detector(weights: str = DEFAULT, device: str = "auto", **settings) -> Detector:
    """A Detector: `detector.detect(frame)` gives the targets of a frame, HxW or HxWx3 of any depth.

    Args:
        weights: as of `ismallnet`.
        device: "auto", "cpu", "cuda", …
        settings: as of `Detector`, `threshold=0.7` for example.
    """
    return Detector.from_weights(named_weights(weights), device, **settings)
