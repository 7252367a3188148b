"""Targets in frames of any size and depth."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ismallnet.cli import DataError, progress
from ismallnet.detection.sources import Frame
from ismallnet.distributed import pick_device
from ismallnet.evaluation.metrics import components, local_snr, quantise, ring
from ismallnet.images.grey import PERCENTILES, GreyRange, Limits
from ismallnet.images.picture import decode
from ismallnet.inference.predict import AMP, OVERLAP, TILE, Network, predict, predict_frame, prepared
from ismallnet.inference.weights import default_weights, open_network

WHITE = 128  # grey value of `ignore`, from which on pixels do not count
SHARPNESS = 4  # times as far above its surroundings as its brightest neighbour is a single pixel
SCALES = 0.1, 8.0  # least and greatest
RING = 8  # px around a target that its local SNR looks at
THRESHOLDS = (*(k / 20 for k in range(1, 20)), 0.97, 0.98, 0.99, 0.995, 1.0)  # for --false-alarms


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
        polarity: "bright" or "dark", what was looked for.
    """

    x: float
    y: float
    box: tuple[int, int, int, int]
    area: int
    score: float
    mean: float
    snr: float | None
    polarity: str = "bright"


def find_targets(
    probability: np.ndarray,
    frame: np.ndarray,
    threshold: float = 0.5,
    min_area: int = 1,
    max_targets: int = 100,
    polarity: str = "bright",
    max_area: int | None = None,
) -> list[Target]:
    """The 8-connected components at or above the threshold, of the map as it is saved (8 bits).

    Args:
        probability: HxW in [0, 1].
        frame: HxW or HxWxC, of any depth, for the SNR.
        min_area, max_area: px; None: no limit.
        polarity: of the targets in the map.

    Returns:
        At most `max_targets`, those with the highest score first; equal ones from the top left.
    """
    above = quantise(probability) >= max(1, math.ceil(255 * threshold))
    targets = []
    for (rows, columns), inside in components(above).pieces():
        y, x = np.nonzero(inside)
        if not min_area <= len(y) <= (max_area or len(y)):
            continue
        height, width = inside.shape
        y, x = y + rows.start, x + columns.start
        p = probability[y, x].astype(np.float64)
        targets.append(
            Target(
                x=float(p @ x / p.sum()),
                y=float(p @ y / p.sum()),
                box=(columns.start, rows.start, width, height),
                area=len(y),
                score=float(p.max()),
                mean=float(p.mean()),
                snr=snr_of(frame, y, x),
                polarity=polarity,
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
    return float(snr) if math.isfinite(snr) else None


def spike(pixels: np.ndarray, target: Target) -> tuple[int, int] | None:
    """Where a target is a single pixel, (y, x): what a lens shows is wider than that.

    Args:
        pixels: HxW or HxWx3.
    """
    left, top, width, height = target.box
    grey = pixels[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1].astype(float)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    grey = grey if target.polarity == "bright" else -grey
    level = grey - np.median(grey)
    y, x = np.unravel_index(level.argmax(), level.shape)
    peak, level[y, x] = level[y, x], 0
    if peak <= 0 or peak < SHARPNESS * level.max():
        return None
    return int(y + max(top - 1, 0)), int(x + max(left - 1, 0))


@dataclass(frozen=True)
class DetectionSettings:
    """How frames are read and what counts as a target.

    Args:
        threshold: least probability of a target's pixels, above 0, at most 1.
        min_area, max_area: px; smaller and larger targets are dropped; None: no limit.
        max_targets: a frame; those with the highest scores are kept.
        polarity: "bright" or "dark" targets.
        limits: values that become 0 and 255 in all frames of more than 8 bits; by default
        percentiles: of each frame's own values; of dark targets counted from the bright end.
        tile, overlap: px; frames larger than a tile are run in overlapping tiles.
        amp: mixed precision, as in `inference.predict.autocast`.
        flips: the mean over a frame and its three mirror images.
        scale: the network sees frames enlarged so many times; targets are in the frames' own px.
        ignore: a picture of the frames' size, white where nothing counts.
    """

    threshold: float = 0.5
    min_area: int = 1
    max_area: int | None = None
    max_targets: int = 100
    polarity: str = "bright"
    limits: Limits | None = None
    percentiles: tuple[float, float] = PERCENTILES
    tile: int = TILE
    overlap: int = OVERLAP
    amp: str = "auto"
    flips: bool = False
    scale: float = 1.0
    ignore: str | None = None

    def __post_init__(self):
        low, high = (0, 1) if self.limits is None else self.limits
        first, last = self.percentiles
        checks = {
            "threshold": (0 < self.threshold <= 1, "above 0, at most 1"),
            "min_area": (self.min_area >= 1, "1 or more"),
            "max_area": (
                self.max_area is None or self.max_area >= self.min_area,
                f"at least min_area, {self.min_area}",
            ),
            "max_targets": (self.max_targets >= 1, "1 or more"),
            "polarity": (
                self.polarity in ("bright", "dark"),
                "bright or dark; for both run once with each",
            ),
            "limits": (-math.inf < low < high < math.inf, "two finite numbers, MIN < MAX"),
            "percentiles": (0 <= first < last <= 100, "0 <= LOW < HIGH <= 100"),
            "tile": (self.tile >= 32, "32 or more"),
            "overlap": (0 <= 2 * self.overlap <= self.tile, "0 to half a tile"),
            "amp": (self.amp in AMP, f"one of {', '.join(AMP)}"),
            "flips": (self.flips in (False, True), "False or True"),
            "scale": (SCALES[0] <= self.scale <= SCALES[1], "{} to {}".format(*SCALES)),
            "ignore": (not self.ignore or Path(self.ignore).is_file(), "a picture"),
        }
        wrong = [
            f"{name} ({flag_of(name)}): found {getattr(self, name)!r}, expected {expected}"
            for name, (usable, expected) in checks.items()
            if not usable
        ]
        if wrong:
            raise ValueError("; ".join(wrong))


def flag_of(setting: str) -> str:
    """The flag of detect.py for a setting."""
    return "--range" if setting == "limits" else f"--{setting.replace('_', '-')}"


class Detector:
    """A network and its settings, for frames one at a time.

    Args:
        model: in evaluation mode, on the device it is to run on.
        settings: by default those of DetectionSettings.
        changes: single settings by name, in place of those.

    Raises:
        ValueError: names the settings that cannot be used.
    """

    def __init__(self, model: Network, settings: DetectionSettings | None = None, **changes):
        self.model = model
        self.settings = s = replace(settings or DetectionSettings(), **changes)
        limits = None if s.limits is None else tuple(map(float, s.limits))
        self.grey = GreyRange(limits, s.percentiles, s.polarity == "dark")
        ignore = np.atleast_3d(decode(Path(s.ignore))) if s.ignore else None
        self.ignored = None if ignore is None else ignore.max(axis=2) >= WHITE

    @classmethod
    def from_weights(
        cls,
        path: str | Path | None = None,
        device: str = "auto",
        backend: str = "torch",
        **settings,
    ) -> "Detector":
        """A detector with the weights of a file, those that come with the repository by default.

        Args:
            backend: "torch"; "onnxruntime" or "openvino", optional packages, on the CPU.

        Raises:
            WeightsError: unreadable, or not this network's.
            DataError: there is no such device or package.
            ValueError: names the settings that cannot be used.
        """
        chosen = DetectionSettings(**settings)
        model = open_network(path or default_weights(), backend, amp=chosen.amp)
        return cls(prepared(model, pick_device(device)), chosen)

    def probability(self, frame: np.ndarray) -> np.ndarray:
        """HxW float32 probabilities of a frame.

        Args:
            frame: HxW or HxWx3 of any depth; pixels that are NaN do not count.

        Raises:
            ValueError: not an image, or empty.
        """
        frame = checked_frame(frame)
        return self.maps([frame], [self.limits_of(frame)])[0]

    def detect(self, frame: np.ndarray) -> list[Target]:
        """The targets of a frame (as of `probability`), the highest score first."""
        frame = checked_frame(frame)
        return self.targets(self.probability(frame), frame)

    def limits_of(self, frame: np.ndarray) -> Limits | None:
        """The values of a frame that become 0 and 255; None for 8 bits."""
        return self.grey.limits_of(checked_frame(frame))

    def maps(self, frames: list[np.ndarray], limits: list[Limits | None]) -> list[np.ndarray]:
        """HxW float32 probabilities of frames of one shape, each with its limits; as one batch where
        they fit in a tile; 0 where they are ignored."""
        s, shape = self.settings, frames[0].shape[:2]
        images = [self.grey.units(*pair) for pair in zip(frames, limits, strict=True)]
        inner = tuple(max(1, round(s.scale * side)) for side in shape)
        images = [resized(image, inner) for image in images]
        if len(images) > 1 and max(inner) <= s.tile:
            maps = predict(self.model, images, s.amp, flips=s.flips)
        else:
            options = (s.tile, s.overlap, s.amp, s.flips)
            maps = [predict_frame(self.model, image, *options) for image in images]
        maps = [resized(probability, shape) for probability in maps]
        if self.ignored is None:
            return maps
        if self.ignored.shape != shape:
            found = f"found a picture of shape {self.ignored.shape}"
            raise DataError(f"{s.ignore}: {found}, expected that of the frames, {shape}")
        return [np.where(self.ignored, 0, probability) for probability in maps]

    def targets(
        self, probability: np.ndarray, frame: np.ndarray, threshold: float | None = None
    ) -> list[Target]:
        """The targets in the probabilities of a frame; at another threshold if named."""
        s = self.settings
        least = s.threshold if threshold is None else threshold
        limits = s.min_area, s.max_targets, s.polarity, s.max_area
        return find_targets(probability, frame, least, *limits)


def resized(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """HxW or HxWx3 pixels in another shape (H, W); smaller ones are means."""
    if pixels.shape[:2] == shape:
        return pixels
    method = cv2.INTER_AREA if shape[0] < pixels.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(pixels, shape[::-1], interpolation=method)


def checked_frame(frame: np.ndarray) -> np.ndarray:
    """A frame as an array; ValueError where it is no image, or empty."""
    if isinstance(frame, np.ma.MaskedArray):
        raise ValueError("frame: found a masked array, expected frame.astype(float).filled(numpy.nan)")
    frame = np.asarray(frame)
    if frame.ndim not in (2, 3) or 0 in frame.shape or (frame.ndim == 3 and frame.shape[2] != 3):
        raise ValueError(f"frame: found shape {frame.shape}, expected (H, W) or (H, W, 3)")
    if frame.dtype.kind not in "uif":
        raise ValueError(f"frame: found {frame.dtype}, expected integers or floats")
    return frame


def threshold_for(detector: Detector, frames: Iterable[Frame], most: float, name: str) -> float:
    """The lowest of THRESHOLDS that gives at most so many false alarms a frame, as all higher ones do;
    says what it and 0.5 give.

    Raises:
        DataError: none does; a frame cannot be read, or there is none.
    """
    counts = []
    for frame in progress(frames, name, None, "frame"):
        if frame.problem:
            raise DataError(frame.problem)
        probability = detector.probability(frame.pixels)
        found = (detector.targets(probability, frame.pixels, t) for t in THRESHOLDS)
        counts.append([len(targets) for targets in found])
    if not counts:
        raise DataError(f"--background {name}: found no frame")
    rates, of = np.mean(counts, axis=0), f"on {len(counts)} frames of {name}"
    fitting = [k for k in range(len(rates)) if rates[k:].max() <= most]
    if not fitting:
        raise DataError(
            f"--false-alarms {most:g}: found {rates[-1]:.2f} a frame at the highest threshold {of}; "
            "type --ignore MASK.png for what stays in place, --confirm 3:5, or other --weights"
        )
    threshold, rate, usual = THRESHOLDS[fitting[0]], rates[fitting[0]], rates[THRESHOLDS.index(0.5)]
    print(f"--threshold {threshold:g}: {rate:.2f} false alarms a frame {of} (0.5: {usual:.2f})")
    if len(counts) * most < 3:
        print(f"note: too few frames for {most:g} a frame; {round(3 / most)} or more are better")
    return threshold
