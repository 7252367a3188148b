"""Work in threads and processes, and how much of the machine it may use."""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from ismallnet.cli import DataError, progress

AT_ONCE = 8  # items that a process is given together


def read_ahead(function: Callable, items: Iterable, workers: int = 4, ahead: int = 16) -> Iterator:
    """map(function, items) in threads, in order, never more than `ahead` results in memory."""
    with ThreadPoolExecutor(workers) as pool:
        yield from results((pool.submit(function, item) for item in items), ahead)


def results(futures: Iterator[Future], ahead: int) -> Iterator:
    """The results of futures, in order; no more than `ahead` are asked for before they are used."""
    waiting: deque[Future] = deque()
    for future in futures:
        waiting.append(future)
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def cores() -> int:
    """How many processes pay: the processors that this one may use; at most Windows' limit of 61."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 61)
    return min(os.cpu_count() or 1, 61)


def memory_limit() -> float:
    """Bytes of memory of this machine, or of the container that the process runs in."""
    try:
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        limits = [16 * 2**30]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # version 2 or 1 of cgroup; "max" is no limit
            limits.append(int(Path(path).read_text(encoding="ascii")))
    return float(min(limits))


def follow() -> None:
    """A worker process leaves Ctrl-C to its parent, and ends with it even when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        multiprocessing.parent_process().join()  # not getppid: a fork server may be in between
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_processes(function: Callable, items: Sequence, workers: int) -> Iterator:
    """map(function, items) in several processes, in order, at most two rounds ahead of what was asked
    for; in this one where they would not pay."""
    if workers <= 1 or len(items) < 32:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, initializer=follow) as pool:
        starts = range(0, len(items), AT_ONCE)
        parts = ([items[i] for i in range(s, min(s + AT_ONCE, len(items)))] for s in starts)
        try:
            for part in results((pool.submit(apply, function, part) for part in parts), 2 * workers):
                yield from part
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def apply(function: Callable, items: list) -> list:
    return [function(item) for item in items]


def results_and_problems(
    function: Callable, items: Sequence, workers: int, label: str, unit: str = "image"
) -> tuple[list, list[str]]:
    """The results of a function of each item, in several processes, and what the `DataError`s of the
    others say, so that one message can name all.

    Args:
        label, unit: of the progress bar.
    """
    results, problems = [], []
    outcomes = in_processes(functools.partial(result_or_error, function), items, workers)
    for outcome in progress(outcomes, label, len(items), unit):
        if isinstance(outcome, DataError):
            problems.append(str(outcome))
        else:
            results.append(outcome)
    return results, problems


def result_or_error(function: Callable, item):
    try:
        return function(item)
    except DataError as error:
        return error
