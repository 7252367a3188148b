"""Frames as arrays of numbers: .npy, .npz, .mat and .csv files, and raw files without a header."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError, note
from ismallnet.files import disguise
from ismallnet.images.tiff import ERRORS

ARRAYS = (".npy", ".npz", ".mat", ".csv")
LONGEST = 2.2  # frames' longer side in shorter ones, where an array may be read in two ways


def read_array(path: Path) -> np.ndarray:
    """The numbers of a .npy, .npz, .mat or .csv file, as they are there; .npy is left on disk.

    Raises:
        DataError: unreadable, or several arrays of which any could be meant.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        if suffix == ".csv":
            return read_csv(path)
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return the_only({name: file[name] for name in file.files}, path)
        from scipy.io import loadmat

        return the_only(loadmat(path, appendmat=False), path)
    except ERRORS as error:
        if isinstance(error, NotImplementedError):  # MATLAB 7.3, which is HDF5
            error = "MATLAB 7.3; save it with -v7 there"
        why = disguise(path) or error
        raise DataError(f"{path}: not a readable {suffix[1:]} file ({why})") from None


def the_only(arrays: dict, path: Path) -> np.ndarray:
    """The one array among them that can be a picture."""
    pictures = {
        name: value
        for name, value in arrays.items()
        if isinstance(value, np.ndarray) and value.ndim >= 2 and value.dtype.kind in "uif"
        and sum(side > 1 for side in value.shape) > 1
    }  # fmt: skip
    if len(pictures) != 1:
        names = ", ".join(f"{name} {value.shape}" for name, value in pictures.items()) or "none"
        raise DataError(f"{path}: expected one picture in it, found {names}; save it as .npy")
    return next(iter(pictures.values()))


def frames_last(shape: tuple[int, ...], matlab: bool) -> bool:
    """Whether the last of an array's three sides counts frames, rather than the first.

    Args:
        matlab: the file is MATLAB's, whose programs put it last: so it is unless the frames would be
            more than 2.2 times as long as wide, and those of the other order not; or not square, and
            those of the other order are.
    """
    first, middle, last = shape
    if not matlab:  # NumPy's put it first
        return 2 * last < min(first, middle)
    here, there = (max(a, b) / min(a, b) for a, b in ((first, middle), (middle, last)))
    return not (here > LONGEST >= there or here > there == 1)


def as_frames(array: np.ndarray, path: Path) -> np.ndarray:
    """An array as frames, (N, H, W) or (N, H, W, 3).

    Args:
        array: (H, W), (H, W, 1), (H, W, 3), (N, H, W), (N, H, W, 1) or (N, H, W, 3); of MATLAB also
            (H, W, N), (H, W, 1, N) or (H, W, 3, N).

    Raises:
        DataError: of another shape, empty, or not numbers.
    """
    shape = array.shape
    if path.suffix.lower() == ".csv" and shape[-1] < 8:
        raise DataError(
            f"{path}: found a table of {shape[-1]} columns, expected a frame: a row of pixels a line"
        )
    if array.dtype.kind not in "uif":
        raise DataError(f"{path}: found {array.dtype}, expected integers or floats")
    if array.ndim in (3, 4) and shape[-1] == 1:
        array = array[..., 0]
    matlab = path.suffix.lower() == ".mat"
    if (
        matlab and array.ndim == 4 and shape[2] in (1, 3) and 0 not in shape
    ):  # as VideoReader gives them
        height, width, channels, count = shape
        text = f"{count} frames of {width}x{height} (width x height)"
        note(f"order of {path}", f"{path}: {shape} is read as {text}")
        array = np.moveaxis(array, -1, 0)
        return array[..., 0] if channels == 1 else array
    if array.ndim == 3 and shape[-1] > 4 and 0 not in shape:
        last = frames_last(shape, matlab)
        array = np.moveaxis(array, -1, 0) if last and matlab else array
        if last or matlab:
            count, height, width = array.shape
            other = "with another order of its axes: numpy.moveaxis(array, -1, 0)"
            note(
                f"order of {path}",
                f"{path}: {shape} is read as {count} frames of {width}x{height} (width x height). If "
                f"this is wrong, save it as .npy {'as it is' if last and matlab else other}",
            )
    colours = array.ndim == 3 and shape[-1] == 3 and (array != array[..., :1]).any()
    if colours or (array.ndim == 3 and shape[0] == 3):
        found = ("a picture in colours", "three frames", "-1, 0")
        read, other, axes = found if colours else ("3 frames", "one picture", "0, -1")
        note(
            f"three of {path}",
            f"{path}: {shape} is read as {read}. If it is {other}, save numpy.moveaxis(array, {axes}) "
            "as .npy",
        )
    if array.ndim == 2 or (array.ndim == 3 and shape[-1] == 3):
        array = array[None]
    wrong = array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != 3)
    if wrong or 0 in shape or (array.ndim == 3 and array.shape[2] in (2, 4)):  # bands, not columns
        raise DataError(
            f"{path}: found shape {shape}, expected (H, W), (N, H, W), or one of these with 1 or 3 "
            "values a pixel"
        )
    return array


def read_raw(path: Path, layout: "RawLayout") -> np.ndarray:
    """Frames of a file that holds nothing but their pixels, row by row, (N, H, W), left on disk.

    Raises:
        DataError: the file's size does not fit.
    """
    size, frame = path.stat().st_size, layout.width * layout.height * layout.dtype.itemsize
    if not size or size % frame:
        raise DataError(
            f"{path}: found {size} bytes, expected a multiple of {frame} "
            f"({layout.width}x{layout.height}, {layout.dtype}); type another --raw WIDTHxHEIGHT:TYPE"
        )
    shape = (size // frame, layout.height, layout.width)
    return np.memmap(path, layout.dtype, "r", shape=shape)


class RawLayout:
    """What --raw says of files without a header: 640x512:uint16, big-endian as >u2.

    Raises:
        DataError: not of that form.
    """

    def __init__(self, text: str):
        try:
            size, _, kind = text.partition(":")
            self.width, self.height = (int(part) for part in size.lower().split("x"))
            self.dtype = np.dtype(kind or "uint16")
            if min(self.width, self.height) < 1 or self.dtype.kind not in "uif":
                raise ValueError
        except (ValueError, TypeError):
            raise DataError(
                f"--raw {text}: expected WIDTHxHEIGHT:TYPE, as 640x512:uint16 or 640x512:>u2"
            ) from None


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
