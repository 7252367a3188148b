"""Targets in frames of any size and depth."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ismallnet.distributed import pick_device
from ismallnet.images import to_units, value_limits
from ismallnet.inference import predict, predict_frame, prepared
from ismallnet.metrics import local_snr, quantise, ring
from ismallnet.weights import SHIPPED
from net import iSmallNet, load_weights

RING = 8  # px around a target that its local SNR looks at


@dataclass(frozen=True)
class Target:
    """One target; x to the right and y down, px, (0, 0) the centre of the first pixel.

    Args:
        x, y: centroid, weighted with the probabilities.
        box: (left, top, width, height), px.
        area: px.
        score: the highest probability in it, 0-1.
        mean: the mean probability.
        snr: local SNR (metrics.py); None where the frame has no pixels around the target, or they
            are all alike, or not all are numbers.
        pixels: (n, 2) y, x of its pixels.
    """

    x: float
    y: float
    box: tuple[int, int, int, int]
    area: int
    score: float
    mean: float
    snr: float | None
    pixels: np.ndarray


def find_targets(
    probability: np.ndarray,
    frame: np.ndarray,
    threshold: float = 0.5,
    min_area: int = 1,
    max_targets: int = 100,
) -> list[Target]:
    """The 8-connected components at or above the threshold, of the map as it is saved (8 bits).

    Args:
        probability: HxW in [0, 1].
        frame: HxW or HxWxC, of any depth, for the SNR.

    Returns:
        At most `max_targets`, those with the highest score first; equal ones from the top left.
    """
    above = (quantise(probability) >= max(1, math.ceil(255 * threshold))).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    targets = []
    for k in range(1, count):
        left, top, width, height, area = (int(n) for n in boxes[k])
        if area < min_area:
            continue
        y, x = np.nonzero(labels[top : top + height, left : left + width] == k)
        y, x = y + top, x + left
        p = probability[y, x].astype(np.float64)
        targets.append(
            Target(
                x=float(p @ x / p.sum()),
                y=float(p @ y / p.sum()),
                box=(left, top, width, height),
                area=area,
                score=float(p.max()),
                mean=float(p.mean()),
                snr=snr_of(frame, y, x),
                pixels=np.stack([y, x], axis=1),
            )
        )
    return sorted(targets, key=lambda t: (-t.score, t.y, t.x))[:max_targets]


def snr_of(frame: np.ndarray, y: np.ndarray, x: np.ndarray) -> float | None:
    """Local SNR of the target at pixels (y, x) of a frame, in its own grey values."""
    top, left = max(y.min() - RING, 0), max(x.min() - RING, 0)
    cut = frame[top : y.max() + RING + 1, left : x.max() + RING + 1].astype(np.float64)
    cut = cut.mean(axis=2) if cut.ndim == 3 else cut
    mask = np.zeros(cut.shape, np.uint8)
    mask[y - top, x - left] = 1
    snr = local_snr(cut, mask) if ring(mask).any() else math.nan
    return snr if math.isfinite(snr) else None


@dataclass(frozen=True)
class DetectionSettings:
    """How frames are read and what counts as a target.

    Args:
        threshold: least probability of a target's pixels, above 0, at most 1.
        min_area: px; smaller targets are dropped.
        max_targets: a frame; those with the highest scores are kept.
        limits: values that become 0 and 255 in frames of more than 8 bits; by default
        percentiles: of each frame's own values.
        tile, overlap: px; frames larger than a tile are run in overlapping tiles.
        amp: mixed precision, as in `inference.autocast`.
        flips: the mean over a frame and its three mirror images.
    """

    threshold: float = 0.5
    min_area: int = 1
    max_targets: int = 100
    limits: tuple[float, float] | None = None
    percentiles: tuple[float, float] = (0, 100)
    tile: int = 512
    overlap: int = 64
    amp: str = "auto"
    flips: bool = False


class Detector:
    """A network and its settings, for frames one at a time.

    Args:
        model: in evaluation mode, on the device it is to run on.
        settings: by default those of DetectionSettings.
        changes: single settings by name, in place of those.
    """

    def __init__(self, model: iSmallNet, settings: DetectionSettings | None = None, **changes):
        self.model = model
        self.settings = replace(settings or DetectionSettings(), **changes)

    @classmethod
    def from_weights(
        cls, path: str | Path | None = None, device: str = "auto", **settings
    ) -> "Detector":
        """A detector with the weights of a file, those that come with the repository by default.

        Raises:
            WeightsError: unreadable, or not this network's.
            DataError: there is no such device.
        """
        model = load_weights(path or SHIPPED / "joint.safetensors")
        return cls(prepared(model, pick_device(device)), **settings)

    def probability(self, frame: np.ndarray) -> np.ndarray:
        """HxW float32 probabilities of a frame, HxW or HxWx3 of any depth.

        Raises:
            ValueError: not an image, or empty.
        """
        frame = np.asarray(frame)
        if frame.ndim not in (2, 3) or 0 in frame.shape or (frame.ndim == 3 and frame.shape[2] != 3):
            raise ValueError(f"frame: found shape {frame.shape}, expected (H, W) or (H, W, 3)")
        if frame.dtype.kind not in "uif":
            raise ValueError(f"frame: found {frame.dtype}, expected integers or floats")
        s = self.settings
        return predict_frame(
            self.model, frame, self.limits_of(frame), s.tile, s.overlap, s.amp, s.flips
        )

    def limits_of(self, frame: np.ndarray) -> tuple[float, float] | None:
        """The values of a frame that become 0 and 255; None for 8 bits."""
        if frame.dtype == np.uint8:
            return None
        return self.settings.limits or value_limits(frame, self.settings.percentiles)

    def probabilities(self, frames: list[np.ndarray]) -> list[np.ndarray]:
        """`probability` of frames of one shape, as one batch where they fit in a tile."""
        if len(frames) == 1 or max(frames[0].shape[:2]) > self.settings.tile:
            return [self.probability(frame) for frame in frames]
        images = [to_units(frame, self.limits_of(frame)) for frame in frames]
        return predict(self.model, images, self.settings.amp, flips=self.settings.flips)

    def detect(self, frame: np.ndarray) -> list[Target]:
        """The targets of a frame (as `probability` takes it), the highest score first."""
        return self.targets(self.probability(frame), np.asarray(frame))

    def targets(self, probability: np.ndarray, frame: np.ndarray) -> list[Target]:
        """The targets in a map of `probability`."""
        s = self.settings
        return find_targets(probability, frame, s.threshold, s.min_area, s.max_targets)
