"""What only the frames of a sequence show together: one grey range, hot pixels, confirmed targets."""

import sys
from collections import Counter
from collections.abc import Iterable

from tqdm import tqdm

from ismallnet.cli import DataError, some
from ismallnet.detection.detector import POLARITIES, Detector, Limits
from ismallnet.detection.sources import Frame
from ismallnet.detection.tracks import Confirmation

# --limits: each frame's own; those of the first frame of a sequence; their running mean.
MODES = ("each", "first", "running")
RUNNING = 0.1  # weight of a frame's own limits in the running mean, 1 - RUNNING that of the mean before
HOT_FRAMES, HOT_SHARE = 10, 0.9  # of a sequence, in which a hot pixel stays: at least


# --- grey limits --------------------------------------------------------------------------------------


class SequenceLimits:
    """The grey limits of frames by the mode "first" or "running". Another type of pixels is a
    sequence of their own; those of 8 bits have no limits, and flat ones change nothing.

    Args:
        done: the records of frames that are done, in order.
        order: the places of the files that are named, in which the frames of a sequence must come; of a
            watched folder they come as they come.
    """

    def __init__(self, mode: str, detector: Detector, done: list[dict], order: dict[str, int]):
        self.mode, self.detector, self.order = mode, detector, order
        self.state: dict[tuple[str, str], Limits] = {}  # by sequence and type of pixels
        self.last: dict[tuple[str, str], tuple[int, int]] = {}  # place of the last frame that is done
        for entry in done if mode != "each" else ():
            pairs = (entry["range"], entry.get("dark_range"))  # the second of both polarities alone
            limits = dict(zip(POLARITIES[detector.settings.polarity], pairs))
            if is_range(limits):
                key = entry["sequence"], entry["dtype"]
                self.state[key] = {polarity: tuple(pair) for polarity, pair in limits.items()}
                if entry["file"] in order:
                    self.last[key] = order[entry["file"]], entry["index"]

    def of(self, frame: Frame) -> tuple[Limits, bool]:
        """The limits of a frame, and whether they are fixed: not of its own values."""
        key = frame.source.sequence, str(frame.pixels.dtype)
        before = self.state.get(key)
        place = self.order.get(frame.source.file, len(self.order)), frame.index
        if before and place <= self.last.get(key, (-1, -1)):
            raise DataError(
                f"{frame.source.path}: a new frame before frames that are done, whose grey values "
                f"depend on it (--limits {self.mode}). Type --overwrite in place of --resume"
            )
        if before and self.mode == "first":
            return before, True
        own = self.detector.limits_of(frame.pixels)
        if is_range(own):
            self.state[key] = running_mean(own, before) if before else own
        return self.state.get(key, own), before is not None


def is_range(limits: Limits) -> bool:
    """Whether frames have limits, which are not alike."""
    return all(pair is not None and pair[0] < pair[1] for pair in limits.values())


def running_mean(own: Limits, before: Limits) -> Limits:
    return {
        polarity: tuple(RUNNING * new + (1 - RUNNING) * old for new, old in zip(pair, before[polarity]))
        for polarity, pair in own.items()
    }


# --- targets ------------------------------------------------------------------------------------------


def by_sequence(entries: Iterable[dict]) -> dict[str, list[dict]]:
    """The records of each sequence, in order."""
    sequences: dict[str, list[dict]] = {}
    for entry in entries:
        sequences.setdefault(entry["sequence"], []).append(entry)
    return sequences


def settle(sequences: dict[str, list[dict]], rule: Confirmation | None) -> None:
    """Sets aside in the records what is no target in its sequence: as `hot` single pixels that stay in
    place, with a rule as `unconfirmed` what is seen too seldom; others get the numbers of their tracks.
    Again after more frames it begins anew."""
    tracks = 0
    for name, frames in sequences.items():
        for entry in frames:
            entry["targets"] = all_targets(entry)
        if places := set_hot_aside(frames):
            text = "single pixels that stay in place were left out as hot pixels (y, x)"
            places = some([str(place) for place in places])
            tqdm.write(f"note: {name}: {text}: {places}", sys.stderr)
        tracks += confirm(frames, rule, tracks) if rule else 0
    if rule:
        text = f"seen in {rule.seen} of {rule.of} frames within {rule.distance:g} px"
        print(f"{tracks} tracks, {text}")


def all_targets(entry: dict) -> list[dict]:
    """The targets of a record, also those that were set aside; the highest score first."""
    targets = [*entry["targets"], *entry.pop("hot", ()), *entry.pop("unconfirmed", ())]
    targets = [{key: value for key, value in t.items() if key != "track"} for t in targets]
    return sorted(targets, key=lambda t: (-t["score"], t["y"], t["x"]))


def set_hot_aside(frames: list[dict]) -> list[tuple[int, int]]:
    """Moves the targets on hot pixels of a sequence to `hot`; returns their places (y, x)."""
    counts: Counter[tuple[int, int]] = Counter()
    for entry in frames:
        counts.update({tuple(t["spike"]) for t in entry["targets"] if "spike" in t})
    least = max(HOT_FRAMES, HOT_SHARE * len(frames))
    places = sorted(place for place, count in counts.items() if count >= least)
    for entry in frames if places else ():
        hot = [t for t in entry["targets"] if tuple(t.get("spike", ())) in places]
        entry["targets"] = [t for t in entry["targets"] if t not in hot]
        entry |= {"hot": hot} if hot else {}
    return places


def confirm(frames: list[dict], rule: Confirmation, tracks: int) -> int:
    """Gives the targets of a sequence the numbers of their tracks, after those of `tracks` before, and
    moves those that are not confirmed to `unconfirmed`; returns the number of its tracks."""
    sightings = [[(t["x"], t["y"], t["polarity"]) for t in entry["targets"]] for entry in frames]
    numbers = rule.numbers(sightings)
    for entry, own in zip(frames, numbers):
        pairs = list(zip(entry["targets"], own, strict=True))
        entry["targets"] = [t | {"track": tracks + number} for t, number in pairs if number]
        entry["unconfirmed"] = [t for t, number in pairs if not number]
    return max((number or 0 for own in numbers for number in own), default=0)
