"""Data sets as people have them on disk: the layouts, the lists, the files that belong together.

A data set is the folder DATA_ROOT/NAME in any of the layouts in use (docs/DATASETS.md); nothing
has to be renamed. `dataset.py` is the door to this file.
"""

import os
from dataclasses import replace
from pathlib import Path

from ismallnet.cli import DataError, some
from ismallnet.datasets.lists import find_lists
from ismallnet.datasets.masks import TARGET
from ismallnet.datasets.names import EXTENSIONS, image_files, inside, shown, walk
from ismallnet.datasets.oddities import (
    archives,
    left_out_hint,
    left_out_notes,
    masks_without_image,
    unused_masks,
)
from ismallnet.datasets.pairing import (
    ImageFile,
    assign_masks,
    masks_beside,
    name_images,
    refuse_instances,
    refuse_without_masks,
)
from ismallnet.datasets.parts import (
    IMAGE_FOLDERS,
    choose_parts,
    image_folders,
    mask_folders,
    other_folders,
    parts_inside,
    parts_of,
    refuse_both,
    unused_parts,
)
from ismallnet.datasets.sample import AS_IT_LIES, DatasetFolder, Reading
from ismallnet.datasets.splits import apply_lists, write_split
from ismallnet.datasets.survey import survey

MAP_FOLDERS = ("interior", "boundary")  # of stage 1, where maps.json is beside them


def find_dataset(
    name: str,
    data_root: str | os.PathLike = "data",
    split: list[str] | None = None,
    mask_threshold: int = TARGET,
    reading: Reading = AS_IT_LIES,
) -> DatasetFolder:
    """Finds the layout and the lists of a data set, and what the values of its masks mean.

    Args:
        name: the folder below data_root.
        split: None for the list that wins, or [folder], or [train file, test file].
        mask_threshold: mask values from here up are target.
        reading: what the layouts do not tell.

    Raises:
        DataError: no such data set, no images in it, no such split, or masks that are inverted. Single
            bad entries are not raised here: they are in `problems`, so that one error can name them
            all.
    """
    data, images, lists = find_images(name, data_root, split, reading)
    if not any(image.mask for image in images):
        refuse_without_masks(images, data, data_root)
    new_split = apply_lists(data, images, lists)
    test = lists.get("test") if lists else None
    if test and test.stem.startswith("val") and len(split or ()) < 2:
        data.notes.append(f"no test list found: {shown(test, data.root)} serves as the test list")
    read_masks(data, mask_threshold)
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
    root = dataset_root(name, Path(data_root))
    outer, root = root, root if reading.image_folder else innermost(root)
    lists = find_lists(root, name, split) or find_lists(outer, name, split)
    data = DatasetFolder(name, root, "", reading=reading)
    if outer != root:
        data.notes.append(f"{outer}: the data set is one folder deeper, in {root.name}/")
    images = list_images(data, without_lists=lists is None)
    assign_masks(images, reading.mask_suffix)
    unused = masks_without_image(images)
    if not reading.mask_suffix:
        refuse_instances([file for file in unused if not file.stem.endswith("_pixels0")], images)
    data.notes += unused_masks(unused, images, root)
    name_images(images)
    return data, images, lists


def dataset_root(name: str, data_root: Path) -> Path:
    root = data_root / name
    if Path(name).name != name.rstrip("/") or name in ("", ".", "..") or not root.is_dir():
        have = sorted(p.name for p in data_root.glob("*") if p.is_dir())
        packed = archives(data_root)
        if packed := [p.name for p in packed if p.name.lower().split(".")[0] == name.lower()]:
            raise DataError(
                f"{root}: no such data set, but its archive {packed[0]} is there; unpack it first, in "
                f"{data_root}"
            )
        guess = f"Did you mean --dataset {Path(name).name}? " if Path(name).name in have else ""
        raise DataError(
            f"{root}: no such data set; in {data_root}/ there is: {', '.join(have) or 'nothing'}. "
            f"{guess}Put the folder there, name another root with --data-root, or make the synthetic "
            "set: python synthetic.py"
        )
    return root


def innermost(root: Path) -> Path:
    """The folder itself, or its only sub-folder with images where it has none (NAME/NAME/images)."""
    if image_folders(root) or parts_of(root):
        return root
    inner = [f for f in root.iterdir() if f.is_dir() and (image_folders(f) or parts_of(f))]
    return inner[0] if len(inner) == 1 else root


def list_images(data: DatasetFolder, without_lists: bool) -> list[ImageFile]:
    """The images of a data set; says in its layout and notes how they lie.

    Args:
        without_lists: the folders are the lists; trainval/ is taken before train/.
    """
    if data.reading.image_folder or image_folders(data.root):
        images, data.layout = images_in(data)
        images = parts_inside(images, without_lists)
        if without_lists and not data.reading.image_folder and not any(i.part for i in images):
            refuse_both(data.root)
    else:
        if not (parts := parts_of(data.root)):
            expected = ", ".join(f"{folder}/" for folder in IMAGE_FOLDERS)
            raise DataError(
                f"{data.root}: found no images; expected {', '.join(EXTENSIONS)} in {expected}"
                f"{left_out_hint(data.root, IMAGE_FOLDERS)}. Name other folders: --image-folder DIR "
                "--mask-folder DIR, and the ends of the files' names, if they have any: "
                "--image-suffix _1 --mask-suffix _2"
            )
        groups = {part: images_in(data, *place, part) for part, place in parts.items()}
        images = [image for group, _ in groups.values() for image in group]
        texts = [f"{part} ({text})" for part, (_, text) in groups.items()]
        data.layout = f"split folders {', '.join(texts)}"
        if without_lists and (unused := unused_parts(data.root, parts)):
            raise DataError(
                f"{unused[0]}: found no images that are read in it or in {unused[0].name}/images/, "
                f"though it is a split folder beside {', '.join(f'{part}/' for part in parts)}"
                f"{left_out_hint(data.root, IMAGE_FOLDERS)}. Put its images there, move it away, or "
                "name lists: --split TRAIN.txt TEST.txt"
            )
        if others := other_folders(data.root, images):
            left = some([f"{shown(folder, data.root)}/" for folder in others])
            data.notes.append(f"note: {left} left out; a split folder is train/, test/, val/, …")
    images, notes = choose_parts(images, without_lists)
    data.notes += notes
    return images


def images_in(
    data: DatasetFolder, root: Path | None = None, joined: str = "", part: str = ""
) -> tuple[list[ImageFile], str]:
    """The images of a data set's first image folder or of a split folder `root`, and the image and the
    mask folder in words; notes say which others were left out.

    Args:
        joined: the part, where it is in the folders' names ("train": train_images/, train_masks/).
        part: of the images.
    """
    root = root or data.root
    reading = data.reading
    found = named([root], reading.image_folder, "--image-folder")
    found = found or image_folders(root, joined) or [root]
    (folder, *others) = found
    masks = named([root, data.root], reading.mask_folder, "--mask-folder", part)
    masks = masks or mask_folders(root, joined)
    masks = masks or mask_folders(root)
    masks = [mask for mask in masks if mask != folder or reading.mask_folder]
    others = [] if reading.image_folder else others
    others = [f for f in others if f.name != "mixed"] + masks[1:]
    if others:
        left = ", ".join(f"{shown(other, data.root)}/" for other in others)
        taken = " and ".join(f"{shown(f, data.root)}/" for f in (folder, *masks[:1]))
        data.notes.append(f"note: {left} left out; {taken} taken")
    no_images = not_images(folder, [*masks, *mask_folders(root)], data.root)
    files = [(f, path) for f in walk(folder) if f not in no_images for path in image_files(f)]
    files = [(f, path) for f, path in files if path.stem.endswith(reading.image_suffix)]
    beside = masks_beside([path for _, path in files], reading) if not masks or folder in masks else ()
    if not masks and not beside and root != data.root:  # masks/train/X.png, masks/X.png for all parts
        masks = [inside(f, part) or f for f in mask_folders(data.root)]
    if beside:
        files = [(f, path) for f, path in files if path not in beside]
        masks = [folder]
    data.notes += left_out_notes(folder, data.root, [path for _, path in files])
    images = [
        ImageFile(
            path,
            part,
            f.relative_to(folder).as_posix().removeprefix("."),
            masks[0] if masks else None,
            reading.image_suffix,
        )
        for f, path in files
    ]
    if not images:
        raise DataError(f"{folder}: found no images that end in {reading.image_suffix!r}")
    place = root if masks and masks[0].is_relative_to(root) else data.root
    mask_text = f"masks in {masks[0].relative_to(place)}/" if masks else "no mask folder"
    return images, f"images in {folder.relative_to(root)}/, {mask_text}"


def not_images(folder: Path, masks: list[Path], root: Path) -> set[Path]:
    """The folders in an image folder that are never searched for images: those of masks, and of label
    maps, with all in them."""
    maps = [root / name for name in MAP_FOLDERS if (root / "maps.json").is_file()]
    tops = [f for f in (*masks, *maps) if f != folder and f.is_relative_to(folder)]
    return {deeper for top in tops for deeper in walk(top)}


def named(roots: list[Path], folder: str | None, flag: str, part: str = "") -> list[Path]:
    """The folder that a flag names, in a list; an empty list without the flag.

    Args:
        roots: where it is looked for, the last one is the data set; the folder's sub-folder for the
            `part` is taken where there is one.
    """
    if folder is None:
        return []
    normal = Path(os.path.normpath(folder))
    places = [] if normal.is_absolute() or ".." in normal.parts else [root / normal for root in roots]
    if place := next((place for place in places if place.is_dir()), None):
        return [(inside(place, part) if part else None) or place]
    raise DataError(f"{flag} {folder}: found no such folder in {roots[-1]}; expected one, as masks/raw")


def read_masks(data: DatasetFolder, threshold: int) -> None:
    """Decides what the masks' values mean, and counts the lists' target pixels.

    Raises:
        DataError: all masks of a list are inverted.
    """
    everything = [sample for samples in data.lists.values() for sample in samples]
    if data.reading.missing_masks == "empty":
        count = sum(sample.mask is None for sample in everything)
        data.notes.append(f"{count} images without a mask are taken as pictures without targets")
    report = survey(list(dict.fromkeys(s.mask for s in everything if s.mask)), threshold)
    data.notes += report.notes
    for part, samples in data.lists.items():
        masks = [sample.mask for sample in samples if sample.mask in report.targets]
        if masks and report.inverted.issuperset(masks):
            raise DataError(
                f"{data.root}: in all masks of the {part} list more than half of the pixels are "
                f"target: they are inverted, or their background has a colour. Change those in "
                f"{masks[0].parent}: targets must be white, all else black"
            )
        if masks and report.pictures.issuperset(masks):
            raise DataError(
                f"{data.root}: all masks of the {part} list look like pictures, not like masks: many "
                f"pixels are neither black nor white. Is {masks[0].parent} the mask folder? Name "
                "another: --mask-folder DIR"
            )
        data.targets[part] = sum(report.targets[mask] for mask in masks)
        data.lists[part] = [replace(sample, rule=report.rule) for sample in samples]
