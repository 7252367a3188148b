"""The probability maps in a folder, of test.py or of any other program: which file is the map of which
image, what its values mean, and whether test.py has finished there.

A map is X.png, else the only X_*.png: 8 bits, probability x 255. Other programs' may hold 0 and 1 in
all, or be floats from 0 to 1 (.npy).
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

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
ENDINGS = (".png", ".npy")
ROUNDING = 1e-3  # by which floats may lie outside of [0, 1]
ABOUT = "about.json"  # what test.py says of its maps; not there before all of them are
UNFINISHED = "unfinished.json"  # there while test.py is at work, and after it was interrupted
# Pictures of visualization.py that lie among the maps, and its folders there.
FIGURES = ("montage", "roc", "precision_recall", "pd_fa")
FIGURE_FOLDERS = ("figures", "report", "paper")


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
        return read_map(self.files[name], shape, self.zero_one)

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
    path, unfinished = folder / ABOUT, (folder / UNFINISHED).exists()
    return read_json(path), path.stat().st_mtime_ns if path.exists() else None, unfinished


def open_maps(folder: Path, names: Collection[str]) -> Maps:
    """The maps of images; prints what is to be said of other programs' values.

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
    files = map_files(folder, names)
    zero_one = not about and hold_zero_one(folder, list(files.values()))
    known = {key: value for key, value in about.items() if key != "images"}
    return Maps(folder, files, zero_one, known, (about, written, unfinished))


def map_files(folder: Path, names: Collection[str]) -> dict[str, Path]:
    """The map of each image.

    Raises:
        DataError: an image has none, or several files that could be it.
    """
    candidates: dict[str, list[Path]] = {name: [] for name in names}
    for place in {os.path.dirname(name) for name in names}:
        for path in sorted((folder / place).glob("*")):
            owner = os.path.join(place, path.stem)
            while owner not in candidates and "_" in os.path.basename(owner):
                owner = owner.rpartition("_")[0]  # the longest name that the file's begins with
            if owner in candidates and path.suffix in ENDINGS:
                candidates[owner].append(path)
    files = {n: [p for p in c if p.stem == os.path.basename(n)] or c for n, c in candidates.items()}
    if missing := [name for name, paths in files.items() if not paths]:
        held = some(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise DataError(
            f"{folder}: found no map of {len(missing)} of the {len(names)} images: {some(missing)}; it "
            f"holds {held}. Expected {missing[0]}.png or {missing[0]}_*.png, or .npy"
        )
    if doubled := next((name for name, paths in files.items() if len(paths) > 1), None):
        first, second = files[doubled][:2]
        raise DataError(
            f"{first}, {second.name}: both could be the map of {doubled}; expected one file, or "
            f"{doubled}.png"
        )
    return {name: paths[0] for name, paths in files.items()}


# --- values ----------------------------------------------------------------------------------------


def decode_map(path: Path) -> np.ndarray:
    """A map as it lies in its file: HxW, uint8, or floats in [0, 1]; rounding errors are cut off.

    Raises:
        DataError: unreadable, or something else.
    """
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


def read_map(path: Path, shape: tuple[int, int], zero_one: bool = False) -> np.ndarray:
    """A probability map, HxW uint8.

    Args:
        shape: of its image.
        zero_one: its values are 0 and 1, which become 0 and 255.

    Raises:
        DataError: unreadable, not grey, or of another size than its image.
    """
    pixels = decode_map(path)
    if pixels.shape != shape:
        (h, w), (height, width) = pixels.shape, shape
        raise DataError(
            f"{path}: found {w}x{h} (width x height), expected {width}x{height}, as its image; save "
            "maps without padding, brought back from the network's size"
        )
    if pixels.dtype.kind == "f":
        return quantise(pixels)
    return pixels * np.uint8(255) if zero_one else pixels


def values_of(path: Path) -> tuple[bool, np.ndarray]:
    """Whether a map holds floats, and how many of its pixels have each of the values 0-255."""
    pixels = decode_map(path)
    floats = pixels.dtype.kind == "f"
    return floats, np.bincount((quantise(pixels) if floats else pixels).ravel(), minlength=256)


def hold_zero_one(folder: Path, paths: list[Path]) -> bool:
    """Whether another program's maps hold 0 and 1, all together; says so, and where nothing counts as
    detected.

    Raises:
        DataError: names the files that are no maps; or more than half of all pixels are target.
    """
    values, problems = results_and_problems(values_of, paths, cores(), str(folder))
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


# --- names and places ------------------------------------------------------------------------------


def maps_in(folder: Path, name: str) -> Path:
    """Where in a folder of maps those of a data set are: in its sub-folder NAME, or right in it."""
    return folder / name if (folder / name).is_dir() else folder


def own_name(maps: str | Path, name: str) -> str:
    """What a folder of maps is called: OTHER, where it is OTHER or OTHER/NAME."""
    folder = Path(maps).resolve()
    return folder.parent.name if folder.name == name else folder.name


def metrics_folder(folder: str | Path, name: str) -> Path:
    """Where the metrics of maps go that a person names: beside our own maps, but never among another
    program's: results/OTHER/NAME."""
    maps, results = maps_in(Path(folder), name), Path("results")
    own = results.resolve() in maps.resolve().parents and maps.name == name
    return maps if own else results / own_name(folder, name) / name


def check_names(maps: Path, names: Collection[str]) -> None:
    """Refuses images whose maps have the name of a figure that would replace them."""
    if taken := sorted(n for n in names if n in FIGURES or n.split("/")[0] in FIGURE_FOLDERS):
        raise DataError(
            f"{maps / taken[0]}.png: found an image called {taken[0]}, whose map a figure of that name "
            "would replace; rename the image and its mask, then type test.py again"
        )


def check_place(folder: Path, data: Path) -> None:
    """Refuses to write results among the files of a data set."""
    if folder.resolve() == data.resolve():
        raise DataError(f"{folder}: is the data set itself; expected another folder, as results")
