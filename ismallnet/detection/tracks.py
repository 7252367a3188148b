"""What only the frames of a sequence show together: hot pixels, and targets that are seen in several
frames: sightings linked to tracks, and which of them count."""

import itertools
import math
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from ismallnet.cli import DataError, some

HOT_FRAMES, HOT_SHARE = 10, 0.9  # of a sequence, in which a hot pixel stays: at least
DISTANCE = 5.0  # px that a target may be away from where it is expected, from a frame to the next
FIRST_STEP = 2  # times the distance: a target's velocity is not known before its second sighting
GAIN = 0.5  # of the velocity, by which what was not foreseen changes it
Sighting = tuple[float, float]  # x, y


@dataclass(frozen=True)
class Confirmation:
    """When a target counts: among `of` successive frames that contain it, `seen` have its track.

    Args:
        moving: px that the track gets away from where it began; 0: it may stay there.
    """

    seen: int
    of: int
    moving: float = 0.0

    @classmethod
    def parse(cls, text: str, moving: float = 0.0) -> "Confirmation":
        """DataError where it is not N:M, or `moving` no distance."""
        if not 0 <= moving < math.inf:
            raise DataError(f"--moving {moving:g}: expected a number of pixels, 0 or more")
        seen, _, of = text.partition(":")
        if not (seen.isdecimal() and of.isdecimal() and 1 <= int(seen) <= int(of) >= 2):
            raise DataError(f"--confirm {text}: expected N:M, 1 <= N <= M and M of 2 or more, as 3:5")
        return cls(int(seen), int(of), moving)

    def __str__(self) -> str:
        return f"{self.seen}:{self.of}" + (f", moving {self.moving:g} px" if self.moving else "")

    def numbers(self, frames: list[list[Sighting]]) -> list[list[int | None]]:
        """The track of each sighting in the frames of a sequence, from 1 in the order in which they
        are confirmed; None for those that do not count."""
        tracks = link(frames, DISTANCE, self.of - 1)
        seen: dict[int, dict[int, Sighting]] = {}  # by track and time
        for time, (own, sightings) in enumerate(zip(tracks, frames)):
            for track, sighting in zip(own, sightings):
                seen.setdefault(track, {})[time] = sighting
        counts = {track: self.counting(places) for track, places in seen.items()}
        numbers: dict[int, int] = {}
        result = []
        for time, own in enumerate(tracks):
            confirmed = [track if time in counts[track] else None for track in own]
            for track in filter(None, confirmed):
                numbers.setdefault(track, len(numbers) + 1)
            result.append([track and numbers[track] for track in confirmed])
        return result

    def counting(self, places: dict[int, Sighting]) -> set[int]:
        """Those of a track's times that lie with `seen` of them in `of` successive frames; none if it
        stays in place."""
        times, first = list(places), next(iter(places.values()))
        if max(math.dist(first, place) for place in places.values()) < self.moving:
            return set()
        groups = (times[k : k + self.seen] for k in range(len(times) - self.seen + 1))
        return {time for group in groups if group[-1] - group[0] < self.of for time in group}


@dataclass(frozen=True)
class Track:
    """A target that moves with constant velocity.

    Args:
        place, velocity: of its last sighting, (2,) x, y in px, and px a frame; None after one sighting.
    """

    number: int
    place: np.ndarray
    time: int
    velocity: np.ndarray | None = None

    def at(self, time: int) -> np.ndarray:
        """Where it is expected."""
        moved = 0 if self.velocity is None else self.velocity * (time - self.time)
        return self.place + moved

    def reach(self, time: int, distance: float) -> float:
        """How far from there it may be."""
        return distance * (time - self.time) * (FIRST_STEP if self.velocity is None else 1)

    def seen(self, sighting: Sighting, time: int) -> "Track":
        place = np.array(sighting)
        unforeseen = (place - self.at(time)) / (time - self.time)
        velocity = unforeseen if self.velocity is None else self.velocity + GAIN * unforeseen
        return Track(self.number, place, time, velocity)


def link(frames: Iterable[list[Sighting]], distance: float, memory: int) -> list[list[int]]:
    """The track of each sighting: the one that is expected nearest, each once (the Hungarian method); a
    new one where none is near.

    Args:
        distance: px a frame that a target may be away from where it is expected.
        memory: frames after which a track that is not seen ends.
    """
    numbers, tracks, result = itertools.count(1), {}, []
    for time, sightings in enumerate(frames):
        tracks = {n: track for n, track in tracks.items() if time - track.time <= memory}
        own = dict(nearest(list(tracks.values()), sightings, time, distance))
        result.append([])
        for k, sighting in enumerate(sightings):
            track = own[k].seen(sighting, time) if k in own else None
            track = track or Track(next(numbers), np.array(sighting), time)
            tracks[track.number] = track
            result[-1].append(track.number)
    return result


def nearest(
    tracks: list[Track], sightings: list[Sighting], time: int, distance: float
) -> list[tuple[int, Track]]:
    """Pairs (index of a sighting, track), each once, of the largest sum of gains. That of a pair is how
    much nearer it is than it may be; a track that was not seen lately, or once alone, may be further
    away, and gives way to others."""
    if not tracks or not sightings:
        return []
    expected = np.array([track.at(time) for track in tracks])
    longest = np.array([track.reach(time, distance) for track in tracks])[:, None]
    gaps = np.linalg.norm(expected[:, None] - np.array(sightings)[None], axis=2)
    gain = (longest + 1e-6 - gaps).clip(0) * (distance / longest) ** 2  # the longest is within reach
    pairs = zip(*linear_sum_assignment(gain, maximize=True))
    return [(int(j), tracks[i]) for i, j in pairs if gain[i, j] > 0]


# --- the records of a sequence ------------------------------------------------------------------------


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
        print(f"{tracks} tracks, seen in {rule.seen} of {rule.of} frames")


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
    sightings = [[(t["x"], t["y"]) for t in entry["targets"]] for entry in frames]
    numbers = rule.numbers(sightings)
    for entry, own in zip(frames, numbers):
        pairs = list(zip(entry["targets"], own, strict=True))
        entry["targets"] = [t | {"track": tracks + number} for t, number in pairs if number]
        entry["unconfirmed"] = [t for t, number in pairs if not number]
    return max((number or 0 for own in numbers for number in own), default=0)
