"""What lies in a data set and is not used, or not what it should be: archives, links to nothing,
pictures in other formats, masks of no image, copies in both lists. Each is said, or named in an
error."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ismallnet.cli import some
from ismallnet.datasets.lists import PARTS
from ismallnet.datasets.names import image_files, inside, shown, walk

if TYPE_CHECKING:
    from ismallnet.datasets.pairing import ImageFile, Sample

OTHER_PICTURES = (".webp", ".gif", ".jp2", ".pgm", ".ppm", ".heic", ".avif", ".fits", ".fit", ".dcm")
OTHER_PICTURES += (".npy", ".npz", ".mat", ".raw", ".bin")
ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|7z|rar|gz|bz2|xz|zst)(\.\d+)?$", re.IGNORECASE)


def archives(*folders: Path) -> list[Path]:
    """The archives right in folders, by name."""
    files = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return [path for path in files if ARCHIVE.search(path.name) and path.is_file()]


def unpack_hint(root: Path) -> str:
    """For errors about files that a data set has not: its archives, in the folder and in the folders in
    it; or nothing."""
    folders = [f for f in sorted(root.iterdir()) if f.is_dir()] if root.is_dir() else []
    found = [shown(path, root) for path in archives(root, *folders)]
    if not found:
        return ""
    some_are = "is an archive" if len(found) == 1 else "are archives"
    return f". {some(found)} {some_are} that may hold them: unpack first, into {root}"


def left_out(folder: Path) -> tuple[list[str], list[str]]:
    """Of an image or mask folder and its sub-folders: the pictures in formats that data sets do not
    have, and the links that lead to no file; by their paths in it."""
    others, broken = [], []
    for path in (path for f in walk(folder) for path in sorted(f.iterdir())):
        name = path.relative_to(folder).as_posix()
        if path.name[0] == "." or path.is_dir():
            continue
        if path.is_symlink() and not path.exists():
            broken.append(name)
        elif path.suffix.lower() in OTHER_PICTURES:
            others.append(name)
    return others, broken


def left_out_hint(root: Path, names: tuple[str, ...]) -> str:
    """For errors about files that a data set has not: what lies in the folders of these names, also in
    split folders, instead, DVC's pointers, and archives; or nothing."""
    hints = []
    for folder in dict.fromkeys(f for name in (*names, *PARTS) if (f := inside(root, name))):
        others, broken = left_out(folder)
        place = shown(folder, root)
        if others:
            hints.append(
                f"{place}/ holds {len(others)} files that are not read: {some(others)}; save them as "
                "PNG"
            )
        if broken:
            hints.append(
                f"{place}/ holds {len(broken)} links to files that are not there: {some(broken)}. "
                "Fetch them (git annex get, dvc pull), or copy them"
            )
    if dvc := [path.name for path in sorted(root.glob("*.dvc")) if path.is_file()]:
        hints.append(f"{some(dvc)} of DVC stands for files that are not there; type: dvc pull")
    return "".join(f". {hint}" for hint in hints) + unpack_hint(root)


def masks_without_image(images: list[ImageFile]) -> list[Path]:
    """The files of the mask folders that are neither an image nor an image's mask."""
    used = {path for image in images for path in (image.path, image.mask)}
    folders = dict.fromkeys(image.masks for image in images if image.masks)
    files = (path for top in folders for f in walk(top) for path in image_files(f))
    return [path for path in dict.fromkeys(files) if path not in used]


def unused_masks(files: list[Path], images: list[ImageFile], root: Path) -> list[str]:
    """A note on files that no image has as its mask (`masks_without_image`)."""
    names = [shown(path, root) for path in files]
    if not names or not any(image.mask for image in images):
        return []
    return [
        f"note: {len(names)} mask files belong to no image, or to one that has another mask: "
        f"{some(names)}"
    ]


def left_out_notes(folder: Path, root: Path, files: list[Path]) -> list[str]:
    """Notes on what in an image folder is not used, and why."""
    others, broken = left_out(folder)
    stems = Counter(path.with_suffix("") for path in files)
    twice = [shown(path, root) for path in files if stems[path.with_suffix("")] > 1]
    notes, place = [], shown(folder, root)
    if others:
        notes.append(f"note: {len(others)} files in {place}/ are not read: {some(others)}")
    if broken:
        notes.append(f"note: {len(broken)} links in {place}/ lead to no file: {some(broken)}")
    if twice:
        notes.append(f"note: images of one name and several types, the first is used: {some(twice)}")
    return notes


def masks_as_images(samples: list[Sample]) -> list[str]:
    """The names of images that are, byte by byte, their own masks."""
    masked = [s for s in samples if s.mask and s.image.stat().st_size == s.mask.stat().st_size]
    return sorted(s.name for s in masked if s.image.read_bytes() == s.mask.read_bytes())


def same_files(train: list[Sample], test: list[Sample]) -> list[tuple[Sample, Sample]]:
    """Test images that are, byte by byte, copies of training images, each with one of these. Of files
    of equal size the middle is read, and all of it only where that is equal."""
    groups: dict[tuple[int, bytes], list[Sample]] = {}
    sizes = {sample.image: sample.image.stat().st_size for sample in (*train, *test)}
    shared = {sizes[s.image] for s in train} & {sizes[s.image] for s in test} - {0}

    def middle(sample: Sample) -> tuple[int, bytes]:
        with open(sample.image, "rb") as file:
            file.seek(sizes[sample.image] // 2)
            return sizes[sample.image], file.read(4096)

    for sample in train:
        if sizes[sample.image] in shared:
            groups.setdefault(middle(sample), []).append(sample)
    found = []
    for sample in test:
        for other in groups.get(middle(sample), []) if sizes[sample.image] in shared else []:
            a, b = sample.image, other.image
            if a != b and a.read_bytes() == b.read_bytes():
                found.append((sample, other))
                break
    return found
