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
from ismallnet.datasets.lists import choose_samples, find_lists, write_split
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
    has_images,
    hint_for,
    inside,
    kind_of,
    label_files,
    not_read_text,
    shown,
    walk,
)
from ismallnet.datasets.pairing import (
    images_in,
    is_background,
    name_images,
    paired,
    refuse_instances,
    settle,
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
    settle(images, root, reading.mask_suffix)
    unused = without_image(images)
    if not reading.mask_suffix:
        refuse_instances(unused, images)
    if unused and any(image.mask for image in images):
        names = some([shown(path, root) for path in unused])
        data.notes.append(f"note: {len(unused)} mask files are no image's mask: {names}")
    name_images(images)
    return data, images, lists


def dataset_root(name: str, data_root: Path) -> Path:
    root = data_root / name
    if Path(name).name == name and name not in ("", ".", "..") and root.is_dir():
        return root
    packed = [path for path in archives(data_root) if path.name.lower().split(".")[0] == name.lower()]
    if packed:
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
    """The images of a data set; says in its layout and notes how they lie.

    Args:
        without_lists: the folders are the lists; trainval/ is used before train/.
    """
    root, folder = data.root, data.reading.image_folder
    folders = [named([root], folder, "--image-folder")] if folder else folders_of(root, IMAGE_FOLDERS)
    if not folders:
        return choose_parts(data, split_images(data, without_lists), without_lists)
    images, data.layout = pair_folders(data, folders, ["{masks}"], root)
    images = parts_inside(images, without_lists)
    parts = split_folders(root) if without_lists and not folder else ()
    if parts and not any(image.part for image in images):
        name = folders[0].name
        raise DataError(
            f"{root}: found {name}/, the split folders {slashed(parts)} too, and no list that says "
            "which images are for training. Move the one or the others away, name lists: "
            f"{BY_HAND}, or use a new split of {name}/: --image-folder {name}"
        )
    return choose_parts(data, images, without_lists)


def pair_folders(
    data: DatasetFolder, folders: list[Path], mask_forms: list[str], base: Path, part: str = ""
) -> tuple[list[ImageFile], str]:
    """The images of the first of the folders, with the masks of the first mask folder in which every
    image has one, else of that in which most have; and the two folders in words.

    Args:
        folders: image folders; a note says that the others are left out.
        mask_forms: where mask folders may be, as in `SPLIT_FORMS`; masks beside images come last.
        base: the folder of the part, or the data set.
    """
    folder, root, reading = folders[0], data.root, data.reading
    if reading.mask_folder:
        masks = tries = [named([base, root], reading.mask_folder, "--mask-folder", part)]
    else:
        masks = [f for form in mask_forms for f in folders_of(root, MASK_FOLDERS, form, part)]
        masks = [f for f in dict.fromkeys(masks) if not folder.is_relative_to(f)]
        tries = [*masks, folder]
    label_maps = [root / name for name in MAP_FOLDERS if (root / "maps.json").is_file()]
    tops = [top for top in (*masks, *label_maps) if not folder.is_relative_to(top)]
    skip = {f for top in tops for f in walk(top)}
    if not (images := images_in(folder, skip, part, reading)):
        raise DataError(f"{folder}: found no images that end in {reading.image_suffix!r}")
    results, counts = {}, {}
    for place in tries:
        results[place] = paired(images, place, reading)
        counts[place] = sum(image.mask is not None for image in results[place])
        if counts[place] == len(results[place]):
            break
    else:
        place = max(counts, key=counts.get)
    if not counts[place]:
        place = masks[0] if masks else None
        results[place] = paired(images, place, reading)
    say_left_out(data, folders, masks, place, base)
    here = base if place and place.is_relative_to(base) else root
    words = f"masks in {shown(place, here)}/" if place else "no mask folder"
    return results[place], f"images in {folder.relative_to(base)}/, {words}"


def say_left_out(
    data: DatasetFolder, folders: list[Path], masks: list[Path], place: Path | None, base: Path
) -> None:
    """Notes on the image and mask folders, and on the files, that are not used."""
    others = [f for f in folders[1:] if f.name != "mixed"]
    others += [f for f in masks if f.is_relative_to(base) and not (place and place.is_relative_to(f))]
    left, used = (
        [f"{shown(f, data.root)}/" for f in places if f] for places in (others, (folders[0], place))
    )
    if left:
        data.notes.append(
            f"note: {', '.join(left)} left out; {' and '.join(used)} used; for others type "
            "--image-folder, --mask-folder"
        )
    data.notes += [f"note: {text}" for text in not_read_text(folders[0], data.root)]


def named(roots: list[Path], folder: str, flag: str, part: str = "") -> Path:
    """The folder that a flag names, or its sub-folder for the part where it has one.

    Args:
        roots: where it is looked for, the last one is the data set.
    """
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
                own = images != "{part}" or folders_of(root, MASK_FOLDERS, masks, part)
                bare |= set() if own or has_masks_beside(folders[0]) else {part}
                break
    kinds = {kind_of(part) for part in parts}
    both = kinds & {"train", "trainval"} and kinds & {"test", "val"}
    return {part: place for part, place in parts.items() if both or part not in bare}


def has_masks_beside(folder: Path) -> bool:
    images = images_in(folder, set(), "", AS_IT_LIES)
    return any(image.mask for image in paired(images, folder, AS_IT_LIES))


def split_images(data: DatasetFolder, without_lists: bool) -> list[ImageFile]:
    """The images of all split folders.

    Raises:
        DataError: there are none, or the images of one are not read.
    """
    root, images, texts = data.root, [], []
    if not (parts := split_folders(root)):
        raise DataError(
            f"{root}: found no images; expected {', '.join(EXTENSIONS)} in {slashed(IMAGE_FOLDERS)}"
            f"{hint_for(root, IMAGE_FOLDERS)}. Name other folders: --image-folder DIR "
            "--mask-folder DIR, and the ends of the files' names, if they have any: "
            "--image-suffix _1 --mask-suffix _2"
        )
    for part, (folder, form) in parts.items():
        base = inside(root, part) or root
        base = base if folder.is_relative_to(base) else root
        pairs, text = pair_folders(data, [folder], [form, *COMMON_MASKS], base, part)
        images += pairs
        texts.append(f"{part} ({text})")
    data.layout = f"split folders {', '.join(texts)}"
    unused = [f for part in PARTS if part not in parts and (f := inside(root, part))]
    for folder in unused if without_lists else ():
        if has_images(folder) or not_read_text(folder, root):
            raise DataError(
                f"{folder}: found no images that are read in it or in its images/, though it is a "
                f"split folder beside {slashed(parts)}{hint_for(root, IMAGE_FOLDERS)}. Put its "
                f"images there, move it away, or name lists: {BY_HAND}"
            )
    if others := other_folders(root, images):
        data.notes.append(f"note: {slashed(others)} left out; a split folder is train/, test/, val/, …")
    return images


def other_folders(root: Path, images: list[ImageFile]) -> list[str]:
    """The folders beside split folders that hold pictures and are not used, nor masks or label maps."""
    used = [path for image in images for path in (image.path, image.masks) if path]
    known = {*MAP_FOLDERS, *(path.relative_to(root).parts[0] for path in used if path != root)}
    forms = [(form, part) for form in ("{masks}", *dict(SPLIT_FORMS).values()) for part in PARTS]
    known |= {f.name for form, part in forms for f in folders_of(root, MASK_FOLDERS, form, part)}
    folders = sorted(f for f in root.iterdir() if f.is_dir() and f.name[0] != ".")
    folders = [f for f in folders if f.name not in known and f.name.lower() not in PARTS]
    return [f.name for f in folders if has_images(f)]


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
        raise DataError(
            f"{folder}: found {slashed(others)} beside {slashed(sorted(tops - {*others}))}, and no "
            "list that says what they are for; expected train/ and test/ alone. Move the others away, "
            f"or name two text files with a name a line: {BY_HAND}"
        )
    return [replace(image, part=image.subfolder.split("/")[0].lower()) for image in images]


def choose_parts(data: DatasetFolder, images: list[ImageFile], without_lists: bool) -> list[ImageFile]:
    """The images of split folders that are used: trainval is used before train, and test before val,
    which else serves as the test list. Lists may also name images that only train/ has."""
    kinds = ("train", "trainval", "test", "val")
    stems = {kind: {i.stem for i in images if kind_of(i.part) == kind} for kind in kinds}
    if not without_lists:
        both = stems["trainval"]
        return [i for i in images if not (kind_of(i.part) == "train" and i.stem in both)]
    unused = set()
    if stems["val"] and stems["test"]:
        unused.add("val")
        data.notes.append("note: val/ is left out, test/ is there; to use it, name lists: --split")
    elif stems["val"]:
        data.notes.append("no test folder found: val/ serves as the test list")
        if stems["train"] and stems["trainval"]:
            unused.add("trainval")
            data.notes.append("note: trainval/ is left out, since val/ serves as the test list")
    if stems["train"] and stems["trainval"] and "trainval" not in unused:
        unused.add("train")
        if lost := sorted(stems["train"] - stems["trainval"]):
            data.notes.append(
                f"note: train/ is left out, trainval/ is there; {len(lost)} images of train/ are not "
                f"in trainval/: {some(lost)}; to use them, name lists: --split"
            )
    return [image for image in images if kind_of(image.part) not in unused]


# --- no masks ------------------------------------------------------------------------------------


def refuse_without_masks(
    images: list[ImageFile], data: DatasetFolder, data_root: str | os.PathLike
) -> None:
    """
    Args:
        data: its name, root and reading count.

    Raises:
        DataError: no image has a mask, and it says what is there instead, or which flags to type.
    """
    root, reading = data.root, data.reading
    flags = "--mask-folder DIR --mask-suffix TEXT"
    if shared := [image for image in images if image.problem]:
        raise DataError(f"{shared[0].path}: {shared[0].problem}; so it is with {len(shared)} images")
    if labels := label_files(root):
        place = "" if str(data_root) == "data" else f" --data-root {shlex.quote(str(data_root))}"
        source = shlex.quote(str(root)) if "(.json)" in labels else "FILE"
        raise DataError(
            f"{root}: found no masks, but {labels}. Masks are needed: in masks/ a picture for each "
            "image, 255 on target pixels and 0 elsewhere. Polygons and run lengths of COCO or labelme "
            f"become masks: python utils.py --dataset {shlex.quote(data.name)}{place} "
            f"--from-annotations {source}. {BOXES}"
        )
    if hint := hint_for(root, MASK_FOLDERS):
        raise DataError(f"{root}: found no mask for any image{hint}")
    if reading.missing_masks == "empty":
        raise DataError(
            f"{root}: found no mask for any image, so --missing-masks empty would leave no target at "
            f"all. Name the masks' folder: {flags}"
        )
    if not all(is_background(image, root) for image in images):
        place = f"{shown(images[0].masks, root)}/" if images[0].masks else "masks/"
        others = without_image(images)
        there = f"{others[0]} and {len(others) - 1} more masks have other names. " if others else ""
        raise DataError(
            f"{root}: found no mask for any of its {len(images)} images; expected {place}"
            f"{images[0].stem}{reading.mask_suffix}.png for {images[0].path.name}, or another of the "
            f"names in docs/DATASETS.md. {there}Name the masks' folder and the ends of their "
            f"names: {flags}"
        )
