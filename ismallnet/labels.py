"""Label decoupling: masks -> interior and boundary maps, and the maps of a whole data set on disk."""

import contextlib
import os
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.datasets.checks import complaint
from ismallnet.datasets.masks import TARGET, is_resized, loaded_mask, modified, read_mask, resized_note
from ismallnet.datasets.pairing import leads_inside
from ismallnet.datasets.sample import MAPS, DatasetFolder, MaskRule, Sample
from ismallnet.files import lock, read_json, sweep, write_json, write_png
from ismallnet.images.picture import decode, image_shape
from ismallnet.parallel import results_and_problems

Shapes = Mapping[str, tuple[int, int]]  # (H, W) of images, by name
NO_SHAPES: Shapes = {}
MAKING_S = 600.0  # how long another program may make label maps before this one gives up


def decouple(mask: np.ndarray, method: str = "authors") -> tuple[np.ndarray, np.ndarray]:
    """Split a ground-truth mask into an interior and a boundary map.

    Args:
        mask: HxW uint8, 0 background, 255 target.
        method: "authors" (published code) or "wei" (Wei et al., CVPR 2020, eq. 2-3).

    Returns:
        (interior, boundary), both HxW uint8 in [0, 255]. With "wei" their sum is the mask; with
        "authors" the interior map reaches two pixels beyond it, since a blur comes first.

    Raises:
        ValueError: mask is not two-dimensional uint8, or no such method.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"mask: found {mask.dtype} {mask.shape}, expected uint8 (H, W)")
    if method not in METHODS:
        raise ValueError(f"method: found {method!r}, expected one of {', '.join(METHODS)}")
    return METHODS[method](mask) if mask.any() else (np.zeros_like(mask), np.zeros_like(mask))


def authors_maps(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    blurred = (cv2.blur(mask, (5, 5)) > 0).astype(np.uint8)
    if not blurred.any():  # grey values too faint to survive the blur
        return np.zeros_like(mask), mask
    root = np.sqrt(cv2.distanceTransform(blurred, cv2.DIST_L2, 5))
    interior = np.floor(root / root.max() * np.float32(255)).astype(np.uint8)
    return interior, cv2.subtract(mask, interior)  # 0 where the interior map is larger


def wei_maps(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if mask.all():
        return mask, np.zeros_like(mask)
    distance = cv2.distanceTransform((mask > 0).astype(np.uint8), cv2.DIST_L2, 5)
    interior = np.rint(mask * (distance / distance.max())).astype(np.uint8)
    return interior, mask - interior


METHODS = {"authors": authors_maps, "wei": wei_maps}


# --- the maps of a data set on disk ---------------------------------------------------------------


def maps_folder(data: DatasetFolder, maps_root: str | os.PathLike | None) -> Path:
    """Where interior/X.png and boundary/X.png of a data set are."""
    return Path(maps_root) / data.name if maps_root else data.root


def map_paths(folder: Path, sample: Sample) -> list[Path]:
    return [folder / kind / f"{sample.name}.png" for kind in MAPS]


@contextlib.contextmanager
def maps_lock(data: list[DatasetFolder], maps_root: str | None) -> Iterator[None]:
    """Keeps other programs from making the label maps of data sets in another way, from the making on
    until they are read. Where nothing can be written nobody can."""
    with contextlib.ExitStack() as locks:
        for folder in sorted(maps_folder(folder, maps_root) for folder in data):
            above = next(place for place in (folder, *folder.parents) if place.is_dir())
            if os.access(above, os.W_OK):
                locks.enter_context(lock(folder, "label maps are being made", MAKING_S))
        yield


def read_maps(
    folder: Path, sample: Sample, shape: tuple[int, int], again: str = "python utils.py"
) -> list[np.ndarray]:
    """[interior, boundary] of a sample as `utils.py` wrote them, each HxW uint8; `again` is the command
    that makes them, for errors."""
    maps = []
    for path in map_paths(folder, sample):
        if not path.is_file():
            raise DataError(f"{path}: missing; type {again}")
        pixels = decode(path)
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise DataError(f"{path}: found {pixels.shape}, expected {shape}; type {again} --force")
        maps.append(pixels)
    return maps


def checksum(maps: list[np.ndarray]) -> int:
    return zlib.crc32(np.stack(maps).tobytes())


def check_maps(folder: Path, method: str | None, threshold: int, again: str) -> None:
    """Refuses a folder without label maps, or whose maps were made in another way; of any method with
    None."""
    record = read_json(folder / "maps.json")
    if not record:
        raise DataError(f"{folder}: found no label maps; make them: {again}")
    made = record.get("method"), record.get("mask_threshold")
    method = method or made[0]
    if made != (method, threshold):
        raise DataError(
            f"{folder}: found label maps of method {made[0]} and mask threshold {made[1]}, expected "
            f"{method} and {threshold}; type {again} --labels {method}, or keep them apart: "
            "--maps-root DIR"
        )


def check_label_maps(labels: Path, samples: list[Sample], again: str, threshold: int) -> None:
    """Refuses label maps that are not there, of another threshold, or not of the masks as they are."""
    check_maps(labels, None, threshold, again)
    kept = kept_maps(labels, samples, read_json(labels / "maps.json")["method"], threshold)
    left = [sample for sample in samples if sample.name not in kept]
    if stale := [s.name for s in left if all(path.exists() for path in map_paths(labels, s))]:
        raise DataError(
            f"{labels}: the label maps of {some(stale)} are not of the masks as they are now; make "
            f"them again: {again}"
        )


# --- making them ----------------------------------------------------------------------------------


def mask_state(sample: Sample) -> list[int]:
    """A mask file's size and checksum."""
    file = loaded_mask(sample)
    return [file.size, file.crc] if file else [0, 0]


def make_maps(
    sample: Sample, folder: Path, method: str, threshold: int, shapes: Shapes
) -> tuple[str, list[int], bool]:
    """Writes the two maps of a sample; returns its name, its record, and whether its mask was resized.

    Raises:
        DataError: its image or its mask cannot be read.
    """
    try:
        shape = shapes.get(sample.name) or image_shape(sample.image)
        mask = read_mask(sample, shape, threshold)
        resized, state, time = is_resized(sample, shape), mask_state(sample), modified(sample.mask)
    except OSError as error:
        raise DataError(f"{error.filename or sample.image}: {error.strerror}") from error
    files = zip(map_paths(folder, sample), decouple(mask, method))
    sizes = [write_png(path, pixels) for path, pixels in files]
    return sample.name, [*state, *shape, *sizes, time], resized


def masks_read(samples: list[Sample]) -> list:
    """How the masks' values are read, as maps.json keeps it."""
    rule = next((sample.rule for sample in samples if sample.rule), MaskRule())
    return [rule.numbers, rule.deep, rule.values]


def kept_maps(
    folder: Path, samples: list[Sample], method: str, threshold: int, shapes: Shapes = NO_SHAPES
) -> dict:
    """The entries of a folder's maps.json whose maps are still good, those of other lists' samples too:
    by name the mask's size and checksum, the image's height and width, the maps' sizes, and when the
    mask was changed."""
    record = read_json(folder / "maps.json")
    made = [record.get("method"), record.get("mask_threshold"), *record.get("masks_read", ())[:2]]
    if made != [method, threshold, *masks_read(samples)[:2]]:
        return {}
    masks = record["masks"]
    names = {sample.name for sample in samples}
    good = {name: entry for name, entry in masks.items() if name not in names}
    for sample in samples:
        try:
            shape = shapes.get(sample.name) or image_shape(sample.image)
            sizes = [path.lstat().st_size for path in map_paths(folder, sample)]  # a link has its own
            now = [*mask_state(sample), *shape, *sizes]
        except (OSError, DataError):  # made again, or named there
            continue
        if list(masks.get(sample.name, ()))[: len(now)] == now:
            good[sample.name] = [*now, modified(sample.mask)]
    return good


def check_own(folder: Path, samples: list[Sample], force: bool) -> None:
    """Refuses to write through a link, or to replace files that utils.py did not write."""
    files = [path for sample in samples for path in map_paths(folder, sample)]
    for place in sorted({path.parent for path in files}):
        if not leads_inside(place, folder):
            raise DataError(
                f"{place}: a link that leads out of {folder}; remove it, or put the maps elsewhere "
                "with --maps-root DIR"
            )
    ours = force or (folder / "maps.json").exists()
    if not ours and (there := [path for path in files if path.exists()]):
        raise DataError(
            f"{there[0]}: {len(there)} files are there already that utils.py did not write, as there "
            f"is no {folder / 'maps.json'}; put the label maps elsewhere: --maps-root DIR (for "
            "train.py and visualization.py too), or let utils.py replace the files: --force"
        )


def decouple_dataset(
    data: DatasetFolder,
    maps_root: str | None = None,
    method: str = "authors",
    threshold: int = TARGET,
    workers: int = 1,
    force: bool = False,
    shapes: Shapes = NO_SHAPES,
) -> str:
    """Makes the label maps of a data set's samples that have no good ones yet; under `maps_lock`.

    Args:
        shapes: (H, W) of images that were read already, by name.

    Returns:
        A line that says what was done.

    Raises:
        DataError: names all masks that cannot be used; or the folder cannot be written.
    """
    folder = maps_folder(data, maps_root)
    samples = list({s.name: s for kind in data.lists for s in data.samples(kind)}.values())
    check_own(folder, samples, force)
    sweep(folder, *(folder / kind for kind in MAPS))
    kept = {} if force else kept_maps(folder, samples, method, threshold, shapes)
    about = {"method": method, "mask_threshold": threshold, "masks_read": masks_read(samples)}
    record = folder / "maps.json"
    make = partial(make_maps, folder=folder, method=method, threshold=threshold, shapes=shapes)
    todo = [sample for sample in samples if sample.name not in kept]
    made, problems = [], []
    try:
        if todo:
            write_json(record, about | {"masks": kept})  # without the maps that change now
            made, problems = results_and_problems(make, todo, workers, f"{data.name} maps", "mask")
            entries = {name: entry for name, entry, _ in made}
            write_json(record, about | {"masks": kept | entries})
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: the maps cannot be written ({error.strerror}); put them "
            "elsewhere with --maps-root DIR (for train.py and visualization.py too)"
        ) from error
    if problems := [*(p for entries in data.problems.values() for p in entries), *problems]:
        raise DataError(complaint(data, " and ".join(data.lists), problems))
    resized = resized_note([name for name, _, was_resized in made if was_resized])
    return (
        f"{data.name}: maps of {len(made)} masks made, {len(samples) - len(made)} kept, "
        f"{resized}; method {method}, in {folder}/{{{','.join(MAPS)}}}"
    )
