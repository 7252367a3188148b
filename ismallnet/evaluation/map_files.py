"""The probability maps in a folder, of test.py or of any other program: which file is the map of which
image, what its values mean, and whether test.py has finished there.

A map is X.png, else the only X_*.png: 8 bits, probability x 255. Other programs' may hold 0 and 1 in
all, or be floats from 0 to 1 (.npy).
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.evaluation.metrics import THRESHOLD, quantise
from ismallnet.files import read_json
from ismallnet.images.arrays import read_array
from ismallnet.images.picture import decode
from ismallnet.parallel import cores, results_and_problems

# What weights were chosen on, or their metrics are of (`selected_on`, `figures_on` in a checkpoint's
# `info`, and in about.json).
NOTHING = "nothing"
TEST_LIST = "the test list"
HELD_OUT = "held-out training images (--hold-out {})"
ROUNDING = 1e-3  # by which floats may lie outside of [0, 1]
MAPS_ABOUT = "about.json"  # what test.py says of its maps; not there before all of them are
UNFINISHED = "unfinished.json"  # there while test.py is at work, and after it was interrupted


@dataclass(frozen=True)
class Maps:
    """The maps of a list of images.

    Args:
        files: by the images' names.
        zero_one: whether they hold 0 and 1 in place of 0 and 255.
        about: what test.py says of them; nothing of another program's.
        record: `record_of` their folder when these maps were opened.
    """

    folder: Path
    files: dict[str, Path]
    zero_one: bool
    about: dict
    record: tuple

    @property
    def chosen_on_test(self) -> bool:
        """Whether test.py says that the maps' weights were chosen on the test list."""
        return self.about.get("selected_on") == TEST_LIST

    def read(self, name: str, shape: tuple[int, int]) -> np.ndarray:
        """The map of an image of that shape, HxW uint8."""
        pixels = read_map(self.files[name], shape)
        return pixels * np.uint8(255) if self.zero_one else pixels

    def check_unchanged(self) -> None:
        """Refuses maps that test.py has changed since they were opened."""
        if record_of(self.folder) != self.record:
            raise DataError(
                f"{self.folder}: test.py wrote there in the meantime; what was read may be of two "
                "networks. When it has ended, type this command again"
            )


def record_of(folder: Path) -> tuple[dict, int | None, bool]:
    """What test.py says of its maps in a folder, when it said so, and whether it has begun again: new
    whenever it writes there."""
    path, unfinished = folder / MAPS_ABOUT, (folder / UNFINISHED).exists()
    return read_json(path), path.stat().st_mtime_ns if path.exists() else None, unfinished


def open_maps(folder: Path, names: Collection[str]) -> Maps:
    """
    Raises:
        DataError: missing, ambiguous or inverted maps; or the maps may be of two networks, since
            test.py was interrupted, or its last call made those of other images.
    """
    about, written, unfinished = record_of(folder)
    if written is None and unfinished:
        raise DataError(
            f"{folder}: test.py was interrupted there, or is still at work; some maps may be of an "
            "earlier call. Type its command again"
        )
    if others := [name for name in names if name not in set(about.get("images", names))]:
        raise DataError(
            f"{folder}: test.py's last call there made no maps of {len(others)} of these {len(names)} "
            f"images: {some(others)}; any that are there may be of another network. Type test.py again "
            "with the lists of this command (--split)"
        )
    files = find_maps(folder, names)
    zero_one = not about and hold_zero_one(folder, list(files.values()))
    known = {key: value for key, value in about.items() if key != "images"}
    return Maps(folder, files, zero_one, known, (about, written, unfinished))


def find_maps(folder: Path, names: Collection[str]) -> dict[str, Path]:
    """The map of each image."""
    candidates: dict[str, list[Path]] = {name: [] for name in names}
    for place in {os.path.dirname(name) for name in names}:
        for path in sorted((folder / place).glob("*")):
            owner = os.path.join(place, path.stem)
            while owner not in candidates and "_" in os.path.basename(owner):
                owner = owner.rpartition("_")[0]  # the longest name that the file's begins with
            if owner in candidates and path.suffix in (".png", ".npy"):
                candidates[owner].append(path)
    files = {n: [p for p in c if p.stem == os.path.basename(n)] or c for n, c in candidates.items()}
    if missing := [name for name, paths in files.items() if not paths]:
        held = some(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise DataError(
            f"{folder}: found no map of {len(missing)} of the {len(names)} images: {some(missing)}; it "
            f"holds {held}. Expected {missing[0]}.png or {missing[0]}_*.png, or .npy"
        )
    for name, (first, *others) in files.items():
        if others:
            raise DataError(
                f"{first}, {others[0].name}: both could be the map of {name}; expected one file, or "
                f"{name}.png"
            )
    return {name: paths[0] for name, paths in files.items()}


# --- values ----------------------------------------------------------------------------------------


def decode_map(path: Path) -> np.ndarray:
    """A map as it lies in its file: HxW, uint8, or floats in [0, 1]; rounding errors are cut off."""
    pixels = np.array(read_array(path)) if path.suffix == ".npy" else decode(path)
    pixels = pixels.squeeze() if pixels.ndim > 2 and 1 in pixels.shape else pixels
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (np.nan, np.nan)
    if pixels.ndim == 2 and pixels.dtype.kind in "bui" and low >= 0 and high <= 255:
        return pixels.astype(np.uint8)  # also 0 and 1 as 64 bits
    if pixels.ndim == 2 and pixels.dtype.kind == "f" and low >= -ROUNDING and high <= 1 + ROUNDING:
        return pixels.clip(0, 1)
    raise DataError(
        f"{path}: found {pixels.dtype} {pixels.shape} from {low:g} to {high:g}, expected 8-bit grey, "
        "probability x 255, or floats from 0 to 1. Apply the sigmoid to logits, divide floats up to "
        "255 by 255, cut off what interpolation adds (numpy.clip)"
    )


def read_map(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A probability map, HxW uint8.

    Raises:
        DataError: unreadable, not grey, or of another shape than its image.
    """
    pixels = decode_map(path)
    if pixels.shape != shape:
        (h, w), (height, width) = pixels.shape, shape
        raise DataError(
            f"{path}: found {w}x{h} (width x height), expected {width}x{height}, as its image; save "
            "maps without padding, brought back from the network's size"
        )
    return quantise(pixels) if pixels.dtype.kind == "f" else pixels


def levels_of(path: Path) -> tuple[bool, np.ndarray]:
    """Whether a map holds floats, and how many of its pixels have each of the values 0-255."""
    pixels = decode_map(path)
    floats = pixels.dtype.kind == "f"
    return floats, np.bincount((quantise(pixels) if floats else pixels).ravel(), minlength=256)


def hold_zero_one(folder: Path, paths: list[Path]) -> bool:
    """Whether another program's maps hold 0 and 1, all together; refuses files that are no maps."""
    values, problems = results_and_problems(levels_of, paths, cores(), str(folder))
    if problems:
        raise DataError("\n  ".join([f"{folder}: {len(problems)} maps cannot be used:", *problems]))
    levels = sum(counts for _, counts in values)
    peak = int(levels.nonzero()[0].max())
    zero_one = peak == 1 and not any(floats for floats, _ in values)
    share = levels[1 if zero_one else THRESHOLD :].sum() / levels.sum()
    if share > 0.5:
        raise DataError(
            f"{folder}: {100 * share:.0f} % of all pixels of the maps are target: they are inverted, "
            "or no maps; targets must be white"
        )
    if zero_one:
        print(f"{folder}: the maps' values are 0 and 1; 1 counts as 255")
    elif peak < THRESHOLD:
        print(f"note: {folder}: no map reaches 128, half of 255 (the largest value is {peak})")
    return zero_one


# --- places ----------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where the maps of a data set are, where their metrics go, and what they are called."""

    maps: Path
    metrics: Path
    title: str


def place_of(folder: Path, name: str) -> Place:
    """The maps of a data set in a folder OTHER, or OTHER/NAME. Metrics go beside our own maps, never
    among another program's: to results/OTHER/NAME."""
    maps = folder / name if (folder / name).is_dir() else folder
    whole, results = maps.resolve(), Path("results")
    title = whole.parent.name if whole.name == name else whole.name
    own = whole.name == name and results.resolve() in whole.parents
    return Place(maps, maps if own else results / title / name, title)
