"""What all command lines share: errors, progress bars, and work in threads and processes."""

import argparse
import contextlib
import errno
import functools
import importlib
import io
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm


class UserError(Exception):
    """A person's mistake or bad input: shown as it is, without a traceback, exit code 2."""


class DataError(UserError):
    """Files or arguments that cannot be used; the message says which, and what to type next."""


_noted: set[str] = set()  # kinds of notes that this run has given
AGAIN = "nothing was lost; type the same command again"


def command(again: str = AGAIN, several: bool = False) -> Callable:
    """Decorates a main(argv): people's mistakes end in one clear message and exit code 2.

    Args:
        again: what to type after Ctrl-C, and what happens then.
        several: whether torchrun may start it as several processes that share the work.
    """

    def decorate(main: Callable) -> Callable:
        @functools.wraps(main)
        def wrapped(argv: list[str] | None = None):
            _noted.clear()
            for stream in (sys.stdout, sys.stderr):  # names of files that are not UTF-8
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")
            try:
                if not several and (world := os.environ.get("WORLD_SIZE", "1")) != "1":
                    raise DataError(
                        f"found {world} processes, expected one: they would write the same files. "
                        "Leave torchrun out"
                    )
                return main(argv)
            except UserError as error:
                message = str(error)
            except OSError as error:
                if error.filename is None and error.strerror is None:
                    raise
                message = f"{error.filename or 'writing'}: {error.strerror}"
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    message += f". Make room there; {again}"
            except KeyboardInterrupt:
                print(f"interrupted; {again}", file=sys.stderr)
                raise SystemExit(130) from None
            print(f"error: {message}", file=sys.stderr)
            raise SystemExit(2)

        return wrapped

    return decorate


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that are values; where there is none, the help says what happens."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        if isinstance(action.default, list | tuple):  # as it is typed
            return f"{action.help} (default: {' '.join(f'{value:g}' for value in action.default)})"
        return super()._get_help_string(action)


def positive(text: str) -> int:
    """The type of an argument that is a whole number from 1 up."""
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number of 1 or more")
    return int(text)


def progress(items: Iterable, label: str, total: int, unit: str = "image", leave: bool = True) -> tqdm:
    """A progress bar on standard error; in a log file it moves every 20 seconds only."""
    pace = 0.1 if sys.stderr.isatty() else 20.0
    return tqdm(
        items,
        desc=label,
        total=total,
        unit=unit,
        mininterval=pace,
        leave=leave,
        dynamic_ncols=True,
        # Of several processes one speaks, and a log file gets no bar below another.
        disable=os.environ.get("RANK", "0") != "0" or not (leave or sys.stderr.isatty()),
    )


def note(kind: str, text: str) -> None:
    """Says something of which one kind is enough for a run."""
    if kind not in _noted:
        _noted.add(kind)
        tqdm.write(f"note: {text}", sys.stderr)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def optional(name: str, why: str, package: str | None = None):
    """A module of an optional package.

    Args:
        why: what needs it, the beginning of the message.
        package: what is to be installed; by default the module's first name.

    Raises:
        DataError: it is not installed; the message says what to type.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = package or name.split(".")[0]
        raise DataError(f"{why} needs {package} ({error}); type: pip install {package}") from error


def read_ahead(function: Callable, items: Iterable, workers: int = 4, ahead: int = 16) -> Iterator:
    """map(function, items) in threads, in order, never more than `ahead` results in memory."""
    with ThreadPoolExecutor(workers) as pool:
        waiting = []
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == ahead:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


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
            limits.append(int(Path(path).read_text()))
    return float(min(limits))


def follow() -> None:
    """A worker process leaves Ctrl-C to its parent, and ends with it even when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_processes(function: Callable, items: Sequence, workers: int, at_once: int = 4) -> Iterator:
    """map(function, items) in several processes, in order; in this one where they would not pay.

    Items are read, and results kept, two rounds ahead of what was asked for at most.

    Args:
        at_once: items that a process is given together; more where each takes a millisecond only.
    """
    if workers <= 1 or len(items) < 32:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, initializer=follow) as pool:
        waiting: deque[Future] = deque()
        try:
            for start in range(0, len(items), at_once):
                part = [items[i] for i in range(start, min(start + at_once, len(items)))]
                waiting.append(pool.submit(apply, function, part))
                if len(waiting) == 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def apply(function: Callable, items: list) -> list:
    return [function(item) for item in items]
