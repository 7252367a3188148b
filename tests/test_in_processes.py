"""Work in several processes: in order, never far ahead, and over when it fails."""

import itertools
import time

import pytest

from ismallnet.parallel import AT_ONCE, in_processes


class Counted(list):
    """A list that knows how many of its items were read."""

    read = 0

    def __getitem__(self, i: int):
        self.read += 1
        return super().__getitem__(i)


def slow_square(x: int) -> int:
    time.sleep(0.001 * (x % 3))
    return x * x


def fails_at_50(x: int) -> int:
    if x == 50:
        raise ZeroDivisionError
    return x


@pytest.mark.parametrize("workers, n", [(1, 40), (3, 101), (2, 33)])
def test_results_are_those_of_map_in_order(workers, n):
    assert list(in_processes(slow_square, range(n), workers)) == [x * x for x in range(n)]


def test_only_a_few_items_are_read_before_the_first_result_is_used():
    items = Counted(range(500))
    results = in_processes(abs, items, 2)
    assert next(results) == 0 and items.read <= 2 * 2 * AT_ONCE
    assert list(itertools.islice(results, 100)) == [*range(1, 101)]
    assert items.read <= 101 + 2 * 2 * AT_ONCE
    results.close()


def test_an_error_ends_it_and_comes_through():
    results = in_processes(fails_at_50, range(1000), 2)
    with pytest.raises(ZeroDivisionError):
        list(results)
