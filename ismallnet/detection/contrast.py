"""The grey values of frames of more than 8 bits: which become 0 and 255, in a sequence too, and what
makes one doubt them."""

import numpy as np

from ismallnet.cli import DataError
from ismallnet.detection.detector import POLARITIES, Detector, Limits
from ismallnet.detection.jobs import Job, Key
from ismallnet.images.grey import (
    EXTREME,
    ODD,
    eight_bit_doubts,
    few_bright_pixels,
    is_flat,
    misread,
    no_scene,
)

# --limits: each frame's own; those of the first frame of a sequence; their running mean.
MODES = ("each", "first", "running")
RUNNING = 0.1  # weight of a frame's own limits in the running mean, 1 - RUNNING that of the mean before

# What makes one doubt a frame -> what is said of all such frames at the end.
DOUBTS = {
    "bright": "in {} the brightest 0.1 % of the pixels take more than half of the grey values: "
    "targets, or hot pixels, which hide dim targets. For hot pixels type --percentiles 0.1 99.9",
    "dark": "in {} the darkest 0.1 % of the pixels take more than half of the grey values: targets, or "
    "dead pixels, which hide faint targets. For dead pixels type --percentiles 0.1 99.9",
    "edge": "in {} rows, columns, or one value alone take more than half of the grey values: a "
    "border, telemetry, burnt-in text, broken lines or saturated pixels, which hide dim targets "
    "and can be taken for targets. Type --range MIN MAX with the values of the scene, or cut them off",
    "border": "in {} the lowest value, of more than 0.1 % of the pixels, takes more than half of the "
    "grey values: a border, or no data. Type --range",
    **{key: f"{{}} {ODD[key]}" for key in ("bytes", "signed", "flag", "rows")},
    "colours": "{} are in colours. The networks have seen grey frames alone: save frames as grey, the "
    "hottest white",
    "dim": "{} of 8 bits use fewer than 28 grey values, so that targets can be lost. Stretch them to "
    "0-255, or save the camera's 16 bits, which are stretched here",
    "drawn": f"{{}} {ODD['drawn']}",
    "white": "{} have a white border, which can hide targets. Cut it off",
    "flat": "nothing can be detected in {}: their pixels are all alike, or no numbers",
    "narrow": "{} use fewer than 28 of the 256 grey values between the grey limits, so that targets "
    "can be lost. Type a narrower --range, or leave out --range and --limits",
    "outside": "in {} more than half of the pixels are outside of the grey limits, so that they became "
    "black or white, and targets there are lost. Type another --range, or --limits each",
}


def doubts(pixels: np.ndarray, limits: Limits, own: bool, raw: bool = False) -> list[str]:
    """The keys of DOUBTS that apply to a frame.

    Args:
        limits: that were used.
        own: whether they are percentiles of the frame itself; otherwise those of --range, or of others.
        raw: of a file without a header.
    """
    if is_flat(pixels):
        return ["flat"]
    if odd := misread(pixels, raw):
        return list(odd)
    if pixels.dtype == np.uint8:
        return list(eight_bit_doubts(pixels))
    if not own:
        low, high = next(iter(limits.values()))
        outside = np.count_nonzero((pixels < low) | (pixels > high))
        if 2 * outside > pixels.size:
            return ["outside"]
        return ["narrow"] if is_narrow(pixels, limits) else []
    if has_border(pixels, limits):
        return ["border"]
    found = ["bright"] if few_bright_pixels(pixels, limits.get("bright")) else []
    if any(no_scene(pixels, pair) for pair in limits.values()):
        found.append("edge")
    if "dark" in limits:
        low, high = limits["dark"]
        if few_bright_pixels(-pixels.astype(np.float64), (-high, -low)):
            found.append("dark")
    return found


def is_narrow(pixels: np.ndarray, limits: Limits) -> bool:
    """Whether a frame uses fewer than 28 of the 256 grey values, as `greys.is_dim` of 8 bits: without
    the 0.1 % at the end where its targets are not."""
    polarity, (low, high) = next(iter(limits.items()))
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    ends = (0, 100 - EXTREME) if polarity == "dark" else (EXTREME, 100)
    least, most = np.percentile(finite, ends).clip(low, high)
    return bool(256 * (most - least) < 28 * (high - low))


def has_border(pixels: np.ndarray, limits: Limits) -> bool:
    """Whether the lowest value is that of more than 0.1 % of the pixels, and the next one is further
    away than half of the grey range; not where the range leaves it out."""
    low, high = next(iter(limits.values()))
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    if float(finite.min()) < low:
        return False
    rest = finite[finite > finite.min()]
    return rest.size < 0.999 * finite.size and rest.min() - float(finite.min()) > (high - low) / 2


def doubtful(found: list[tuple[str, str]]) -> list[str]:
    """What is said of frames, from pairs (key of DOUBTS, name of the frame)."""
    lines = []
    for key, text in DOUBTS.items():
        names = [name for kind, name in found if kind == key]
        if names:
            some = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
            lines.append(text.format(f"{len(names)} frames ({some})"))
    return lines


class Contrast:
    """The grey limits of frames, as their sequence has them. Frames of another type of pixels count as
    a sequence of their own; those of 8 bits have no limits, and flat ones change nothing.

    Args:
        mode: one of MODES.
        detector: says what a frame's own limits are.
    """

    def __init__(self, mode: str, detector: Detector):
        self.mode, self.detector = mode, detector
        self.state: dict[tuple[str, str], Limits] = {}  # by sequence and type of pixels
        self.own: Limits = {}  # those of the last frame itself, where the sequence's depend on them
        self.last: dict[tuple[str, str], int] = {}  # position of the last frame that was done before

    def resume(self, entries: list[dict], positions: dict[Key, int]) -> None:
        """Continues from the records of an earlier run.

        Args:
            positions: of the frames now; as in their records where they are not named.
        """

        def position(entry: dict) -> int:
            return positions.get((entry["file"], entry["index"]), entry["position"])

        for entry in sorted(entries, key=position):
            pairs = (entry["range"], entry.get("dark_range"))  # the second of both polarities alone
            limits = dict(zip(POLARITIES[self.detector.settings.polarity], pairs))
            if usable(limits):
                key = entry["sequence"], entry["dtype"]
                self.state[key] = {polarity: tuple(pair) for polarity, pair in limits.items()}
                self.last[key] = position(entry)

    def limits(self, job: Job, pixels: np.ndarray) -> Limits:
        """The limits of a frame; the frames of a sequence must come in order.

        Raises:
            DataError: it comes before frames that are done, which depend on it.
        """
        self.own = {}
        key = job.sequence, str(pixels.dtype)
        before = self.state.get(key) if self.mode != "each" else None
        if before and job.position <= self.last.get(key, -1):
            raise DataError(
                f"{job.source.path}: a new frame before frames that are done, whose grey values depend "
                f"on it (--limits {self.mode}). Type --overwrite in place of --resume"
            )
        if before and self.mode == "first":
            return before
        own = self.detector.limits_of(pixels)
        self.own = {} if self.detector.settings.limits else own
        if self.mode == "each" or not usable(own):
            return before or own
        self.state[key] = mean(own, before) if before else own
        return self.state[key]


def usable(limits: Limits) -> bool:
    """Whether frames have limits, which are not alike."""
    return all(pair is not None and pair[0] < pair[1] for pair in limits.values())


def mean(own: Limits, before: Limits) -> Limits:
    """The running mean, with a frame's own limits."""
    return {
        polarity: tuple(RUNNING * new + (1 - RUNNING) * old for new, old in zip(pair, before[polarity]))
        for polarity, pair in own.items()
    }
