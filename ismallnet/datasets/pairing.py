"""Which mask belongs to which image of a data set, and what an image is called."""

import functools
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ismallnet.cli import DataError
from ismallnet.datasets.names import (
    IMAGE_SUBFOLDERS,
    MASK_BEGINNINGS,
    MASK_ENDINGS,
    composed,
    folded,
    image_files,
    inside,
    leads_inside,
    walk,
)
from ismallnet.datasets.sample import ImageFile, Reading, Sample

INSTANCE = re.compile(r"[_-](pixels)?\d+$")  # the end of X_1.png, X_pixels1.png


def images_in(folder: Path, skip: set[Path], part: str, reading: Reading) -> list[ImageFile]:
    """The images of a folder and its sub-folders; of X.png and X.jpg the first.

    Args:
        skip: folders that are not searched: of masks and label maps.
    """
    files = [(f, path) for f in walk(folder) if f not in skip for path in image_files(f)]
    first = {path.with_suffix(""): (f, path) for f, path in reversed(files)}
    return [
        ImageFile(
            path, part, f.relative_to(folder).as_posix().removeprefix("."), suffix=reading.image_suffix
        )
        for f, path in reversed(first.values())
        if path.stem.endswith(reading.image_suffix)
    ]


def paired(images: list[ImageFile], masks: Path | None, reading: Reading) -> list[ImageFile]:
    """The images with their masks from a mask folder, by the rules of `names.py`. Where that is the
    images' own folder, files that are masks of others are no images."""
    stems = {image.path.with_suffix("") for image in images}
    if masks and any(image.path.is_relative_to(masks) for image in images):
        images = [image for image in images if not is_mask(image.path, stems, reading)]
    own, listing = {image.path.with_suffix("") for image in images}, functools.cache(listed)
    images = [replace(image, masks=masks, mask=None) for image in images]
    for image in images if masks else ():
        image.mask, image.problem = mask_of(image, listing, own, reading.mask_suffix)
    return images


def is_mask(path: Path, stems: set[Path], reading: Reading) -> bool:
    """Whether an image beside others is a mask of one: X_mask.png or mask_X.png beside X.png."""
    endings = (reading.mask_suffix,) if reading.mask_suffix else MASK_ENDINGS
    stem = path.stem
    names = [stem[: -len(end)] for end in endings if stem.lower().endswith(end.lower())][:1]
    if not reading.mask_suffix and stem.startswith(MASK_BEGINNINGS[0]):  # label_X could be an image
        names.append(stem.removeprefix(MASK_BEGINNINGS[0]))
    return any(name and path.with_name(name + reading.image_suffix) in stems for name in names)


def listed(folder: Path) -> dict[str, list[Path]]:
    """The image files of a folder by their names, without case."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in image_files(folder):
        files[folded(path.stem)].append(path)
    return files


def mask_of(
    image: ImageFile, listing: Callable, own: set[Path], suffix: str
) -> tuple[Path | None, str]:
    """An image's mask: in the mask folder's sub-folder of the same name, then SUBFOLDER_X.png and X.png
    right in the mask folder; and what is wrong where two files could be it.

    Args:
        listing: `listed`, which remembers.
        own: images, without their endings, which are never masks.
    """
    endings = (suffix,) if suffix else ("", *MASK_ENDINGS)
    names = [f"{image.stem}{ending}" for ending in endings]
    names += [f"{beginning}{image.stem}" for beginning in (() if suffix else MASK_BEGINNINGS)]
    tries = [(image.masks, name) for name in names]
    if image.subfolder:
        below, joined = inside(image.masks, image.subfolder), image.subfolder.replace("/", "_")
        tries = [(image.masks, f"{joined}_{name}") for name in names] + tries
        tries = ([(below, name) for name in names] if below else []) + tries
    for folder, name in tries:
        files = [file for file in listing(folder).get(folded(name), ())]
        files = [file for file in files if file.with_suffix("") not in own]
        files = [file for file in files if composed(file.stem) == composed(name)] or files
        if len({file.stem for file in files}) > 1:
            return None, f"{files[0]} and {files[1]} could both be its mask; remove one"
        if files:
            return files[0], ""
    return None, ""


def settle(images: list[ImageFile], root: Path, mask_suffix: str = "") -> None:
    """Takes masks away from images that share one, or could share it, with another picture. Copies of
    one picture may share their mask; backgrounds have none beside a target image of their name."""
    users: dict[Path, list[ImageFile]] = defaultdict(list)
    namesakes: dict[tuple[Path | None, str], list[ImageFile]] = defaultdict(list)
    for image in images:
        namesakes[image.masks, folded(image.stem)].append(image)
        if image.mask:
            users[image.mask].append(image)
    picture = functools.cache(digest_of)
    for mask, sharing in users.items():
        targets = [image for image in sharing if image.subfolder != "backgrounds"]
        for image in sharing if targets else ():
            image.mask = image.mask if image in targets else None
        sharing = targets or sharing
        elsewhere = [image for image in sharing if not is_own(image)]
        rivals = {i.path: i for k in elsewhere for i in namesakes[k.masks, folded(k.stem)]}
        rivals |= {image.path: image for image in sharing}
        if len(rivals) > 1 and len(set(map(picture, rivals))) > 1:
            for image in sharing if len(sharing) - len(elsewhere) != 1 else elsewhere:
                other = next(path for path in rivals if picture(path) != picture(image.path))
                place = own_masks(image, root) / image.subfolder / f"{image.stem}{mask_suffix}.png"
                image.mask, image.problem = (
                    None,
                    (
                        f"{mask} could be its mask or that of {other}, another picture; expected "
                        f"one for each, this one's in {place}"
                    ),
                )


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_own(image: ImageFile) -> bool:
    """Whether an image's mask has its name, in this case, and lies where its sub-folder has its "
    "masks."""
    if composed(image.stem) not in composed(image.mask.stem):
        return False
    place = inside(image.masks, image.subfolder) if image.subfolder else image.masks
    return image.mask.parent == place or image.subfolder in IMAGE_SUBFOLDERS


def own_masks(image: ImageFile, root: Path) -> Path:
    """The folder for masks that an image shares with no other split folder."""
    top = image.path.relative_to(root).parts[0]
    within = image.part and f"{image.subfolder}/".lower().startswith(f"{image.part}/")
    if image.part and not within and top.lower() != image.part:  # train_images/
        return root / f"{image.part}_masks"
    return image.masks or root / (top if top.lower() == image.part else "") / "masks"


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


def checked(image: ImageFile, root: Path, reading: Reading, problems: list[str]) -> Sample | None:
    """The sample, or None and a problem: a link that leads outside, no mask, or one that may be
    another image's."""
    outside = (p for p in (image.path, image.mask) if p and not leads_inside(p, root))
    if not reading.follow_links and (path := next(outside, None)):
        problems.append(f"{path}: a link that leads out of the data set; --follow-links allows it")
    elif image.problem:
        problems.append(f"{image.path}: {image.problem}")
    elif not image.mask and reading.missing_masks != "empty" and not is_background(image, root):
        problems.append(
            f"{image.path}: found no mask for it ({image.stem}.png or …_pixels0.png); if it has no "
            "targets: --missing-masks empty"
        )
    else:
        return Sample(image.name, image.path, image.mask)
    return None


def without_image(images: list[ImageFile]) -> list[Path]:
    """The files of the mask folders that are neither an image nor an image's mask."""
    used = {path for image in images for path in (image.path, image.mask)}
    folders = dict.fromkeys(image.masks for image in images if image.masks)
    files = dict.fromkeys(path for top in folders for f in walk(top) for path in image_files(f))
    return [path for path in files if path not in used]


def refuse_instances(files: list[Path], images: list[ImageFile]) -> None:
    """
    Args:
        files: masks that no image has.

    Raises:
        DataError: they are called as an image and a number, as masks by instance are.
    """
    stems = {image.stem for image in images}
    ends = {
        f: INSTANCE.search(f.stem) for f in files if f.stem not in stems and f.stem[-8:] != "_pixels0"
    }
    ends = {f: end[0] for f, end in ends.items() if end and f.stem[: end.start()] in stems}
    if ends:
        file, end = next(iter(ends.items()))
        raise DataError(
            f"{file}: {len(ends)} masks are called as an image and a number: masks by instance? Merge "
            f"those of each image into one, {file.stem.removesuffix(end)}.png: a pixel is target where "
            f"it is in any of them. If each image has one of them: --mask-suffix={end}"
        )
