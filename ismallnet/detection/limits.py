"""Which values of a frame become 0 and 255 where this depends on the frames of its sequence before."""

from ismallnet.cli import DataError
from ismallnet.detection.detector import POLARITIES, Detector, Limits
from ismallnet.detection.sources import Frame

# --limits: each frame's own; those of the first frame of a sequence; their running mean.
MODES = ("each", "first", "running")
RUNNING = 0.1  # weight of a frame's own limits in the running mean, 1 - RUNNING that of the mean before


class SequenceLimits:
    """The grey limits of frames, as their sequence has them. Frames of another type of pixels count as
    a sequence of their own; those of 8 bits have no limits, and flat ones change nothing.

    Args:
        done: the records of frames that are done, in order.
        places: of all files, in which the frames of a sequence must come.
    """

    def __init__(self, mode: str, detector: Detector, done: list[dict], places: dict[str, int]):
        self.mode, self.detector = mode, detector
        self.state: dict[tuple[str, str], Limits] = {}  # by sequence and type of pixels
        self.last: dict[tuple[str, str], tuple[int, int]] = {}  # place of the last frame that is done
        for entry in done if mode != "each" else ():
            pairs = (entry["range"], entry.get("dark_range"))  # the second of both polarities alone
            limits = dict(zip(POLARITIES[detector.settings.polarity], pairs))
            if is_range(limits):
                key = entry["sequence"], entry["dtype"]
                self.state[key] = {polarity: tuple(pair) for polarity, pair in limits.items()}
                self.last[key] = places[entry["file"]], entry["index"]

    def of(self, frame: Frame, place: tuple[int, int]) -> tuple[Limits, bool]:
        """The limits of a frame at a place (of its file, and in it), and whether its own values give
        them."""
        key = frame.source.sequence, str(frame.pixels.dtype)
        before = self.state.get(key)
        if before and place <= self.last.get(key, (-1, -1)):
            raise DataError(
                f"{frame.source.path}: a new frame before frames that are done, whose grey values "
                f"depend on it (--limits {self.mode}). Type --overwrite in place of --resume"
            )
        if before and self.mode == "first":
            return before, False
        own = self.detector.limits_of(frame.pixels)
        if self.mode == "each" or not is_range(own):
            return before or own, not (before or self.detector.settings.limits)
        self.state[key] = running_mean(own, before) if before else own
        return self.state[key], not before


def is_range(limits: Limits) -> bool:
    """Whether frames have limits, which are not alike."""
    return all(pair is not None and pair[0] < pair[1] for pair in limits.values())


def running_mean(own: Limits, before: Limits) -> Limits:
    return {
        polarity: tuple(RUNNING * new + (1 - RUNNING) * old for new, old in zip(pair, before[polarity]))
        for polarity, pair in own.items()
    }
