"""Targets linked from frame to frame, by hand."""

import pytest

from ismallnet.cli import DataError
from ismallnet.detection.tracks import Confirmation, link


def at(*points, polarity="bright"):
    return [(x, y, polarity) for x, y in points]


def test_the_nearest_sightings_are_linked():
    frames = [at((10, 10), (50, 50)), at((53, 50), (12, 10)), at((14, 10)), at((57, 50), (90, 90))]
    # 57 is 4 px from 53 two frames earlier; 90 is new
    assert link(frames, distance=3, memory=2) == [[1, 2], [2, 1], [1], [2, 3]]
    assert link(frames, distance=3, memory=1) == [[1, 2], [2, 1], [1], [3, 4]]  # too long ago
    assert link(frames, distance=1.9, memory=2) == [[1, 2], [3, 4], [5], [6, 7]]  # 2 and 3 px
    # one that moves 3 px a frame may be 6 px away after one in which it was not seen
    assert link([at((0, 0)), [], at((6, 0))], 3, 2) == [[1], [], [1]]
    assert link([at((0, 0)), [], at((6.1, 0))], 3, 2) == [[1], [], [2]]


def test_each_sighting_belongs_to_one_track():
    # 0 and 4 -> 4.1 and 9: 4.1 continues 4, not 0; 9 is 5 px from 4 and new
    assert link([at((0, 0), (4, 0)), at((4.1, 0), (9, 0))], 5, 1) == [[1, 2], [2, 3]]
    # together nearest: 0 -> 3 and 4 -> 5
    assert link([at((0, 0), (4, 0)), at((3, 0), (5, 0))], 5, 1) == [[1, 2], [1, 2]]
    assert link([at((0, 0)), at((0, 0), polarity="dark")], 5, 1) == [[1], [2]]


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


@pytest.mark.parametrize("text", ["3", "5:3", "0:4", "1:1", "a:b", "3:", "-1:3", "2:3:4"])
def test_other_rules_are_errors(text):
    with pytest.raises(DataError, match="expected N:M"):
        Confirmation.parse(text)


def test_rules_are_read():
    assert Confirmation.parse("3:5") == Confirmation(3, 5, 5.0)
    assert Confirmation.parse("2:2", 1.5) == Confirmation(2, 2, 1.5)
