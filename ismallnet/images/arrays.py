"""Frames as arrays of numbers: .npy, .npz, .mat and .csv files."""

from pathlib import Path

import numpy as np

from ismallnet.cli import DataError, note
from ismallnet.files import reading

ARRAYS = (".npy", ".npz", ".mat", ".csv")


def read_array(path: Path) -> np.ndarray:
    """The numbers of a .npy, .npz, .mat or .csv file, as they are there; .npy is left on disk.

    Raises:
        DataError: unreadable, or several arrays of which any could be meant.
    """
    suffix = path.suffix.lower()
    with reading(path, f"{suffix[1:]} file"):
        if suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return the_only({name: file[name] for name in file.files}, path)
        if suffix == ".csv":
            return read_csv(path)
        from scipy.io import loadmat

        return the_only(loadmat(path, appendmat=False), path)


def read_csv(path: Path) -> np.ndarray:
    """A table of numbers with commas between them, (H, W) float32."""
    try:
        table = np.loadtxt(path, np.float32, delimiter=",", ndmin=2, encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(f"{error}; expected rows of pixels alone, as 7.5,8.25") from error
    if table.shape[1] < 8:
        raise DataError(f"{path}: found a table of {table.shape[1]} columns, expected rows of pixels")
    return table


def the_only(arrays: dict, path: Path) -> np.ndarray:
    """The one array among them that can be a picture."""
    pictures = {
        name: value
        for name, value in arrays.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "uif"
        and sum(side > 1 for side in value.shape) > 1
    }  # fmt: skip
    if len(pictures) != 1:
        names = ", ".join(f"{name} {value.shape}" for name, value in pictures.items()) or "none"
        raise DataError(f"{path}: expected one picture in it, found {names}; save it as .npy")
    return next(iter(pictures.values()))


def as_frames(array: np.ndarray, path: Path) -> np.ndarray:
    """An array as frames, (N, H, W) or (N, H, W, 3).

    Args:
        array: (H, W), (H, W, 1), (H, W, 3), (N, H, W), (N, H, W, 1) or (N, H, W, 3). MATLAB's programs
            put frames last, so of .mat (H, W, N), (H, W, 1, N) and (H, W, 3, N) in place of these.

    Raises:
        DataError: of another shape, empty, or not numbers.
    """
    shape = array.shape
    if array.dtype.kind not in "uif":
        raise DataError(f"{path}: found {array.dtype}, expected integers or floats")
    single = array.ndim == 2 or (array.ndim == 3 and shape[-1] in (1, 3))
    if path.suffix.lower() == ".mat" and not single:
        array = np.moveaxis(array, -1, 0)
        read_as = f"{shape} is read as {shape[-1]} frames of {shape[1]}x{shape[0]} (width x height)"
        note(f"order of {path}", f"{path}: {read_as}; save another order as .npy")
    elif array.ndim == 3 and not single and 2 * shape[-1] <= min(shape[:2]):
        raise DataError(
            f"{path}: found shape {shape}: {shape[0]} narrow frames, or {shape[-1]} frames or bands? "
            "Save numpy.moveaxis(array, -1, 0) if frames come last, array[..., None] if they are narrow"
        )
    array = array[None] if single else array
    array = array[..., 0] if array.shape[-1] == 1 else array
    if 0 in shape or not (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3)):
        raise DataError(
            f"{path}: found shape {shape}, expected (H, W), (N, H, W), or one of these with 1 or 3 "
            "values a pixel"
        )
    return array
