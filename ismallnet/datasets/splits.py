"""Which images of a data set are in its training and its test list."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.datasets.lists import KINDS, Index, listed
from ismallnet.datasets.names import leads_inside, readable, shown, walk
from ismallnet.datasets.oddities import masks_as_images, same_files
from ismallnet.datasets.pairing import IMAGE_SUBFOLDERS, ImageFile, checked
from ismallnet.files import atomic_write

if TYPE_CHECKING:
    from ismallnet.datasets.find import DatasetFolder

LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".lst", ".list", ".xlsx", ".mat", ".npy", ".yaml")
SPLIT_SEED = 0  # of the 50:50 split that is made where a data set has no list


def apply_lists(
    data: DatasetFolder, images: list[ImageFile], lists: dict[str, Path] | None
) -> dict[Path, str]:
    """Fills in the data set's lists and problems: from the list files, from the split folders, or
    from a new 50:50 split, whose files and texts it returns for `write_split`."""
    new: dict[Path, str] = {}
    chosen: dict[str, list[ImageFile]] = {}
    if lists is None and any(image.part for image in images):
        named: dict[str, dict[str, ImageFile]] = {}
        for image in images:
            entries = named.setdefault("test" if image.is_test else "train", {})
            entries.setdefault(image.name, image)  # the first wins
        chosen = {part: [*entries.values()] for part, entries in named.items()}
    else:
        if not lists:
            new = make_split(data, images)
            lists = dict(zip(("train", "test"), new))
        data.layout += f", lists {' and '.join(shown(path, data.root) for path in lists.values())}"
        index = Index(images, data.root)
        for part, path in lists.items():
            chosen[part], data.problems[part], notes = listed(
                path, index, data.root, part, data.reading.follow_links, new.get(path)
            )
            data.notes += notes
    for part, entries in chosen.items():
        problems = data.problems.setdefault(part, [])
        samples = [checked(image, data.root, data.reading, problems) for image in entries]
        data.lists[part] = [sample for sample in samples if sample is not None]
    names = [{s.name for s in samples} for samples in data.lists.values()]
    if len(names) == 2 and (both := names[0] & names[1]):
        data.notes.append(
            f"warning: {len(both)} images are in the training and the test list: {some(sorted(both))}"
        )
    if len(names) == 2 and (pairs := same_files(data.lists["train"], data.lists["test"])):
        data.notes.append(
            f"warning: {len(pairs)} test images are copies of training images: "
            f"{some([f'{sample.name} = {other.name}' for sample, other in pairs])}"
        )
    if same := masks_as_images([s for samples in data.lists.values() for s in samples]):
        data.notes.append(
            f"warning: {len(same)} images are the same files as their masks: {some(same)}. Are these "
            "the images?"
        )
    used = {image.name for entries in chosen.values() for image in entries}
    if (
        lists
        and not any(data.problems.values())
        and (alone := sorted({image.name for image in images} - used))
    ):
        data.notes.append(f"note: {len(alone)} images are in none of these lists: {some(alone)}")
    return new


def stray_lists(root: Path) -> list[str]:
    """The files that look like lists of images by their names, at any depth; of a folder with more than
    20 of them, as a folder of labels has, none."""
    found = []
    for folder in walk(root):
        inside = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in LIST_SUFFIXES]
        inside = [p for p in inside if p.stem.lower().startswith(KINDS) and p.is_file()]
        found += inside if len(inside) <= 20 else []
    return sorted(shown(path, root) for path in found)


def make_split(data: DatasetFolder, images: list[ImageFile]) -> dict[Path, str]:
    """The files and texts of a seeded split, as near to 50:50 as can be, announced; never where there
    are lists already, which it would outrank from then on. Sub-folders may be sequences, whose frames
    are alike: none is in both lists."""
    if strays := stray_lists(data.root):
        raise DataError(
            f"{data.root}: cannot tell which of {some(strays)} are its lists; name two text files "
            "with a name a line: --split TRAIN.txt TEST.txt"
        )
    folder = data.root / "50_50"
    if not leads_inside(folder, data.root):
        raise DataError(f"{folder}: a link that leads out of the data set")
    train, test = halves(sequences(images), data.notes)
    words = "a 50:50 split"
    if train.keys() | test.keys() != {""}:
        words = "a split by whole sub-folders, as near to 50:50 as can be"
    counts = [sum(map(len, part.values())) for part in (train, test)]
    named = [sorted(part.keys() - {""}) for part in (train, test)]
    texts = [f" ({some([f'{name}/' for name in names])})" if names else "" for names in named]
    data.notes.append(
        f"no list found: made {words} (seed {SPLIT_SEED}) in {folder}: {counts[0]} training"
        f"{texts[0]} and {counts[1]} test images{texts[1]}"
    )
    files = {}
    for part, groups in (("train", train), ("test", test)):
        names = sorted(name for group in groups.values() for name in group)
        files[folder / f"{part}.txt"] = "".join(f"{name}\n" for name in names)
    return files


def sequences(images: list[ImageFile]) -> dict[str, list[str]]:
    """The names of images by their sub-folder, which may be a sequence, at the first depth at which
    there are several; "" for images in none."""
    folders = {
        readable(image.name): [f for f in image.subfolder.split("/") if f and f not in IMAGE_SUBFOLDERS]
        for image in images
    }
    deepest = max(map(len, folders.values()))
    several = (d for d in range(1, deepest) if len({tuple(f[:d]) for f in folders.values()}) > 1)
    depth = next(several, deepest)
    groups: dict[str, list[str]] = {}
    for name in sorted(folders):
        groups.setdefault("/".join(folders[name][:depth]), []).append(name)
    return groups


def halves(groups: dict[str, list[str]], notes: list[str]) -> tuple[dict, dict]:
    """Splits names into a training and a test half, seeded: groups as they are, those of "" one by
    one. A group that is all there is must be divided; a warning says so."""
    if len(groups) == 1 and "" not in groups:
        ((folder, names),) = groups.items()
        groups = {"": names}
        notes.append(
            f"warning: all images are in one sub-folder, {folder}/. If they are frames of one video, "
            "neighbouring frames are in both lists, and the figures are too good. Name lists of your "
            "own: --split TRAIN.txt TEST.txt"
        )
    half = sum(map(len, groups.values())) // 2
    singles = groups.get("", [])
    folders = sorted(groups.keys() - {""})
    mixed = [folders[i] for i in np.random.default_rng(SPLIT_SEED).permutation(len(folders))]
    chosen = near({folder: len(groups[folder]) for folder in mixed}, half)
    first = {folder: groups[folder] for folder in chosen}
    cut = half - sum(map(len, first.values()))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(singles))
    second = {folder: groups[folder] for folder in folders if folder not in first}
    for part, indices in ((first, order[:cut]), (second, order[cut:])):
        if len(indices):
            part[""] = [singles[i] for i in indices]
    # Where no half can be made, the larger part is for training.
    return (first, second) if cut <= len(singles) else (second, first)


def near(sizes: dict[str, int], half: int) -> list[str]:
    """Those of the names whose sizes add up to most, up to half."""
    sums: dict[int, tuple] = {0: ()}  # a name, and the sum before it
    for name, size in sizes.items():
        if half in sums:
            break
        for total in [*sums]:
            if total + size <= half and total + size not in sums:
                sums[total + size] = (name, total)
    names, step = [], sums[max(sums)]
    while step:
        names.append(step[0])
        step = sums[step[1]]
    return names


def write_split(data: DatasetFolder, files: dict[Path, str]) -> None:
    """Writes a new split, if all that it names can be used.

    Args:
        files: of `make_split`; none where there are lists.
    """
    if files and any(data.problems.values()):
        data.notes.append("note: the new lists are written when all images and masks can be used")
        return
    for path, text in files.items():
        try:
            with atomic_write(path) as file:
                file.write(text.encode())
        except (OSError, UnicodeError) as error:
            for other in files:  # one list alone would be taken for all there is
                with contextlib.suppress(OSError):
                    other.unlink()
            reason = getattr(error, "strerror", None) or "a file name is not UTF-8"
            raise DataError(
                f"{data.root}: has no list of training and test images, and a 50:50 split cannot be "
                f"written there ({reason}); name your lists: --split TRAIN.txt TEST.txt"
            ) from error
