"""Which images of a data set are in its training and its test list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.files import atomic_write
from ismallnet.folders import leads_inside, readable, shown, walk
from ismallnet.lists import KINDS, Index, listed
from ismallnet.oddities import masks_as_images, same_files
from ismallnet.pairing import ImageFile, checked

if TYPE_CHECKING:
    from ismallnet.layouts import DatasetFolder

LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".lst", ".list", ".xlsx", ".mat", ".npy", ".yaml")
SPLIT_SEED = 0  # of the 50:50 split that is made where a data set has no list


def apply_lists(data: DatasetFolder, images: list[ImageFile], lists: dict[str, Path] | None) -> None:
    """Fills in the data set's lists and problems: from the list files, from the split folders, or
    from a new 50:50 split."""
    chosen: dict[str, list[ImageFile]] = {}
    if lists is None and any(image.part for image in images):
        named: dict[str, dict[str, ImageFile]] = {}
        for image in images:
            entries = named.setdefault("test" if image.is_test else "train", {})
            entries.setdefault(image.name, image)  # the first wins
        chosen = {part: [*entries.values()] for part, entries in named.items()}
    else:
        lists = lists or make_split(data, images)
        data.layout += f", lists {' and '.join(shown(path, data.root) for path in lists.values())}"
        index = Index(images, data.root)
        for part, path in lists.items():
            chosen[part], data.problems[part], notes = listed(
                path, index, data.root, part, data.reading.follow_links
            )
            data.notes += notes
    for part, entries in chosen.items():
        problems = data.problems.setdefault(part, [])
        samples = [checked(image, data.root, data.reading, problems) for image in entries]
        data.lists[part] = [sample for sample in samples if sample is not None]
    names = [{s.name for s in samples} for samples in data.lists.values()]
    if len(names) == 2 and (both := names[0] & names[1]):
        data.notes.append(f"warning: {len(both)} images are in the training and the test list")
    if len(names) == 2 and (pairs := same_files(data.lists["train"], data.lists["test"])):
        data.notes.append(
            f"warning: {len(pairs)} test images are copies of training images: {some(pairs)}"
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


def stray_lists(root: Path) -> list[str]:
    """The files that look like lists of images by their names, at any depth; of a folder with more than
    20 of them, as a folder of labels has, none."""
    found = []
    for folder in walk(root):
        inside = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in LIST_SUFFIXES]
        inside = [p for p in inside if p.stem.lower().startswith(KINDS) and p.is_file()]
        found += inside if len(inside) <= 20 else []
    return sorted(shown(path, root) for path in found)


def make_split(data: DatasetFolder, images: list[ImageFile]) -> dict[str, Path]:
    """A seeded 50:50 split, written to 50_50/ and announced; never where there are lists already,
    which it would outrank from then on."""
    if strays := stray_lists(data.root):
        raise DataError(
            f"{data.root}: cannot tell which of {some(strays)} are its lists; name two text files "
            "with a name a line: --split TRAIN.txt TEST.txt"
        )
    names = sorted({readable(image.name) for image in images})
    order = np.random.default_rng(SPLIT_SEED).permutation(len(names))
    half = len(names) // 2
    if not leads_inside(data.root / "50_50", data.root):
        raise DataError(f"{data.root / '50_50'}: a link that leads out of the data set")
    lists = {}
    for part, chosen in (("train", order[:half]), ("test", order[half:])):
        lists[part] = data.root / "50_50" / f"{part}.txt"
        try:
            with atomic_write(lists[part]) as file:
                file.write("".join(f"{names[i]}\n" for i in sorted(chosen)).encode())
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "a file name is not UTF-8"
            raise DataError(
                f"{data.root}: has no list of training and test images, and a 50:50 split cannot be "
                f"written there ({reason}); name your lists: --split TRAIN.txt TEST.txt"
            ) from error
    data.notes.append(
        f"no list found: made a 50:50 split (seed {SPLIT_SEED}) in {data.root / '50_50'}: "
        f"{half} training and {len(names) - half} test images"
    )
    return lists
