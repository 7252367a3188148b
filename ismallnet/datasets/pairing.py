"""The files in a data set's folders: which are images, which mask belongs to which image, and what an
image is called."""

import functools
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ismallnet.cli import DataError
from ismallnet.datasets.sample import ImageFile

EXTENSIONS = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")
IMAGE_SUBFOLDERS = ("targets", "backgrounds", "mixed")  # of open-sirst-v2: no sequences
MASK_ENDINGS = ("", "_pixels0", "_mask", "_gt", "_label", "_seg")  # the mask of X.png is X.png, …


# --- names -----------------------------------------------------------------------------------------


def composed(name: str) -> str:
    """A name in Unicode NFC, in which names are compared."""
    return unicodedata.normalize("NFC", name)


def without_extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return stem if dot and f".{extension.lower()}" in EXTENSIONS else name


def shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


# --- folders ---------------------------------------------------------------------------------------


def image_files(folder: Path) -> list[Path]:
    """The image files right in a folder, sorted by name, preferred extension first."""
    if not folder.is_dir():
        return []
    files = [p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and p.name[0] != "."]
    files = [p for p in files if p.is_file()]
    return sorted(files, key=lambda p: (p.stem, EXTENSIONS.index(p.suffix.lower()), p.name))


def walk(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """A folder and its sub-folders, sorted; not the hidden ones, and no loops of links."""
    real = os.path.realpath(folder)
    if real in above or not folder.is_dir():
        return
    yield folder
    for inner in sorted(p for p in folder.iterdir() if p.name[0] != "." and p.is_dir()):
        yield from walk(inner, (*above, real))


def folder_inside(root: Path, name: str) -> Path | None:
    """The folder of that name ("annotations/masks"), in another case if there is none in this one.

    Raises:
        DataError: several in other cases.
    """
    for part in name.split("/"):
        if not (root / part).is_dir():
            same = sorted(f for f in root.glob("*") if f.name.lower() == part.lower() and f.is_dir())
            if len(same) > 1:
                raise DataError(f"{same[0]} and {same[1]}: which of them? Rename one, or move it away")
            if not same:
                return None
            part = same[0].name
        root = root / part
    return root


def leads_inside(path: Path, root: Path) -> bool:
    """Whether a path, its links followed, is in the folder `root`."""
    real, top = (os.path.realpath(p) for p in (path, root))  # a loop of links stays a link
    return (real == top or real.startswith(os.path.join(top, ""))) and not os.path.islink(real)


# --- images and masks ------------------------------------------------------------------------------


def images_in(folder: Path, skip: set[Path], part: str, suffix: str) -> list[ImageFile]:
    """The images of a folder and its sub-folders but `skip`, those of masks and label maps, whose files
    end in the suffix; of X.png and X.jpg the first."""
    images: dict[Path, ImageFile] = {}
    for place in walk(folder):
        subfolder = place.relative_to(folder).as_posix().removeprefix(".")
        for path in image_files(place) if place not in skip else ():
            if path.stem.endswith(suffix):
                images.setdefault(path.with_suffix(""), ImageFile(path, part, subfolder, suffix=suffix))
    return list(images.values())


def paired(images: list[ImageFile], masks: Path, suffix: str) -> list[ImageFile]:
    """The images with their masks from a mask folder: from its sub-folders of the same names, or, where
    it has none of these, all right from it. `suffix` stands for MASK_ENDINGS."""
    places = {name: folder_inside(masks, name) for name in {image.subfolder for image in images}}
    if not any(place for name, place in places.items() if name):
        places = dict.fromkeys(places, masks)
    listing = functools.cache(masks_in)
    pairs = []
    for image in images:
        files = listing(places[image.subfolder])
        names = [composed(image.stem + end) for end in ((suffix,) if suffix else MASK_ENDINGS)]
        mask = next((files[name] for name in names if name in files), None)
        pairs.append(replace(image, masks=masks, mask=mask))
    return pairs


def masks_in(folder: Path | None) -> dict[str, Path]:
    """The image files of a folder by their names; of X.png and X.jpg the first."""
    files = image_files(folder) if folder else []
    return {composed(path.stem): path for path in reversed(files)}


def refuse_shared(images: list[ImageFile], root: Path) -> None:
    """Takes a mask away from images that share it, which have a problem then. Backgrounds have none
    beside a target image of their name."""
    users: dict[Path, list[ImageFile]] = defaultdict(list)
    for image in images:
        if image.mask:
            users[image.mask].append(image)
    for mask, sharing in users.items():
        targets = [image for image in sharing if not is_background(image, root)] or sharing
        for image in sharing:
            image.mask = None
        if len(targets) == 1:
            targets[0].mask = mask
            continue
        for image, other in zip(targets, [*targets[1:], targets[0]]):
            image.problem = (
                f"{mask} could be its mask or that of {other.path}; expected one for each, this one's "
                f"in {root / 'masks' / image.folder}"
            )


def is_background(image: ImageFile, root: Path) -> bool:
    """Whether an image has no targets where it has no mask."""
    return "backgrounds" in image.path.relative_to(root).parts[:-1]


def without_image(images: list[ImageFile]) -> list[Path]:
    """The files of the mask folders that are neither an image nor an image's mask."""
    used = {path for image in images for path in (image.path, image.mask)}
    folders = dict.fromkeys(image.masks for image in images if image.masks)
    files = dict.fromkeys(path for top in folders for f in walk(top) for path in image_files(f))
    return [path for path in files if path not in used]


def refuse_instances(files: list[Path], images: list[ImageFile]) -> None:
    """Refuses mask files that are numbered on beside an image's mask: X_pixels1.png beside
    X_pixels0.png, of which that image's mask would lack a target."""
    first = {image.mask.stem: image for image in images if image.mask}
    for file in files:
        stem = re.sub(r"\d+$", "0", file.stem)
        if stem != file.stem and stem in first and stem.endswith("_pixels0"):
            raise DataError(
                f"{file}: one mask an instance, expected one an image; merge those of "
                f"{first[stem].path.name} into one file: a pixel is target where it is in any of them"
            )


def name_images(images: list[ImageFile]) -> None:
    """Names each image by its stem, and by its folder and stem where stems repeat or sub-folders are
    sequences (Sequence1/00000)."""
    repeated = len({image.stem for image in images}) < len(images)
    for image in images:
        sequence = image.subfolder not in ("", *IMAGE_SUBFOLDERS)
        folder = image.folder if repeated or sequence else ""
        image.name = f"{folder}/{image.stem}" if folder else image.stem
