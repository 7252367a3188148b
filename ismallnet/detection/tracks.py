"""Targets that are seen in several frames: sightings linked to tracks, and which of them count."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from ismallnet.cli import DataError

DISTANCE = 5.0  # px from a frame to the next
Sighting = tuple[float, float, str]  # x, y, polarity


@dataclass(frozen=True)
class Confirmation:
    """When a target counts: among `of` successive frames that contain it, `seen` have its track.

    Args:
        distance: px that a target may move from a frame to the next.
    """

    seen: int
    of: int
    distance: float = DISTANCE

    @classmethod
    def parse(cls, text: str, distance: float | None = None) -> "Confirmation":
        """
        Raises:
            DataError: not N:M, or a distance that is none.
        """
        seen, _, of = text.partition(":")
        if not (seen.isdecimal() and of.isdecimal() and 1 <= int(seen) <= int(of) >= 2):
            raise DataError(f"--confirm {text}: expected N:M, 1 <= N <= M and M of 2 or more, as 3:5")
        distance = DISTANCE if distance is None else distance
        if not 0 < distance < math.inf:
            raise DataError(f"--confirm-distance {distance:g}: expected a finite number above 0")
        return cls(int(seen), int(of), distance)

    def __str__(self) -> str:
        return f"{self.seen}:{self.of} within {self.distance:g} px"

    def numbers(self, frames: list[list[Sighting]]) -> list[list[int | None]]:
        """The track of each sighting in the frames of a sequence, from 1 in the order in which they
        are confirmed; None for those that do not count."""
        tracks = link(frames, self.distance, self.of - 1)
        times: dict[int, list[int]] = {}
        for time, own in enumerate(tracks):
            for track in own:
                times.setdefault(track, []).append(time)
        counts = {track: self.counting(seen) for track, seen in times.items()}
        numbers: dict[int, int] = {}
        for time, own in enumerate(tracks):
            for track in own:
                if time in counts[track]:
                    numbers.setdefault(track, len(numbers) + 1)
        return [
            [numbers[track] if time in counts[track] else None for track in own]
            for time, own in enumerate(tracks)
        ]

    def counting(self, times: list[int]) -> set[int]:
        """Those of a track's times that lie with `seen` of them in `of` successive frames."""
        groups = (times[k : k + self.seen] for k in range(len(times) - self.seen + 1))
        return {time for group in groups if group[-1] - group[0] < self.of for time in group}


def link(frames: Iterable[list[Sighting]], distance: float, memory: int) -> list[list[int]]:
    """The track of each sighting: the nearest one of its polarity, each once (the Hungarian method);
    a new one where none is near. A track ends that was not seen for more than `memory` frames."""
    numbers, tracks, result = itertools.count(1), {}, []
    for time, sightings in enumerate(frames):
        tracks = {n: track for n, track in tracks.items() if time - track[1] <= memory}
        own = dict(nearest(list(tracks.items()), sightings, time, distance))
        result.append([own[k] if k in own else next(numbers) for k in range(len(sightings))])
        tracks |= {n: (sighting, time) for n, sighting in zip(result[-1], sightings)}
    return result


def nearest(
    tracks: list[tuple[int, tuple[Sighting, int]]],
    sightings: list[Sighting],
    time: int,
    distance: float,
) -> list[tuple[int, int]]:
    """Pairs (index of a sighting, number of a track), the sum of whose distances is smallest; to leave
    a track without a sighting costs as much as the longest step that it may have made."""
    if not tracks or not sightings:
        return []
    last = np.array([sighting[:2] for _, (sighting, _) in tracks])
    now = np.array([sighting[:2] for sighting in sightings])
    longest = distance * np.array([time - seen for _, (_, seen) in tracks])
    gaps = np.linalg.norm(last[:, None] - now[None], axis=2)
    same = np.array([[old[2] == new[2] for new in sightings] for _, (old, _) in tracks])
    costs = np.where(same & (gaps <= longest[:, None]), gaps, np.inf)
    alone = np.where(np.eye(len(tracks), dtype=bool), longest, np.inf)  # a column for each track
    pairs = zip(*linear_sum_assignment(np.hstack([costs, alone])))
    return [(int(j), tracks[i][0]) for i, j in pairs if j < len(sightings)]
