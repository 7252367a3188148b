"""Finds a data set: the folder DATA_ROOT/NAME in any of the layouts of docs/DATASETS.md.

The layouts are tables of folder names. Of the mask folders that could belong to an image folder the
first is used in which every image has a mask.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ismallnet.cli import DataError, some
from ismallnet.datasets.lists import (
    SPLIT_FOLDERS,
    USED_TOGETHER,
    Index,
    find_lists,
    kind_of,
    list_of,
    listed,
    new_split,
    write_split,
)
from ismallnet.datasets.masks import TARGET, load_masks
from ismallnet.datasets.pairing import (
    EXTENSIONS,
    folder_inside,
    image_files,
    images_in,
    is_background,
    leads_inside,
    name_images,
    paired,
    refuse_instances,
    refuse_shared,
    shown,
    walk,
    without_image,
)
from ismallnet.datasets.sample import AS_IT_LIES, MAPS, DatasetFolder, ImageFile, Reading, Sample

# Folders, compared without case; those that come first are tried first.
IMAGE_FOLDERS = ("images", "image", "imges", "IRSTD1k_Img", "mixed", "img", "imgs", "JPEGImages")
IMAGE_FOLDERS += ("img_dir",)
MASK_FOLDERS = ("masks", "mask", "IRSTD1k_Label", "annotations/masks", "labels", "label")
MASK_FOLDERS += ("annotations", "gt", "ground_truth", "SegmentationClass", "ann_dir")
# Where split folders have their images and masks; each form is tried for each of the names above.
SPLIT_FORMS = (
    ("{part}/{images}", "{part}/{masks}"),
    ("{part}_{images}", "{part}_{masks}"),
    ("{images}_{part}", "{masks}_{part}"),
    ("{part}-{images}", "{part}-{masks}"),
    ("{images}/{part}", "{masks}/{part}"),
    ("{part}", "{part}/{masks}"),
)
COMMON_MASKS = ("{masks}/{part}", "{masks}")  # else the masks are in one folder for all of them
BY_FLAGS = (
    "Name the folders, and the ends of the files' names, if they have any: --image-folder DIR "
    "--mask-folder DIR --image-suffix _1 --mask-suffix _2"
)
BOXES = (
    "Boxes do not: a box does not say which of its pixels are target. Draw polygons (in labelme, or in "
    "CVAT and export COCO), or let a program that segments turn the boxes into masks"
)


def find_dataset(
    name: str,
    data_root: str | os.PathLike = "data",
    split: list[str] | None = None,
    mask_threshold: int = TARGET,
    reading: Reading = AS_IT_LIES,
    needed: tuple[str, ...] = ("train", "test"),
) -> DatasetFolder:
    """Finds the layout and the lists of a data set, reads its masks, once, and what their values mean.

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
        refuse_without_masks(images, data)
    made: dict[str, list[ImageFile]] = {}
    if lists:
        add_lists(data, images, lists)
        test = lists.get("test")
        if test and test.stem.startswith("val") and len(split or ()) < 2:
            data.notes.append(f"no test list found: {shown(test, data.root)} serves as the test list")
    elif any(image.part for image in images):
        for kind in {list_of(image.part): None for image in images}:
            add_samples(data, kind, [image for image in images if list_of(image.part) == kind])
    else:
        made = new_split(data, images)
        for kind, half in made.items():
            add_samples(data, kind, half)
    load_masks(data, mask_threshold, needed)
    if made:
        write_split(data, made)
    return data


def find_images(
    name: str, data_root: str | os.PathLike, split: list[str] | None, reading: Reading
) -> tuple[DatasetFolder, list[ImageFile], dict[str, Path] | None]:
    """A data set's folder, its images with their names and the masks that there are, and the lists that
    say which are used; arguments and errors as `find_dataset`."""
    name = name.rstrip("/")
    outer = dataset_root(name, Path(data_root))
    root = outer if reading.image_folder else innermost(outer)
    lists = find_lists(root, name, split) or find_lists(outer, name, split)
    data = DatasetFolder(name, root, "", reading=reading)
    images = list_images(data, without_lists=lists is None)
    unused = without_image(images)
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
    there = sorted(p.name for p in data_root.glob("*") if p.name[0] != ".")
    guess = f"Did you mean --dataset {Path(name).name}? " if Path(name).name in there else ""
    raise DataError(
        f"{root}: no such data set; in {data_root}/ there is: {', '.join(there) or 'nothing'}. {guess}"
        "Put the folder there (unpack archives first), name another root with --data-root, or make the "
        "synthetic set: python synthetic.py"
    )


def innermost(root: Path) -> Path:
    """The folder itself, or its only sub-folder with images where it has none (NAME/NAME/images)."""
    if folders_of(root, IMAGE_FOLDERS) or split_folders(root):
        return root
    inner = [f for f in root.iterdir() if f.is_dir()]
    inner = [f for f in inner if folders_of(f, IMAGE_FOLDERS) or split_folders(f)]
    return inner[0] if len(inner) == 1 else root


# --- which images ----------------------------------------------------------------------------------


def add_lists(data: DatasetFolder, images: list[ImageFile], lists: dict[str, Path]) -> None:
    """The samples of list files; notes on images that are in both, and in none."""
    data.layout += f", lists {' and '.join(shown(path, data.root) for path in lists.values())}"
    index = Index(images, data.root)
    for kind, path in lists.items():
        add_samples(data, kind, *listed(path, data, index, kind))
    names = {kind: {sample.name for sample in samples} for kind, samples in data.lists.items()}
    if both := sorted(names.get("train", set()) & names.get("test", set())):
        data.notes.append(
            f"warning: {len(both)} images are in the training and the test list: {some(both)}"
        )
    alone = sorted({image.name for image in images}.difference(*names.values()))
    if alone and not any(data.problems.values()):
        data.notes.append(f"note: {len(alone)} images are in none of these lists: {some(alone)}")


def add_samples(
    data: DatasetFolder, kind: str, images: list[ImageFile], problems: Sequence[str] = ()
) -> None:
    """Adds a list; images that cannot be used become problems beside those of its entries."""
    data.lists[kind], data.problems[kind] = [], list(problems)
    for image in images:
        try:
            data.lists[kind].append(sample_of(image, data.root, data.reading))
        except DataError as error:
            data.problems[kind].append(str(error))


def sample_of(image: ImageFile, root: Path, reading: Reading) -> Sample:
    """Refuses a link that leads outside, no mask, and one that may be another image's."""
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


# --- which folders -------------------------------------------------------------------------------


def folders_of(
    root: Path, names: tuple[str, ...], form: str = "{images}", part: str = ""
) -> list[Path]:
    """The folders with images that have these names in a form of `SPLIT_FORMS`, in the names' order;
    not those that only hold another one of them."""
    texts = [form.format(part=part, images=name, masks=name) for name in names]
    folders = dict.fromkeys(f for text in texts if (f := folder_inside(root, text)))
    folders = [f for f in folders if any(map(image_files, walk(f)))]
    return [f for f in folders if not any(other.parent == f for other in folders)]


def list_images(data: DatasetFolder, without_lists: bool) -> list[ImageFile]:
    """The images of a data set, in split folders or in one image folder; its layout says which."""
    root, folder = data.root, data.reading.image_folder
    plain = [named([root], folder, "--image-folder")] if folder else folders_of(root, IMAGE_FOLDERS)
    parts = {} if folder else split_folders(root)
    images, data.layout = pair_folders(data, plain[0], ["{masks}"]) if plain else ([], "")
    tops = [top for top, _ in parts.values()]
    outside = [i.path for i in images if not any(i.path.is_relative_to(top) for top in tops)]
    if parts and (without_lists or not outside) and (len(set(map(list_of, parts))) == 2 or not plain):
        if outside:
            names = some([shown(path, root) for path in outside])
            data.notes.append(
                f"note: {len(outside)} images beside the split folders are not used: {names}"
            )
        parts = choose_parts(data, parts) if without_lists else parts
        pairs = {p: pair_folders(data, top, [f, *COMMON_MASKS], p) for p, (top, f) in parts.items()}
        data.layout = f"split folders {', '.join(f'{p} ({text})' for p, (_, text) in pairs.items())}"
        images = [image for of_part, _ in pairs.values() for image in of_part]
    if not images:
        raise DataError(
            f"{root}: found no images; expected {', '.join(EXTENSIONS)} in {', '.join(IMAGE_FOLDERS)}. "
            f"{contents(root)}. {BY_FLAGS}"
        )
    return images


def pair_folders(
    data: DatasetFolder, folder: Path, mask_forms: list[str], part: str = ""
) -> tuple[list[ImageFile], str]:
    """The images of a folder, with the masks of the first mask folder in which every image has one,
    else of that in which most have; and the two folders in words."""
    root, reading = data.root, data.reading
    if reading.mask_folder:
        masks = [named([root / part, root], reading.mask_folder, "--mask-folder", part)]
    else:
        masks = [f for form in mask_forms for f in folders_of(root, MASK_FOLDERS, form, part)]
        masks = [f for f in dict.fromkeys(masks) if not folder.is_relative_to(f)]
    label_maps = [root / name for name in MAPS if (root / "maps.json").is_file()]
    tops = [top for top in (*masks, *label_maps) if not folder.is_relative_to(top)]
    images = images_in(folder, {f for top in tops for f in walk(top)}, part, reading.image_suffix)
    if folder in masks:
        if not reading.mask_suffix:
            raise DataError(f"{folder}: images and masks; type how masks end: --mask-suffix _mask")
        images = [image for image in images if not image.path.stem.endswith(reading.mask_suffix)]
    results = [paired(images, place, reading.mask_suffix) for place in masks] or [images]
    best = max(results, key=lambda pairs: sum(image.mask is not None for image in pairs))
    place = best[0].masks if best else None
    words = f"masks in {shown(place, root)}/" if place else "no mask folder"
    return best, f"images in {shown(folder, root)}/, {words}"


def named(roots: list[Path], folder: str, flag: str, part: str = "") -> Path:
    """The folder in one of the roots that a flag names, or its sub-folder for the part."""
    normal = Path(os.path.normpath(folder))
    places = [] if normal.is_absolute() or ".." in normal.parts else [root / normal for root in roots]
    if place := next((place for place in places if place.is_dir()), None):
        return (folder_inside(place, part) if part else None) or place
    raise DataError(f"{flag} {folder}: found no such folder in {roots[-1]}; expected one, as masks/raw")


def split_folders(root: Path) -> dict[str, tuple[Path, str]]:
    """The image folder of each split folder of a data set, and the form of its mask folder."""
    parts = {}
    for part in SPLIT_FOLDERS:
        for images, masks in SPLIT_FORMS:
            if part not in parts and (folders := folders_of(root, IMAGE_FOLDERS, images, part)):
                parts[part] = (folders[0], masks)
    return parts


def choose_parts(data: DatasetFolder, parts: dict) -> dict:
    """The split folders that are used without lists."""
    there = {kind_of(part) for part in parts}
    used = next(kinds for choices in USED_TOGETHER for kinds in choices if there.issuperset(kinds))
    if "val" in used:
        data.notes.append("no test folder found: val/ serves as the test list")
    return {part: place for part, place in parts.items() if kind_of(part) in used}


# --- no masks ------------------------------------------------------------------------------------


def contents(root: Path) -> str:
    """What lies in a data set, for errors: how many files of each ending, and what to do with them."""
    files = [p for f in walk(root) for p in f.iterdir() if p.name[0] != "." and not p.is_dir()]
    counts = Counter(p.suffix.lower() if p.exists() else "links to nothing" for p in files)
    text = ", ".join(f"{n} {kind}" for kind, n in counts.most_common()) or "no files"
    return f"It holds {text}; unpack archives, and save other pictures as PNG"


def refuse_without_masks(images: list[ImageFile], data: DatasetFolder) -> None:
    """Says what is there in the place of masks, and what to type; backgrounds need none."""
    root = data.root
    if shared := [image for image in images if image.problem]:
        raise DataError(f"{shared[0].path}: {shared[0].problem}; so it is with {len(shared)} images")
    if all(is_background(image, root) for image in images):
        return
    others = some([str(path) for path in without_image(images)])
    folder = f"{shown(images[0].masks, root)}/" if images[0].masks else "masks/"
    raise DataError(
        f"{root}: found no mask for any of its {len(images)} images; expected {folder}"
        f"{images[0].stem}{data.reading.mask_suffix}.png for {images[0].path.name}, or another of the "
        f"names in docs/DATASETS.md; found {others or 'nothing'} there. {contents(root)}. {BY_FLAGS}. "
        f"Outlines of COCO or labelme become masks: {data.command('utils')} --from-annotations {root}. "
        f"{BOXES}"
    )
