"""Split folders: data sets whose folders are the lists, as train/ and test/; and the names of folders
with images and with masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ismallnet.cli import DataError, some
from ismallnet.folders import folders_of, image_files, inside
from ismallnet.lists import KINDS, PARTS, kind_of
from ismallnet.pairing import AS_IT_LIES, MASK_FOLDERS, ImageFile, masks_beside

# Names of folders, compared without case; the first one that holds images wins.
IMAGE_FOLDERS = (
    "images",
    "image",
    "imges",
    "IRSTD1k_Img",
    "mixed",
    "img",
    "imgs",
    "JPEGImages",
    "img_dir",
)


def image_folders(root: Path, part: str = "") -> list[Path]:
    return folders_of(root, of_part(IMAGE_FOLDERS, part))


def mask_folders(root: Path, part: str = "") -> list[Path]:
    folders = folders_of(root, of_part(MASK_FOLDERS, part))
    return [f for f in folders if not any(other.parent == f for other in folders)]


def of_part(names: tuple[str, ...], part: str) -> tuple[str, ...]:
    """The names of folders with a part joined to them in all ways in use; or as they are."""
    ways = ("{part}_{name}", "{name}_{part}", "{part}-{name}", "{name}-{part}", "{part}{name}")
    return tuple(way.format(part=part, name=n) for n in names for way in ways) if part else names


def parts_of(root: Path) -> dict[str, tuple[Path, str]]:
    """The split folders of a data set that hold images, by part: the folder with the image folder, and
    the part where the image folder's name has it (train/images, or train_images)."""
    there = {part: f for part in PARTS if (f := inside(root, part))}
    folders = {part: f for part, f in there.items() if image_folders(f)}
    if not folders:  # with the images themselves, and their masks beside them
        folders = {p: f for p, f in there.items() if masks_beside(image_files(f), AS_IT_LIES)}
    if folders:
        return {part: (folder, "") for part, folder in folders.items()}
    joined = {part: (root, part) for part in PARTS if image_folders(root, part)}
    bare = {part: (f, "") for part, f in there.items() if image_files(f)}  # masks elsewhere, if any
    kinds = {kind_of(part) for part in bare}
    return joined or (bare if kinds & {"train", "trainval"} and kinds & {"test", "val"} else {})


def other_folders(root: Path, parts: dict[str, tuple[Path, str]]) -> list[Path]:
    """The folders beside split folders that hold images in an image folder of their own."""
    taken = {folder for folder, _ in parts.values()}
    folders = sorted(f for f in root.iterdir() if f.is_dir() and f.name[0] != "." and f not in taken)
    return [folder for folder in folders if image_folders(folder)]


def parts_inside(images: list[ImageFile], without_lists: bool) -> list[ImageFile]:
    """Gives the images of an image folder the part that their first sub-folder names, in any case,
    where all are such: images/train/, images/Test/.

    Raises:
        DataError: only some of the sub-folders are parts, and no list says what the others are.
    """
    tops = {image.subfolder.split("/")[0] for image in images}
    others = sorted(top for top in tops if top.lower() not in PARTS)
    if len(tops) == 1 or len(others) == len(tops) or (others and not without_lists):
        return images
    if others:
        image = next(image for image in images if image.subfolder.split("/")[0] not in others)
        folder = image.path.parents[image.subfolder.count("/") + 1]
        parts = some([f"{top}/" for top in sorted(tops - {*others})])
        rest = some([f"{top}/" if top else "images right in it" for top in others])
        raise DataError(
            f"{folder}: found {rest} beside {parts}, and no list that says what they are for; expected "
            "train/ and test/ alone. Move the others away, or name two text files with a name a line: "
            "--split TRAIN.txt TEST.txt"
        )
    return [replace(image, part=image.subfolder.split("/")[0].lower()) for image in images]


def choose_parts(images: list[ImageFile], without_lists: bool) -> tuple[list[ImageFile], list[str]]:
    """The images of split folders that are used, and notes: trainval is taken before train, and test
    before val, which else serves."""
    stems = {kind: {i.stem for i in images if kind_of(i.part) == kind} for kind in KINDS}
    notes = []
    if stems["trainval"]:  # train's images are mostly there once more
        both = stems["train"] if without_lists else stems["trainval"]
        images = [i for i in images if not (kind_of(i.part) == "train" and i.stem in both)]
        if without_lists and (lost := sorted(stems["train"] - stems["trainval"])):
            notes.append(
                f"note: train/ is left out, trainval/ is there; {len(lost)} images of train/ are not "
                f"in trainval/: {some(lost)}; to use them, name lists: --split"
            )
    if stems["val"] and without_lists:
        if stems["test"]:
            notes.append("note: val/ is left out, test/ is there; to use it, name lists: --split")
            images = [image for image in images if kind_of(image.part) != "val"]
        else:
            notes.append("no test folder found: val/ serves as the test list")
    return images, notes
