"""Split folders: data sets whose folders are the lists, as train/ and test/; and the names of folders
with images and with masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ismallnet.cli import DataError, some
from ismallnet.datasets.lists import KINDS, PARTS, kind_of
from ismallnet.datasets.names import folders_of, has_images, image_files, inside, walk
from ismallnet.datasets.oddities import left_out
from ismallnet.datasets.pairing import MASK_FOLDERS, ImageFile, masks_beside
from ismallnet.datasets.sample import AS_IT_LIES

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
    sure, bare = {}, {}
    for part in PARTS:
        folder = inside(root, part)
        if folder and (image_folders(folder) or masks_beside(image_files(folder), AS_IT_LIES)):
            sure[part] = (folder, "")
        elif image_folders(root, part):
            sure[part] = (root, part)
        elif folder and has_images(folder):  # the images themselves, their masks elsewhere, if any
            bare[part] = (folder, "")
    kinds = {kind_of(part) for part in (*sure, *bare)}
    both = kinds & {"train", "trainval"} and kinds & {"test", "val"}
    return sure | bare if both else sure


def refuse_both(root: Path) -> None:
    """
    Raises:
        DataError: beside an image folder there are split folders, and no list says what is used.
    """
    if parts := parts_of(root):
        folders, name = ", ".join(f"{part}/" for part in parts), image_folders(root)[0].name
        raise DataError(
            f"{root}: found {name}/, the split folders {folders} too, and no list that says which "
            "images are for training. Move the one or the others away, name lists: --split TRAIN.txt "
            f"TEST.txt, or take a new split of {name}/: --image-folder {name}"
        )


def unused_parts(root: Path, parts: dict[str, tuple[Path, str]]) -> list[Path]:
    """The split folders that are none of the parts, though they hold pictures: in other formats than
    data sets have, as links to nothing, or in other places."""
    folders = [f for part in PARTS if part not in parts and (f := inside(root, part))]
    return [f for f in folders if any(left_out(f)) or any(has_images(deeper) for deeper in walk(f))]


def other_folders(root: Path, images: list[ImageFile]) -> list[Path]:
    """The folders beside split folders that hold pictures, and are neither these nor of masks or label
    maps."""
    used = [image.path for image in images] + [image.masks for image in images if image.masks]
    taken = {name for path in used for name in path.relative_to(root).parts[:1]}
    taken |= {f.name for part in ("", *PARTS) for f in mask_folders(root, part)}
    taken |= {"interior", "boundary"} if (root / "maps.json").is_file() else set()
    taken |= {f.name for f in root.iterdir() if f.name.lower() in PARTS}  # val/, of which notes tell
    folders = sorted(f for f in root.iterdir() if f.name[0] != "." and f.name not in taken)
    return [folder for folder in folders if any(has_images(deeper) for deeper in walk(folder))]


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
    if without_lists and stems["val"] and stems["train"] and stems["trainval"] and not stems["test"]:
        notes.append("note: trainval/ is left out, since val/ serves as the test list")
        images = [i for i in images if kind_of(i.part) != "trainval"]
        stems["trainval"] = set()
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
