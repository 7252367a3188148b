"""The network and the detector for other programs, through PyTorch Hub:

network = torch.hub.load("PATH/TO/THIS/REPOSITORY", "ismallnet", source="local")
detector = torch.hub.load("PATH/TO/THIS/REPOSITORY", "detector", source="local")
"""

from ismallnet.detection.detector import Detector
from ismallnet.inference.weights import DEFAULT, named_weights
from net import iSmallNet, load_weights

dependencies = ["torch", "torchvision", "numpy", "scipy", "skimage", "cv2", "PIL", "safetensors"]


def ismallnet(weights: str = DEFAULT) -> iSmallNet:
    """The network in evaluation mode, on the CPU: `network(network.normalise(image))`, image
    (N, 3, H, W) in 0-255, gives interior, boundary and mask logits (N, 1, H, W).

    Args:
        weights: the name of a file in weights/, "NUDT-SIRST" for example, or any weights file.
    """
    return load_weights(named_weights(weights))


def detector(weights: str = DEFAULT, device: str = "auto", **settings) -> Detector:
    """A Detector: `detector.detect(frame)` gives the targets of a frame, HxW or HxWx3 of any depth.

    Args:
        weights: as of `ismallnet`.
        device: "auto", "cpu", "cuda", …
        settings: as of `Detector`, `threshold=0.7` for example.
    """
    return Detector.from_weights(named_weights(weights), device, **settings)
