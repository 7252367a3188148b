"""Finds a data set: the folder DATA_ROOT/NAME in any of the layouts of docs/DATASETS.md.

The layouts are tables in `names.py`. Of the mask folders that could belong to an image folder the first
is used in which every image has a mask.
"""

import os
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ismallnet.cli import DataError, some
from ismallnet.datasets.lists import choose_samples, find_lists, list_of, write_split
from ismallnet.datasets.masks import TARGET, read_masks
from ismallnet.datasets.names import (
    COMMON_MASKS,
    EXTENSIONS,
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    PARTS,
    SPLIT_FORMS,
    archives,
    folders_of,
    hint_for,
    inside,
    kind_of,
    label_files,
    not_read,
    shown,
    walk,
)
from ismallnet.datasets.pairing import (
    images_in,
    is_background,
    name_images,
    paired,
    refuse_instances,
    refuse_shared,
    without_image,
)
from ismallnet.datasets.sample import AS_IT_LIES, DatasetFolder, ImageFile, Reading

BOXES = (
    "Boxes do not: a box does not say which of its pixels are target. Draw polygons (in labelme, or in "
    "CVAT and export COCO), or let a program that segments turn the boxes into masks"
)
BY_HAND = "--split TRAIN.txt TEST.txt"
MAP_FOLDERS = ("interior", "boundary")  # of stage 1, where maps.json is beside them


def find_dataset(
    name: str,
    data_root: str | os.PathLike = "data",
    split: list[str] | None = None,
    mask_threshold: int = TARGET,
    reading: Reading = AS_IT_LIES,
    needed: tuple[str, ...] = ("train", "test"),
) -> DatasetFolder:
    """Finds the layout and the lists of a data set, and what the values of its masks mean.

    Args:
        name: the folder below data_root.
        split: None for the list that wins, or [folder], or [train file, test file].
        mask_threshold: mask values from here up are target.
        reading: what the layouts do not tell.
        needed: the lists whose masks are read; those of the others are where maps.json does not say
            what the values mean.

    Raises:
        DataError: no such data set, no images in it, no such split, or masks that are inverted. Single
            bad entries are not raised here: they are in `problems`, so that one error can name them
            all.
    """
    data, images, lists = find_images(name, data_root, split, reading)
    if not any(image.mask for image in images):
        refuse_without_masks(images, data, data_root)
    new_split = choose_samples(data, images, lists)
    test = lists.get("test") if lists else None
    if test and test.stem.startswith("val") and len(split or ()) < 2:
        data.notes.append(f"no test list found: {shown(test, data.root)} serves as the test list")
    read_masks(data, mask_threshold, needed)
    write_split(data, new_split)
    return data


def find_images(
    name: str,
    data_root: str | os.PathLike = "data",
    split: list[str] | None = None,
    reading: Reading = AS_IT_LIES,
) -> tuple[DatasetFolder, list[ImageFile], dict[str, Path] | None]:
    """A data set's folder, its images with their names and the masks that there are, and the lists that
    say which are used; arguments and errors as `find_dataset`."""
    name = name.rstrip("/")
    outer = dataset_root(name, Path(data_root))
    root = outer if reading.image_folder else innermost(outer)
    lists = find_lists(root, name, split) or find_lists(outer, name, split)
    data = DatasetFolder(name, root, "", reading=reading)
    if outer != root:
        data.notes.append(f"{outer}: the data set is one folder deeper, in {root.name}/")
    images = list_images(data, without_lists=lists is None)
    unused = without_image(images)
    if not reading.mask_suffix:
        refuse_instances(unused, images)
    if unused and any(image.mask for image in images):
        names = some([shown(path, root) for path in unused])
        data.notes.append(f"note: {len(unused)} mask files are no image's mask: {names}")
    refuse_shared(images, root)
    name_images(images)
    return data, images, lists


def dataset_root(name: str, data_root: Path) -> Path:
    root = data_root / name
    if Path(name).name == name and name not in ("", ".", "..") and root.is_dir():
        return root
    if packed := [path for path in archives(data_root) if path.name.split(".")[0] == name]:
        raise DataError(
            f"{root}: no such data set, but its archive {packed[0].name} is there; unpack it first, in "
            f"{data_root}"
        )
    there = sorted(p.name for p in data_root.glob("*") if p.is_dir())
    guess = f"Did you mean --dataset {Path(name).name}? " if Path(name).name in there else ""
    raise DataError(
        f"{root}: no such data set; in {data_root}/ there is: {', '.join(there) or 'nothing'}. {guess}"
        "Put the folder there, name another root with --data-root, or make the synthetic set: python "
        "synthetic.py"
    )


def innermost(root: Path) -> Path:
    """The folder itself, or its only sub-folder with images where it has none (NAME/NAME/images)."""
    if folders_of(root, IMAGE_FOLDERS) or split_folders(root):
        return root
    inner = [f for f in root.iterdir() if f.is_dir()]
    inner = [f for f in inner if folders_of(f, IMAGE_FOLDERS) or split_folders(f)]
    return inner[0] if len(inner) == 1 else root


# --- which folders -------------------------------------------------------------------------------


def list_images(data: DatasetFolder, without_lists: bool) -> list[ImageFile]:
    """The images of a data set; says in its layout and notes how they lie."""
    root, folder = data.root, data.reading.image_folder
    folders = [named([root], folder, "--image-folder")] if folder else folders_of(root, IMAGE_FOLDERS)
    parts = {} if folder else split_folders(root)
    if folders:
        images, data.layout = pair_folders(data, folders, ["{masks}"])
        images = parts_inside(folders[0], images, without_lists)
        if parts and without_lists and not any(image.part for image in images):
            name = folders[0].name
            raise DataError(
                f"{root}: found {name}/, the split folders {slashed(parts)} too, and no list that says "
                "which images are for training. Move the one or the others away, name lists: "
                f"{BY_HAND}, or use a new split of {name}/: --image-folder {name}"
            )
    else:
        images, texts = [], []
        for part, (image_folder, form) in parts.items():
            pairs, text = pair_folders(data, [image_folder], [form, *COMMON_MASKS], part)
            images += pairs
            texts.append(f"{part} ({text})")
        data.layout = f"split folders {', '.join(texts)}"
    if not images:
        raise DataError(
            f"{root}: found no images; expected {', '.join(EXTENSIONS)} in {slashed(IMAGE_FOLDERS)}"
            f"{hint_for(root, IMAGE_FOLDERS)}. Name other folders: --image-folder DIR "
            "--mask-folder DIR, and the ends of the files' names, if they have any: "
            "--image-suffix _1 --mask-suffix _2"
        )
    return choose_parts(data, images) if without_lists else images


def pair_folders(
    data: DatasetFolder, folders: list[Path], mask_forms: list[str], part: str = ""
) -> tuple[list[ImageFile], str]:
    """The images of the first of the folders, with the masks of the first mask folder in which every
    image has one, else of that in which most have; and the two folders in words."""
    folder, root, reading = folders[0], data.root, data.reading
    if reading.mask_folder:
        masks = [named([root / part, root], reading.mask_folder, "--mask-folder", part)]
    else:
        masks = [f for form in mask_forms for f in folders_of(root, MASK_FOLDERS, form, part)]
        masks = [f for f in dict.fromkeys(masks) if not folder.is_relative_to(f)]
    label_maps = [root / name for name in MAP_FOLDERS if (root / "maps.json").is_file()]
    tops = [top for top in (*masks, *label_maps) if not folder.is_relative_to(top)]
    images = images_in(folder, {f for top in tops for f in walk(top)}, part, reading.image_suffix)
    if folder in masks:
        if not reading.mask_suffix:
            raise DataError(
                f"{folder}: images and masks; type how masks' names end: --mask-suffix _mask"
            )
        images = [image for image in images if not image.path.stem.endswith(reading.mask_suffix)]
    if not images:
        raise DataError(f"{folder}: found no images that end in {reading.image_suffix!r}")
    results = [paired(images, place, reading.mask_suffix) for place in masks] or [images]
    best = max(results, key=lambda pairs: sum(image.mask is not None for image in pairs))
    place = best[0].masks
    left = [f for f in (*folders[1:], *masks) if f != place and not (place and place.is_relative_to(f))]
    if left:
        used = slashed(shown(f, root) for f in (folder, place) if f)
        data.notes.append(
            f"note: {slashed(shown(f, root) for f in left)} left out; for others than {used} type "
            "--image-folder, --mask-folder"
        )
    if text := not_read(folder, root):
        data.notes.append(f"note: {text}")
    words = f"masks in {shown(place, root)}/" if place else "no mask folder"
    return best, f"images in {shown(folder, root)}/, {words}"


def named(roots: list[Path], folder: str, flag: str, part: str = "") -> Path:
    """The folder in one of the roots that a flag names, or its sub-folder for the part."""
    normal = Path(os.path.normpath(folder))
    places = [] if normal.is_absolute() or ".." in normal.parts else [root / normal for root in roots]
    if place := next((place for place in places if place.is_dir()), None):
        return (inside(place, part) if part else None) or place
    raise DataError(f"{flag} {folder}: found no such folder in {roots[-1]}; expected one, as masks/raw")


def slashed(folders: Iterable[str]) -> str:
    return ", ".join(f"{folder}/" if folder else "images right in it" for folder in folders)


# --- split folders: train/, test/, val/ ----------------------------------------------------------


def split_folders(root: Path) -> dict[str, tuple[Path, str]]:
    """The image folder of each split folder of a data set, and the form of its mask folder. A folder
    that has images right in it and no masks is one only beside another, for the other list."""
    parts, bare = {}, set()
    for part in PARTS:
        for images, masks in SPLIT_FORMS:
            if folders := folders_of(root, IMAGE_FOLDERS, images, part):
                parts[part] = (folders[0], masks)
                if images == "{part}" and not folders_of(root, MASK_FOLDERS, masks, part):
                    bare.add(part)
                break
    both = len({list_of(part) for part in parts}) == 2
    return {part: place for part, place in parts.items() if both or part not in bare}


def parts_inside(folder: Path, images: list[ImageFile], without_lists: bool) -> list[ImageFile]:
    """Gives the images of an image folder the part that their first sub-folder names, in any case,
    where all are such: images/train/, images/Test/."""
    tops = {image.subfolder.split("/")[0] for image in images}
    others = sorted(top for top in tops if top.lower() not in PARTS)
    if len(tops) == 1 or len(others) == len(tops) or (others and not without_lists):
        return images
    if others:
        raise DataError(
            f"{folder}: found {slashed(others)} beside {slashed(sorted(tops - {*others}))}, and no "
            "list that says what they are for; expected train/ and test/ alone. Move the others away, "
            f"or name two text files with a name a line: {BY_HAND}"
        )
    return [replace(image, part=image.subfolder.split("/")[0].lower()) for image in images]


def choose_parts(data: DatasetFolder, images: list[ImageFile]) -> list[ImageFile]:
    """The images of split folders that are used without lists: test before val, which else serves as
    the test list; trainval before train, unless the images of val are tested on."""
    kinds = {kind_of(image.part) for image in images if image.part}
    if not kinds:
        return images
    test = "test" if "test" in kinds else "val"
    train = "trainval" if "trainval" in kinds and (test == "test" or "train" not in kinds) else "train"
    if test == "val" and "val" in kinds:
        data.notes.append("no test folder found: val/ serves as the test list")
    if unused := sorted(kinds - {train, test}):
        data.notes.append(f"note: {slashed(unused)} left out; to use others, name lists: --split")
    return [image for image in images if kind_of(image.part) in (train, test)]


# --- no masks ------------------------------------------------------------------------------------


def refuse_without_masks(
    images: list[ImageFile], data: DatasetFolder, data_root: str | os.PathLike
) -> None:
    """Says what is there in the place of masks, or which flags to type; backgrounds need none."""
    root, reading = data.root, data.reading
    flags = "--mask-folder DIR --mask-suffix TEXT"
    if shared := [image for image in images if image.problem]:
        raise DataError(f"{shared[0].path}: {shared[0].problem}; so it is with {len(shared)} images")
    if labels := label_files(root):
        place = "" if str(data_root) == "data" else f" --data-root {shlex.quote(str(data_root))}"
        raise DataError(
            f"{root}: found no masks, but {labels}. Masks are needed: in masks/ a picture for each "
            "image, 255 on target pixels and 0 elsewhere. Polygons and run lengths of COCO or labelme "
            f"become masks: python utils.py --dataset {shlex.quote(data.name)}{place} "
            f"--from-annotations {shlex.quote(str(root))}. {BOXES}"
        )
    if hint := hint_for(root, MASK_FOLDERS):
        raise DataError(f"{root}: found no mask for any image{hint}")
    if not all(is_background(image, root) for image in images):
        place = f"{shown(images[0].masks, root)}/" if images[0].masks else "masks/"
        others = some([str(path) for path in without_image(images)])
        raise DataError(
            f"{root}: found no mask for any of its {len(images)} images; expected {place}"
            f"{images[0].stem}{reading.mask_suffix}.png for {images[0].path.name}, or another of the "
            f"names in docs/DATASETS.md; found {others or 'nothing'} there. Name the masks' folder and "
            f"the ends of their names: {flags}"
        )
