"""Targets linked from frame to frame, by hand."""

import numpy as np
import pytest

from ismallnet.cli import DataError
from ismallnet.detection.tracks import Confirmation, Track, link


def at(*points):
    return list(points)


def test_the_nearest_sightings_are_linked():
    frames = [at((10, 10), (50, 50)), at((53, 50), (12, 10)), at((14, 10)), at((57, 50), (90, 90))]
    # 57 is 4 px from 53 two frames earlier; 90 is new
    assert link(frames, distance=3, memory=2) == [[1, 2], [2, 1], [1], [2, 3]]
    assert link(frames, distance=3, memory=1) == [[1, 2], [2, 1], [1], [3, 4]]  # too long ago
    assert link(frames, distance=0.9, memory=2) == [[1, 2], [3, 4], [5], [6, 7]]  # 2 and 3 px
    # the first step may be twice as long, and as often as frames have gone by
    assert link([at((0, 0)), [], at((12, 0))], 3, 2) == [[1], [], [1]]
    assert link([at((0, 0)), [], at((12.1, 0))], 3, 2) == [[1], [], [2]]


def test_a_track_goes_on_as_it_moved():
    """9 px a frame: seen at 0, 9, 18 and, after a frame without it, at 36; then 5 px off, and 6."""
    seen = [at((0, 0)), at((9, 0)), at((18, 0)), [], at((36, 0))]
    assert link([*seen, at((45, 5))], 5, 4) == [[1], [1], [1], [], [1], [1]]
    assert link([*seen, at((45, 6))], 5, 4) == [[1], [1], [1], [], [1], [2]]
    # the velocity follows: half of what was not expected
    track = Track(1, np.array([0.0, 0.0]), 0).seen((4.0, 0.0), 1)
    track = track.seen((10.0, 2.0), 2)  # expected at 8
    assert track.velocity.tolist() == [5, 1] and track.at(4).tolist() == [20, 4]


def test_each_sighting_belongs_to_one_track():
    # 0 and 4 -> 4.1 and 9: 4.1 continues 4, not 0; 9 is 5 px from 4 and new
    assert link([at((0, 0), (4, 0)), at((4.1, 0), (9, 0))], 2.2, 1) == [[1, 2], [2, 3]]
    # together nearest: 0 -> 3 and 4 -> 5
    assert link([at((0, 0), (4, 0)), at((3, 0), (5, 0))], 5, 1) == [[1, 2], [1, 2]]


def test_confirmed_in_three_of_five_frames():
    rule = Confirmation(3, 5)
    seen = at((10, 10))
    noise = at((40, 40))
    # seen at 0, 2, 4: three of five. At 9 alone, and 4 to 9 is too long.
    frames = [seen, noise, seen, [], seen, [], [], [], [], seen]
    assert rule.numbers(frames) == [[1], [None], [1], [], [1], [], [], [], [], [None]]
    # seen at 0, 2, 5: five frames hold two of them
    assert rule.numbers([seen, [], seen, [], [], seen]) == [[None], [], [None], [], [], [None]]
    # seen at 0, 4, 5, 6, 10: the frames 4 to 6 and 2 to 6 hold three; 0 and 10 lie in no such group
    times = {0, 4, 5, 6, 10}
    frames = [seen if time in times else [] for time in range(11)]
    expected = [[1] if time in {4, 5, 6} else [None] if time in times else [] for time in range(11)]
    assert rule.numbers(frames) == expected


def test_numbers_begin_at_one_with_what_is_confirmed_first():
    a, b, noise = (10, 10), (60, 60), (99, 9)
    frames = [at(noise, b), at(b, a), at(a)]
    assert Confirmation(2, 2).numbers(frames) == [[None, 1], [1, 2], [2]]
    assert Confirmation(1, 2).numbers(frames) == [[1, 2], [2, 3], [3]]


def test_what_stays_in_place_is_left_out():
    """A lamp that flickers by 1 px, and a target that gets 3 px away and comes back."""
    frames = [at((50, 50 + k % 2), (10 + 1.5 * (k % 3), 10)) for k in range(6)]
    assert Confirmation(3, 5).numbers(frames) == [[1, 2]] * 6
    assert Confirmation(3, 5, moving=2).numbers(frames) == [[None, 1]] * 6
    assert Confirmation(3, 5, moving=3.1).numbers(frames) == [[None, None]] * 6
    assert str(Confirmation(3, 5, moving=2)) == "3:5, moving 2 px"


@pytest.mark.parametrize("text", ["3", "5:3", "0:4", "1:1", "a:b", "3:", "-1:3", "2:3:4"])
def test_other_rules_are_errors(text):
    with pytest.raises(DataError, match="expected N:M"):
        Confirmation.parse(text)
    with pytest.raises(DataError, match="--moving"):
        Confirmation.parse("3:5", moving=-1)


def test_rules_are_read():
    assert Confirmation.parse("3:5") == Confirmation(3, 5)


def test_a_track_that_is_not_seen_takes_no_sighting_from_another():
    """With a track more than sightings, the far track was given the sighting, and the pair thrown away:
    a target that moves 5 px a frame, and a false alarm somewhere in each frame."""
    rng, frames = np.random.default_rng(0), []
    for time in range(200):
        false = tuple(rng.uniform(0, 1000, 2))
        frames.append(at((5.0 * time % 900, 300), false))
    numbers = Confirmation(3, 5).numbers(frames)
    confirmed = [own[0] is not None for own in numbers]
    assert sum(confirmed) >= 0.95 * len(frames)
    assert sum(own[1] is not None for own in numbers) <= 4
    # a track at (0, 0) that is seen no more, and one at (100, 0) that goes on
    assert link([at((0, 0), (100, 0)), at((104, 0))], 5, 1) == [[1, 2], [2]]
    # one that was seen two frames ago, and a far one of the last frame, which costs less
    assert link([at((100, 0)), at((0, 0)), at((108, 0))], 5, 2) == [[1], [2], [1]]


def test_a_track_that_was_not_seen_gives_way_to_one_that_was():
    """A target that is once found twice: its two tracks took turns, a switch in each frame."""
    frames = [at((2.0 * t, 0), (2.0 * t + 3, 0)) if t == 5 else at((2.0 * t, 0)) for t in range(20)]
    tracks = link(frames, 5, 4)
    assert {own[0] for own in tracks} == {1} and tracks[5] == [1, 2]
