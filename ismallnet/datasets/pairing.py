"""Which mask belongs to which image of a data set, and what an image is called."""

from __future__ import annotations

import functools
import os
import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from ismallnet.cli import DataError
from ismallnet.datasets.lists import MASK_BEGINNINGS, MASK_ENDINGS, kind_of
from ismallnet.datasets.names import image_files, inside, label_files, leads_inside, readable, shown
from ismallnet.datasets.oddities import left_out_hint, masks_without_image
from ismallnet.datasets.sample import DatasetFolder, Reading, Sample

BOXES = (
    "Boxes do not: a box does not say which of its pixels are target. Draw polygons (in labelme, or in "
    "CVAT and export COCO), or let a program that segments turn the boxes into masks"
)
MASK_FOLDERS = (  # compared without case; the first one that holds images wins
    *("masks", "mask", "IRSTD1k_Label", "annotations/masks", "labels", "label", "annotations"),
    *("gt", "ground_truth", "SegmentationClass", "ann_dir"),
)
BESIDE = "mask_"  # mask_X.png beside X.png; label_X.png there could be an image
INSTANCE = re.compile(r"[_-](pixels)?\d+$")  # the end of X_1.png, X_pixels1.png
IMAGE_SUBFOLDERS = ("targets", "backgrounds", "mixed")  # of open-sirst-v2


@dataclass
class ImageFile:
    """An image on disk, before it is known whether it can be used."""

    path: Path
    part: str  # train, trainval, test, val in split folders; else empty
    subfolder: str  # of the image folder, or empty
    masks: Path | None  # the mask folder that belongs to its image folder
    suffix: str = ""  # of its file, not of its name
    mask: Path | None = None
    name: str = ""
    shared: tuple[Path, Path] | None = None  # a mask that may be its own, and another image's

    @property
    def stem(self) -> str:
        return self.path.stem.removesuffix(self.suffix)

    @property
    def is_test(self) -> bool:
        return kind_of(self.part) in ("test", "val")

    @property
    def inside(self) -> bool:
        """Whether its part is a sub-folder of the image folder: images/train/, images/Train/."""
        return bool(self.part) and f"{self.subfolder}/".lower().startswith(f"{self.part}/")

    @property
    def folder(self) -> str:
        return "/".join(filter(None, ("" if self.inside else self.part, self.subfolder)))


def masks_beside(paths: list[Path], reading: Reading) -> set[Path]:
    """Of the files of an image folder those that are masks of others: X_mask.png or mask_X.png beside
    X.png."""
    stems = {path.with_suffix("") for path in paths}
    endings = (reading.mask_suffix,) if reading.mask_suffix else MASK_ENDINGS

    def is_mask(path: Path) -> bool:
        stem = path.stem
        names = [stem[: -len(e)] for e in endings if stem.lower().endswith(e.lower())][:1]
        if not reading.mask_suffix and stem.startswith(BESIDE):
            names.append(stem.removeprefix(BESIDE))
        return any(name and path.with_name(name + reading.image_suffix) in stems for name in names)

    return {path for path in paths if is_mask(path)}


def assign_masks(images: list[ImageFile], suffix: str = "") -> None:
    """Gives each image its mask, X.png or else X_pixels0.png, X_mask.png, …: that in the mask
    folder's subfolder of the same name; then, where no other image could mean it, that right in
    the mask folder. Images that have none then get one in another case, mask_X.png, …, or
    SUBFOLDER_X.png, which no other image has."""
    read = functools.cache(lambda folder: {p.stem: p for p in reversed(image_files(folder))})
    endings = (suffix,) if suffix else ("", *MASK_ENDINGS)
    paths = {image.path for image in images}
    for image in images:
        places = dict.fromkeys((image.masks / image.subfolder, image.masks) if image.masks else ())
        names = [f"{image.stem}{ending}" for ending in endings]
        files = (file for f in places for n in names if (file := read(f).get(n)))
        image.mask = next((file for file in files if file not in paths), None)
    uses = {image.mask for image in images}
    settle_shared(images)
    if not suffix:
        assign_other_names([image for image in images if not image.mask], uses | paths)


def settle_shared(images: list[ImageFile]) -> None:
    """Takes masks away from images that they may not belong to: another image of that name lies where
    the mask does, or could mean it as well. Copies in several parts share their mask."""
    groups: dict[tuple[Path | None, str], list[ImageFile]] = defaultdict(list)
    for image in images:
        groups[image.masks, image.stem].append(image)
    for group in (group for group in groups.values() if len(group) > 1):
        targets = {image.mask for image in group if image.subfolder != "backgrounds"}
        for image in group:
            if image.subfolder == "backgrounds" and image.mask in targets:
                image.mask = None  # it is that of the target image of the same name
        for mask in {image.mask for image in group} - {None}:
            users = [image for image in group if image.mask == mask]
            owners = [image for image in users if image.masks / image.subfolder == mask.parent]
            for image in users:
                sure = image in owners or image.subfolder in IMAGE_SUBFOLDERS
                rivals = (owners or users) if sure else group
                other = next((i for i in rivals if is_rival(image, i, sure)), None)
                if other:
                    image.mask = None
                    image.shared = (mask, other.path) if image in owners or not owners else None


def is_rival(image: ImageFile, other: ImageFile, sure: bool) -> bool:
    """Whether a mask could be another image's too.

    Args:
        sure: it is in the image's own place, not only right in the mask folder.
    """
    if not sure and image.part == other.part:  # sequences
        return image.path.with_suffix("") != other.path.with_suffix("")
    return not same_picture(image.path, other.path)


def same_picture(path: Path, other: Path) -> bool:
    """Whether two image files are one picture: X.png and X.jpg side by side, or copies."""
    if path.with_suffix("") == other.with_suffix(""):
        return True
    return path.stat().st_size == other.stat().st_size and path.read_bytes() == other.read_bytes()


def assign_other_names(images: list[ImageFile], taken: set[Path | None]) -> None:
    """Gives images without a mask one of a less usual name, unless several of them could mean it.

    Args:
        taken: files that are not to be used: images, and masks of others.
    """
    read = functools.cache(lambda folder: {folded(p.stem): p for p in reversed(image_files(folder))})
    found = []
    for image in images:
        if image.masks is None or image.subfolder == "backgrounds":
            continue
        stem, inner = folded(image.stem), folded(image.subfolder).replace("/", "_")
        names = [f"{stem}{ending}" for ending in ("", *MASK_ENDINGS)]
        names += [f"{beginning}{stem}" for beginning in MASK_BEGINNINGS]
        folder = inside(image.masks, image.subfolder) if image.subfolder else image.masks
        tries = [(folder, name) for name in names] if folder else []
        tries += [(image.masks, f"{inner}_{name}") for name in names] if inner else []
        files = (read(folder).get(name) for folder, name in tries)
        found.append((image, next((file for file in files if file not in taken), None)))
    pairs = {(image.path.with_suffix(""), mask) for image, mask in found}  # X.png and X.jpg are one
    uses = Counter(mask for _, mask in pairs)
    for image, mask in found:
        image.mask = mask if uses[mask] == 1 else None


def folded(name: str) -> str:
    """A file's name for comparisons: without case, in Unicode NFC, and read as GBK if it is that."""
    return unicodedata.normalize("NFC", readable(name)).casefold()


def name_images(images: list[ImageFile]) -> None:
    """Names each image by its stem, and by its folder and stem where stems repeat or sub-folders are
    sequences (Sequence1/00000)."""
    repeated = max(Counter(image.stem for image in images).values()) > 1
    for image in images:
        plain = image.subfolder in ("", *IMAGE_SUBFOLDERS) or image.subfolder.lower() == image.part
        folder = image.folder if repeated or not plain else ""
        image.name = f"{folder}/{image.stem}" if folder else image.stem


def own_masks(image: ImageFile, root: Path) -> Path:
    """The folder for masks that an image shares with no other split folder."""
    top = image.path.relative_to(root).parts[0]
    if image.part and not image.inside and top.lower() != image.part:  # train_images/
        return root / f"{image.part}_masks"
    return image.masks or root / (top if top.lower() == image.part else "") / "masks"


def lies_in_backgrounds(image: ImageFile, root: Path) -> bool:
    """Whether an image has no targets where it has no mask."""
    return "backgrounds" in image.path.relative_to(root).parts[:-1]


def checked(image: ImageFile, root: Path, reading: Reading, problems: list[str]) -> Sample | None:
    """The sample, or None and a problem: a link that leads outside, no mask, or one that may be
    another image's."""
    for path in filter(None, (image.path, image.mask)):
        if not reading.follow_links and not leads_inside(path, root):
            problems.append(f"{path}: a link that leads out of the data set; --follow-links allows it")
            return None
    if image.shared and not image.mask:
        mask, other = image.shared
        file = own_masks(image, root) / image.subfolder / f"{image.stem}{reading.mask_suffix}.png"
        problems.append(
            f"{image.path}: {mask} may be its mask or that of {other}, another picture; expected one "
            f"for each, this one's in {file}"
        )
        return None
    empty = reading.missing_masks == "empty" or lies_in_backgrounds(image, root)
    if image.mask is None and not empty:
        problems.append(
            f"{image.path}: found no mask for it ({image.stem}.png or …_pixels0.png); if it has no "
            "targets: --missing-masks empty"
        )
        return None
    return Sample(image.name, image.path, image.mask)


def refuse_without_masks(
    images: list[ImageFile], data: DatasetFolder, data_root: str | os.PathLike
) -> None:
    """
    Args:
        data: its name, root and reading count.

    Raises:
        DataError: no image has a mask, and masks of several images, other labels, archives or masks of
            other names are there, or masks may be missing.
    """
    root, reading, problems = data.root, data.reading, []
    for image in (image for image in images if image.shared):
        checked(image, root, reading, problems)
    if problems:
        raise DataError(f"{problems[0]}; {len(problems)} images share their masks in this way")
    if labels := label_files(root):
        place = "" if str(data_root) == "data" else f" --data-root {shlex.quote(str(data_root))}"
        source = shlex.quote(str(root)) if "(.json)" in labels else "FILE"
        raise DataError(
            f"{root}: found no masks, but {labels}. Masks are needed: in masks/ a picture for each "
            "image, 255 on target pixels and 0 elsewhere. Polygons and run lengths of COCO or labelme "
            f"become masks: python utils.py --dataset {shlex.quote(data.name)}{place} "
            f"--from-annotations {source}. {BOXES}"
        )
    if hint := left_out_hint(root, MASK_FOLDERS):
        raise DataError(f"{root}: found no mask for any image{hint}")
    if files := sorted(masks_without_image(images)):
        ending = f"{reading.mask_suffix}.png"
        raise DataError(
            f"{files[0]}: this mask and {len(files) - 1} others there have other names than the "
            f"images: expected {images[0].stem}{ending} for {images[0].path.name}. Rename them, or "
            "name what comes after the image's name: --mask-suffix TEXT"
        )
    if reading.missing_masks == "empty":
        raise DataError(
            f"{root}: found no mask for any image, so --missing-masks empty would leave no target "
            "at all. Name the masks' folder: --mask-folder DIR --mask-suffix TEXT"
        )
    if not all(lies_in_backgrounds(image, root) for image in images):
        place = f"{shown(images[0].masks, root)}/" if images[0].masks else "masks/"
        raise DataError(
            f"{root}: found no mask for any of its {len(images)} images; expected {place}"
            f"{images[0].stem}{reading.mask_suffix}.png for {images[0].path.name}, or another of the "
            "names in docs/DATASETS.md. Name the masks' folder and the ends of their names: "
            "--mask-folder DIR --mask-suffix TEXT"
        )


def refuse_instances(files: list[Path], images: list[ImageFile]) -> None:
    """
    Args:
        files: masks that no image has.

    Raises:
        DataError: they are called as an image and a number, as masks by instance are.
    """
    stems = {image.stem for image in images}
    numbers = {file: INSTANCE.search(file.stem) for file in files if file.stem not in stems}
    parts = {
        f: number[0] for f, number in numbers.items() if number and f.stem[: number.start()] in stems
    }
    if not parts:
        return
    file, number = next(iter(parts.items()))
    image = file.stem.removesuffix(number)
    raise DataError(
        f"{file}: {len(parts)} masks are called as an image and a number: masks by instance? Merge "
        f"those of each image into one, {image}.png: a pixel is target where it is in any of them. If "
        f"each image has one of them, or the others do not count: --mask-suffix={number}"
    )
