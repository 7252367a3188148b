"""What all command lines share: errors, help, flags that went, progress bars, optional packages."""

import argparse
import contextlib
import functools
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tqdm import tqdm


class UserError(Exception):
    """A person's mistake or bad input: shown as it is, without a traceback, exit code 2."""


class DataError(UserError):
    """Files or arguments that cannot be used; the message says which, and what to type next."""


class Launch(NamedTuple):
    """This process among those that torchrun started; alone without it."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0  # among those of this machine
    local_world: int = 1


def launch() -> Launch:
    """What torchrun says in the environment. Without WORLD_SIZE, or with 1, this process is alone,
    whatever else is there; a variable that is empty counts as not set.

    Raises:
        DataError: WORLD_SIZE says that there are several processes, and something else is missing.
    """
    values = {name: os.environ.get(name, "").strip() for name in TORCHRUN}
    if values["WORLD_SIZE"] in ("", "1"):
        return Launch()
    local = (os.environ.get("LOCAL_RANK") or "0", os.environ.get("LOCAL_WORLD_SIZE") or "1")
    with contextlib.suppress(ValueError):
        process = Launch(*map(int, (values["RANK"], values["WORLD_SIZE"], *local)))
        if all(values.values()) and 0 <= process.rank < process.world:
            return process
    seen = " ".join(f"{name}={value}" for name, value in values.items())
    raise DataError(
        f"found {seen}; expected all of them, as torchrun sets them, and RANK below WORLD_SIZE. Type: "
        "torchrun --nproc-per-node N train.py …, or take WORLD_SIZE out of the environment"
    )


_noted: set[str] = set()  # kinds of notes that this run has given
TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # without one there is no group
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
            prepare_streams()
            try:
                if (world := launch().world) > 1 and not several:
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
            except KeyboardInterrupt:
                print(f"interrupted; {again}", file=sys.stderr)
                raise SystemExit(130) from None
            print(f"error: {message}", file=sys.stderr)
            raise SystemExit(2)

        return wrapped

    return decorate


def prepare_streams() -> None:
    """Makes standard output and error fit for any text: file names that are not UTF-8 are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that are values; where there is none, the help says what happens."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        if isinstance(action.default, list | tuple):  # as it is typed
            return f"{action.help} (default: {' '.join(f'{value:g}' for value in action.default)})"
        return super()._get_help_string(action)


class Gone(argparse.Action):
    """A flag that does not exist any more: whoever types it is told what to type instead."""

    def __init__(self, option_strings: list[str], dest: str, instead: str):
        super().__init__(option_strings, argparse.SUPPRESS, nargs="*", help=argparse.SUPPRESS)
        self.instead = instead

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        parser.error(f"{option_string} does not exist any more: {self.instead}")


def gone(parser: argparse.ArgumentParser, flag: str, instead: str) -> None:
    """Refuses a flag that went, with what to type instead, a phrase."""
    parser.add_argument(flag, action=Gone, instead=instead)


def summary(documentation: str | None) -> str | None:
    """The first line of a script's docstring, for --help; there is none with PYTHONOPTIMIZE=2."""
    return documentation and documentation.splitlines()[0]


def positive(text: str) -> int:
    """The type of an argument that is a whole number from 1 up."""
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number of 1 or more")
    return int(text)


def progress(
    items: Iterable, label: str, total: int, unit: str = "image", leave: bool = True, initial: int = 0
) -> tqdm:
    """A progress bar on standard error; in a log file it moves every 20 seconds only.

    Args:
        initial: of the total, what an earlier call did, which does not count in the rate.
    """
    terminal = sys.stderr.isatty()
    options = {"unit": unit, "initial": initial, "leave": leave, "dynamic_ncols": True}
    # Of several processes one speaks, and a log file gets no bar below another.
    silent = launch().rank != 0 or not (leave or terminal)
    pace = 0.1 if terminal else 20.0
    return tqdm(items, label, total, mininterval=pace, disable=silent, **options)


def note(kind: str, text: str) -> None:
    """Says something once a run for each kind."""
    if kind not in _noted:
        _noted.add(kind)
        tqdm.write(f"note: {text}", sys.stderr)


def counted(number: int, noun: str) -> str:
    """ "1 frame", "2 frames"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def optional(name: str, why: str):
    """A module of an optional package.

    Args:
        why: what needs it, the beginning of the message.

    Raises:
        DataError: it is not installed; the message says what to type.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise DataError(f"{why} needs {package} ({error}); type: pip install {package}") from error
