"""A frame as a table of numbers in a text file (.csv). No row, no cell of it is lost without a word."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError, note

MARKS = (";", "\t", ",", None)  # between two numbers; None: spaces, where there is no better one


def decoded(raw: bytes, errors: str = "replace") -> str:
    """The text in a file's bytes: UTF-8, or UTF-16 if it begins with its mark."""
    utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    return raw.decode("utf-16" if utf16 else "utf-8-sig", errors)


def read_csv(path: Path) -> np.ndarray:
    """A table of numbers, (H, W) float32; a cell without a number is NaN, and a note says where.

    Semicolons, tabs, commas or spaces stand between the numbers; where it is no comma, a comma may be
    the decimal sign. Lines before and behind the table are left out.

    Raises:
        ValueError: no table of numbers in it.
        DataError: a row of another length, as the last one of a file that was cut off.
    """
    lines = [cells_of(line) for line in decoded(path.read_bytes()).splitlines()]
    rows = [n for n, cells in enumerate(lines) if share(cells) > 0.5]
    widths = Counter(len(lines[n]) for n in rows if len(lines[n]) > 1)
    width = max(widths, key=lambda length: length * widths[length], default=0)
    first = next((n for n in rows if len(lines[n]) == width), 0)
    rows = [n for n in rows if n >= first]
    if not width or len(rows) < 2:
        raise ValueError("found no table of numbers")
    between = range(rows[0], rows[-1] + 1)
    blocks = {len(list(group)) for filled, group in groupby(lines[n] != [] for n in between) if filled}
    rows = [n for n in between if lines[n]]
    if len(blocks) == 1 and 1 < max(blocks) < len(rows):
        raise DataError(
            f"{path}: found {len(rows) // max(blocks)} tables of {max(blocks)} rows, with empty lines "
            "between them, expected one frame; save each as a file of its own"
        )
    for n in rows:
        if len(lines[n]) != width:
            raise DataError(
                f"{path}: line {n + 1} has {len(lines[n])} cells, others have {width}; expected rows "
                "of equal length. The file may be cut off or damaged: save it again"
            )
    table = np.array([lines[n] for n in rows], np.float32)  # None becomes NaN
    if np.isnan(table[:, -1]).all():  # each line ends with a mark
        table = table[:, :-1]
    for axis, name in ((0, "row"), (1, "column")):
        if (start := counts_from(np.take(table, 0, axis))) is not None:
            note(f"{name} of {path}", f"{path}: the first {name} counts from {start:g}; left out")
            table = np.delete(table, 0, axis)
            rows = rows[1:] if axis == 0 else rows
    if (missing := np.argwhere(np.isnan(table))).size:
        row, column = missing[0]
        note(
            f"cells of {path}",
            f"{path}: {len(missing)} cells hold no number, the first in line {rows[row] + 1}, number "
            f"{column + 1} of {table.shape[1]}; they do not count",
        )
    return table


def cells_of(line: str) -> list[float | None]:
    """The cells of a line, None for those without a number, divided by the mark that leaves the largest
    share of numbers. Empty for an empty line."""
    line, best = line.strip(" \r\n"), []
    for mark in MARKS:
        if not line or (mark not in line if mark else ";" in line or "\t" in line):
            continue
        texts = line.split(mark)
        if mark != ",":
            texts = [text.replace(",", ".") for text in texts]
        try:
            return [float(text) for text in texts]
        except ValueError:
            cells = [number(text) for text in texts]
        best = max(best, cells, key=share)  # of equal ones the first
    return best


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def share(cells: Sequence[float | None]) -> float:
    """The share of numbers among cells."""
    return 1 - cells.count(None) / len(cells) if cells else 0.0


def counts_from(values: np.ndarray) -> float | None:
    """The number from which a row or column of numbers only counts, 0 or 1; the corner that a row and a
    column of numbers share may be empty. None if it is no such row or column."""
    skip = int(np.isnan(values[:1]).any())
    rest = values[skip:]
    if len(rest) < 8:
        return None
    return next((n for n in (0.0, 1.0) if (rest == np.arange(n, n + len(rest))).all()), None)
