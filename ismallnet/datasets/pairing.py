"""Which mask belongs to which image of a data set, and what an image is called."""

import functools
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from ismallnet.cli import DataError
from ismallnet.datasets.names import (
    IMAGE_SUBFOLDERS,
    MASK_ENDINGS,
    composed,
    image_files,
    inside,
    leads_inside,
    walk,
)
from ismallnet.datasets.sample import ImageFile, Reading, Sample

INSTANCE = re.compile(r"[_-](pixels)?\d+$")  # the end of X_1.png, X_pixels1.png


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
    places = {name: inside(masks, name) for name in {image.subfolder for image in images}}
    if not any(place for name, place in places.items() if name):
        places = dict.fromkeys(places, masks)
    listing = functools.cache(masks_in)
    endings = (suffix,) if suffix else MASK_ENDINGS
    pairs = []
    for image in images:
        files = listing(places[image.subfolder])
        names = (composed(f"{image.stem}{ending}") for ending in endings)
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
            if image not in targets:
                image.mask = None
            elif len(targets) > 1:
                other = next(i.path for i in targets if i is not image)
                image.mask = None
                image.problem = (
                    f"{mask} could be its mask or that of {other}; expected one for each, this one's "
                    f"in {root / 'masks' / image.folder}"
                )


def name_images(images: list[ImageFile]) -> None:
    """Names each image by its stem, and by its folder and stem where stems repeat or sub-folders are
    sequences (Sequence1/00000)."""
    repeated = len({image.stem for image in images}) < len(images)
    for image in images:
        plain = image.subfolder in ("", *IMAGE_SUBFOLDERS) or image.subfolder.lower() == image.part
        folder = image.folder if repeated or not plain else ""
        image.name = f"{folder}/{image.stem}" if folder else image.stem


def is_background(image: ImageFile, root: Path) -> bool:
    """Whether an image has no targets where it has no mask."""
    return "backgrounds" in image.path.relative_to(root).parts[:-1]


def checked(image: ImageFile, root: Path, reading: Reading) -> Sample:
    """The sample; refuses a link that leads outside, no mask, and one that may be another image's."""
    for path in (image.path, image.mask):
        if path and not reading.follow_links and not leads_inside(path, root):
            raise DataError(f"{path}: a link that leads out of the data set; --follow-links allows it")
    if image.problem:
        raise DataError(f"{image.path}: {image.problem}")
    if not image.mask and reading.missing_masks != "empty" and not is_background(image, root):
        raise DataError(
            f"{image.path}: found no mask for it ({image.stem}.png or …_pixels0.png); if it has no "
            "targets: --missing-masks empty"
        )
    return Sample(image.name, image.path, image.mask)


def without_image(images: list[ImageFile]) -> list[Path]:
    """The files of the mask folders that are neither an image nor an image's mask."""
    used = {path for image in images for path in (image.path, image.mask)}
    folders = dict.fromkeys(image.masks for image in images if image.masks)
    files = dict.fromkeys(path for top in folders for f in walk(top) for path in image_files(f))
    return [path for path in files if path not in used]


def refuse_instances(files: list[Path], images: list[ImageFile]) -> None:
    """Refuses files that no image has as its mask, called as an image and a number."""
    stems = {image.stem for image in images}
    ends = {file: INSTANCE.search(file.stem) for file in files}
    ends = {file: end[0] for file, end in ends.items() if end and end[0] != "_pixels0"}
    ends = {file: end for file, end in ends.items() if file.stem.removesuffix(end) in stems}
    if ends:
        file, end = next(iter(ends.items()))
        raise DataError(
            f"{file}: {len(ends)} masks are called as an image and a number: masks by instance? Merge "
            f"those of each image into one, {file.stem.removesuffix(end)}.png: a pixel is target where "
            f"it is in any of them. If each image has one of them: --mask-suffix={end}"
        )
