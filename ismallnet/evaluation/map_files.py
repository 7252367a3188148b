"""What lies in RESULTS/NAME: whether it is finished, which network it is of, and its maps."""

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.evaluation.metrics import quantise
from ismallnet.files import read_json
from ismallnet.images.arrays import ARRAYS, read_array
from ismallnet.images.picture import decode
from ismallnet.parallel import read_ahead

# What weights were chosen on, or their figures are of (`selected_on`, `figures_on` in a checkpoint's
# `info`, and in about.json).
NOTHING = "nothing"
TEST_LIST = "the test list"
HELD_OUT = "held-out training images (--hold-out {})"
MAP_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
MAP_PREFIXES = ("pred_", "Pred_", "out_", "result_")  # mask_X.png may be the ground truth
MAP_SUFFIXES = ("", "_Pred", "_pred", "_mask", "_out", "_result", "_pixels0")
ROUNDING = 1e-3  # by which floats may lie outside of [0, 1]
# Pictures of visualization.py that lie among the maps.
FIGURES = ("montage", "roc", "precision_recall", "pd_fa", "training", "training_loss")
FIGURE_FOLDERS = ("figures", "report", "paper")
UNFINISHED = "unfinished.json"  # in a folder of maps while test.py is at work there


def check_finished(maps: Path, names: Collection[str]) -> None:
    """
    Args:
        names: of the images whose maps are to be read.

    Raises:
        DataError: the maps may be of two networks: test.py was interrupted, or its last call made those
            of other images.
    """
    if (maps / UNFINISHED).exists() and not (maps / "about.json").exists():
        raise DataError(
            f"{maps}: test.py was interrupted there, or is still at work; some maps may be of an "
            "earlier call. Type its command again"
        )
    made = read_json(maps / "about.json").get("images")
    others = [name for name in names if name not in set(made)] if isinstance(made, list) else []
    if others:
        raise DataError(
            f"{maps}: test.py's last call there made no maps of {len(others)} of these {len(names)} "
            f"images: {some(others)}; any that are there may be of another network. Type test.py again "
            "with the lists of this command (--split)"
        )


def check_names(maps: Path, names: Collection[str]) -> None:
    """
    Raises:
        DataError: an image's map has the name of a figure that would take its place.
    """
    if taken := sorted(n for n in names if n in FIGURES or n.split("/")[0] in FIGURE_FOLDERS):
        raise DataError(
            f"{maps / taken[0]}.png: found an image called {taken[0]}, whose map a figure of that name "
            "would replace; rename the image and its mask, then type test.py again"
        )


def read_about(maps: Path) -> dict:
    """What test.py says of a folder of maps, less the images' names; nothing of another program's."""
    about = read_json(maps / "about.json")
    return {key: value for key, value in about.items() if key != "images"}


def map_file(folder: Path, name: str) -> Path:
    """The map of an image in a folder of maps: X.png, or what other programs call it."""
    (place, stem), plain = os.path.split(name), folder / f"{name}.png"
    stems = [f"{stem}{suffix}" for suffix in MAP_SUFFIXES]
    stems += [f"{prefix}{stem}" for prefix in MAP_PREFIXES]
    candidates = (folder / place / f"{one}{end}" for one in stems for end in MAP_ENDINGS)
    return next((path for path in candidates if path.exists()), plain)


def maps_in(folder: Path, name: str) -> Path:
    """Where in a folder of maps those of a data set are: in its sub-folder NAME, or right in it."""
    return folder / name if (folder / name).is_dir() else folder


def own_name(maps: str | Path, name: str) -> str:
    """What a folder of maps is called: OTHER, where it is OTHER or OTHER/NAME."""
    folder = Path(maps).resolve()
    return folder.parent.name if folder.name == name else folder.name


def same_images(folders: list[Path], names: list[str]) -> None:
    """
    Raises:
        DataError: some of the folders have a map of an image, and others have none.
    """
    there = [folder for folder in folders if folder.is_dir()]  # of others eval.py says more
    missing = {folder: {n for n in names if not map_file(folder, n).exists()} for folder in there}
    everywhere = set.intersection(*missing.values()) if missing else set()
    for folder, lacks in missing.items():
        if partly := [name for name in names if name in lacks - everywhere]:
            other = next(one for one in there if partly[0] not in missing[one])
            shown = ", ".join(partly[:5]) + (", …" if len(partly) > 5 else "")
            raise DataError(
                f"{folder}: found no maps of {len(partly)} images that {other} has ({shown}); runs are "
                "compared on the same images only. Make the missing maps, or evaluate each run alone"
            )


def decode_map(path: Path) -> np.ndarray:
    """A map as it lies in its file: HxW, uint8, or floats in [0, 1].

    Raises:
        DataError: missing, unreadable, or something else.
    """
    if not path.exists():
        raise DataError(f"{path}: missing")
    pixels = np.array(read_array(path)) if path.suffix.lower() in ARRAYS else decode(path)
    pixels = pixels.squeeze() if pixels.ndim > 2 and 1 in pixels.shape else pixels
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    whole = pixels.dtype.kind in "bui" and pixels.size and pixels.min() >= 0 and pixels.max() <= 255
    if whole:  # also 0 and 1 as 64 bits
        pixels = pixels.astype(np.uint8)
    if pixels.dtype.kind == "f" and pixels.size:
        pixels = probabilities(pixels, path)
    if pixels.ndim != 2 or (pixels.dtype != np.uint8 and pixels.dtype.kind != "f"):
        raise DataError(
            f"{path}: found {pixels.dtype} {pixels.shape}, expected 8-bit grey, probability x 255, or "
            "floats from 0 to 1"
        )
    return pixels


def probabilities(values: np.ndarray, path: Path) -> np.ndarray:
    """Floats in [0, 1]; those that are outside by a rounding error are cut off.

    Raises:
        DataError: they are none.
    """
    if missing := int(np.isnan(values).sum()):
        raise DataError(f"{path}: {missing} pixels are NaN, expected probabilities from 0 to 1")
    low, high = float(values.min()), float(values.max())
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return values.clip(0, 1)
    hint = "logits? Apply a sigmoid"
    if high > 100:
        hint = "from 0 to 255? Divide by 255"
    elif low > -0.5 and high < 1.5:
        hint = "resized by cubic interpolation? Cut them off: numpy.clip(map, 0, 1)"
    raise DataError(
        f"{path}: found floats from {low:g} to {high:g}, expected probabilities from 0 to 1"
        f"{f'; {hint}' if np.isfinite((low, high)).all() else ''}"
    )


def read_map(path: Path, shape: tuple[int, int], zero_one: bool = False) -> np.ndarray:
    """A probability map, HxW uint8.

    Args:
        zero_one: its values are 0 and 1, which become 0 and 255 (`survey_maps`).

    Raises:
        DataError: missing, unreadable, not grey, or of another size than its image.
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


def holds_zero_one(folder: Path, names: list[str]) -> bool:
    """Whether the maps of a folder are another program's that hold 0 and 1; says so, and what else is
    odd in the maps of other programs.

    Raises:
        DataError: one file would be the map of two images, or as `survey_maps`.
    """
    files: dict[Path, str] = {}
    for name in names:
        path = map_file(folder, name)
        if path.exists() and (other := files.setdefault(path, name)) != name:
            raise DataError(
                f"{path}: {other} and {name} would both have this map; one of them has none. Name the "
                f"maps as the images: {other}.png, {name}.png"
            )
    if read_about(folder):
        return False
    if folder.is_dir() and names and not any(map_file(folder, name).exists() for name in names):
        held = some(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise DataError(
            f"{folder}: found no map of the {len(names)} images in it; it holds {held}. Expected "
            f"{names[0]}.png, {names[0]}_pred.png or pred_{names[0]}.png, also {', '.join(MAP_ENDINGS)}"
        )
    if note := several_files(folder, names):
        print(note)
    if not survey_maps(folder, names):
        return False
    print(f"{folder}: the maps' values are 0 and 1; 1 is taken for 255")
    return True


def several_files(folder: Path, names: list[str]) -> str:
    """A note on the images of which more than one file X.png, X_anything.png, … lies in a folder of
    maps, with the file that is taken; empty where there are none."""
    files: dict[str, list[str]] = {name: [] for name in names}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in MAP_ENDINGS:
            beginning = next((p for p in MAP_PREFIXES if path.stem.startswith(p)), "")
            stem = path.stem if path.stem in files else path.stem.removeprefix(beginning)
            while stem not in files and "_" in stem:  # the longest image name that the file begins with
                stem = stem.rpartition("_")[0]
            if stem in files:
                files[stem].append(path.name)
    several = {name: found for name, found in files.items() if len(found) > 1}
    if not several:
        return ""
    name, found = next(iter(several.items()))
    return (
        f"note: {folder}: several files belong to one image, of {len(several)} images, as "
        f"{', '.join(found)}: {map_file(folder, name).name} is taken. If it is not a map, move it "
        "to a folder of its own"
    )


def survey_maps(folder: Path, names: list[str]) -> bool:
    """Whether the maps of other programs, all together, hold 0 and 1 in place of 0 and 255. Notes say
    where single maps do, and where no map reaches the threshold.

    Raises:
        DataError: more than half of all pixels are target, so that the maps are inverted.
    """
    largest, target, total, floats = 0.0, 0, 0, False
    ones = []  # maps whose largest value is 1

    def look(name: str) -> np.ndarray | None:
        try:
            return decode_map(map_file(folder, name))
        except DataError:  # named when its turn comes
            return None

    for name, pixels in zip(names, read_ahead(look, names)):
        if pixels is None:
            continue
        whole = pixels.dtype == np.uint8
        peak = float(pixels.max()) if whole else 255 * float(pixels.max())
        if whole and peak == 1:
            ones.append(name)
        floats = floats or not whole
        largest = max(largest, peak)
        total += pixels.size
        least = 0.5 if not whole else 128 if largest > 1 or floats else 1
        target += int((pixels >= least).sum())
    if 2 * target > total:
        raise DataError(
            f"{folder}: {100 * target / total:.0f} % of all pixels of the maps are target: they are "
            "inverted, or no maps; targets must be white"
        )
    zero_one = largest == 1 and not floats
    if ones and not zero_one:
        print(
            f"note: {folder}: {len(ones)} maps have 1 as their largest value, others {largest:g}: "
            f"{some(ones)}. All are read as probability x 255; if 1 is target in those, save them again"
        )
    if total and not zero_one and largest < 127.5:
        print(
            f"note: {folder}: no map reaches 128, half of 255 (the largest value is {largest:g}), so "
            "nothing counts as detected; save the maps as probability x 255"
        )
    return zero_one


def check_place(folder: Path, data: Path) -> None:
    """
    Raises:
        DataError: results would be written among the files of a data set.
    """
    if folder.resolve() == data.resolve():
        raise DataError(
            f"{folder}: is the data set itself; expected another folder, as --results results"
        )


def results_folder(results: str, name: str | None, paths: list[str]) -> Path:
    """Where results of frames go: RESULTS/NAME, without a name that of the only path, or frames."""
    pattern = len(paths) == 1 and not os.path.exists(paths[0]) and any(c in paths[0] for c in "*?[")
    default = Path(paths[0]).stem if len(paths) == 1 and not pattern else ""
    return Path(results) / (name or (default if default not in ("", "..") else "frames"))


def chosen_on_test(maps: Path) -> bool:
    """Whether test.py says that the maps' weights were chosen on the test list."""
    return read_about(maps).get("selected_on") == TEST_LIST
