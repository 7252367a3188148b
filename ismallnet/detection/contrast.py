"""The grey values of frames of more than 8 bits: which become 0 and 255, in a sequence too, and what
makes one doubt them."""

import numpy as np

from ismallnet.cli import DataError
from ismallnet.detection.detector import POLARITIES, Detector, Limits
from ismallnet.detection.jobs import Job, Key
from ismallnet.images import grey

# --limits: each frame's own; those of the first frame of a sequence; their running mean.
MODES = ("each", "first", "running")
RUNNING = 0.1  # weight of a frame's own limits in the running mean, 1 - RUNNING that of the mean before


def doubts(pixels: np.ndarray, limits: Limits, own: bool) -> list[str]:
    """What makes one doubt the grey values of a frame: keys of grey.DOUBTS.

    Args:
        limits: that were used.
        own: whether they are percentiles of the frame itself; otherwise those of --range, or of others.
    """
    pairs = limits.items()
    keys = [grey.doubts(pixels, pair, not own, polarity == "dark") for polarity, pair in pairs]
    return list(dict.fromkeys(key for some in keys for key in some))


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
