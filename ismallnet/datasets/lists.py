"""Which images of a data set are for training and for testing: its list files, its split folders, or a
new split."""

import contextlib
import itertools
import operator
import os
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.datasets.pairing import (
    IMAGE_SUBFOLDERS,
    composed,
    leads_inside,
    shown,
    walk,
    without_extension,
)
from ismallnet.datasets.sample import DatasetFolder, ImageFile
from ismallnet.files import atomic_write

LIST_NAMES = ("train", "trainval", "test", "val")
OTHER_NAMES = {"training": "train", "testing": "test", "valid": "val", "validation": "val"}
SPLIT_FOLDERS = (*LIST_NAMES, *OTHER_NAMES)  # the names of split folders
# Which lists, or split folders, are used, best first: trainval before train, but not where val serves
# as the test list, as it has the same images.
USED_TOGETHER = (
    (("trainval", "test"), ("train", "test")),
    (("train", "val"), ("trainval", "val")),
    (("trainval",), ("train",), ("test",)),
    (("val",),),
)
LIST_FOLDERS = ("50_50", "img_idx", ".", "80_20", "idx_427", "idx_320", "splits")
LIST_FOLDERS += ("ImageSets/Segmentation", "ImageSets/Main", "ImageSets", "lists", "list", "split")
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".lst", ".list", ".xlsx", ".mat", ".npy", ".yaml")
BY_HAND = "--split TRAIN.txt TEST.txt"
NAME = operator.attrgetter("name")
SPLIT_SEED = 0  # of the 50:50 split that is made where a data set has no list


def kind_of(part: str) -> str:
    """A split folder's name in the usual words: val for validation."""
    return OTHER_NAMES.get(part.lower(), part.lower())


def list_of(part: str) -> str:
    """The list that a split folder is for."""
    return "test" if kind_of(part) in ("test", "val") else "train"


# --- where the lists are -----------------------------------------------------------------------------


def find_lists(root: Path, name: str, split: list[str] | None) -> dict[str, Path] | None:
    """{"train": file, "test": file} of the split asked for or the one that wins; None: no list."""
    if split is None:
        right_in_it = (root / "train.txt").is_file() and (root / "test.txt").is_file()
        return first_lists([root] if right_in_it else [root / f for f in LIST_FOLDERS], name)
    if len(split) == 2:
        return dict(zip(("train", "test"), (list_file(root, text) for text in split)))
    if lists := first_lists([root / split[0], Path(split[0])], name):
        return lists
    folders = sorted({shown(p.parent, root) for p in root.glob("**/*.txt")})
    raise DataError(
        f"{root / split[0]}: found no lists there; expected a folder with {{train,trainval,test}}.txt, "
        f"or two files: {BY_HAND}. This data set has lists in: {', '.join(folders) or 'no folder'}"
    )


def list_file(root: Path, text: str) -> Path:
    for path in (root / text, Path(text)):
        if path.is_file():
            return path
    raise DataError(f"{root}: found no split file {text}; expected a text file")


def first_lists(folders: list[Path], name: str) -> dict[str, Path] | None:
    """The first lists of USED_TOGETHER in the folders. Their names may end in the data set's name
    (train_NAME.txt), or as that of the folder's only test list does."""
    places = []
    for folder in folders:
        others = [path.stem.removeprefix("test") for path in folder.glob("test_*.txt")]
        ends = ["", f"_{name}", "_full", *(others if len(others) == 1 else [])]
        places += [(folder, end) for end in ends]
    for choices in USED_TOGETHER:
        for (folder, end), kinds in itertools.product(places, choices):
            files = {list_of(kind): folder / f"{kind}{end}.txt" for kind in kinds}
            if all(file.is_file() for file in files.values()):
                return files
    return None


# --- what a list says --------------------------------------------------------------------------------


def read_list(path: Path) -> tuple[list[str], str]:
    """The lines of a list file that hold something, in Unicode NFC, and the file's encoding: UTF-8,
    UTF-16 with its mark, or GBK."""
    raw = path.read_bytes()
    for encoding in ("utf-16",) if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "gbk"):
        with contextlib.suppress(UnicodeDecodeError):
            if "\0" not in (text := raw.decode(encoding)):
                lines = re.split(r"[\r\n]+", composed(text).replace("\ufeff", ""))
                return [line.strip() for line in lines if line.strip()], encoding
    raise DataError(f"{path}: not a text file; expected one name a line")


class Index:
    """The images of a data set by every name that a list may give them: with or without their folders
    and their file's ending."""

    def __init__(self, images: list[ImageFile], root: Path):
        self.root = root
        self.names: dict[str, list[ImageFile]] = defaultdict(list)
        for image in images:
            parts = image.path.relative_to(root).parts
            keys = {without_extension(composed("/".join(parts[k:]))) for k in range(len(parts))}
            keys.add(composed(image.name))
            for key in keys | {key.removesuffix(image.suffix) for key in keys}:
                self.names[key].append(image)

    def named(self, text: str) -> list[ImageFile]:
        """The images that a name may mean."""
        key = text.replace("\\", "/").removeprefix("./").removeprefix(f"{self.root.name}/")
        return self.names.get(without_extension(key), [])


def image_named(line: str, index: Index, kind: str) -> ImageFile:
    """The image that a line of a list names; where several split folders have it, that of the list's
    kind is meant. Refuses none and several."""
    images = index.named(line)
    if len(images) > 1:
        own = [image for image in images if image.part and list_of(image.part) == kind]
        images = own or [i for i in images if composed(i.name) == without_extension(line)] or images
    if not images:
        raise DataError(
            f"{line!r} is listed, but {index.root} has no such image; expected one name a line, as the "
            "file is called, and nothing else"
        )
    if len(images) > 1:
        several = " and ".join(shown(image.path, index.root) for image in images[:3])
        raise DataError(f"{line!r} could be {several}; name its folder")
    return images[0]


def listed(
    path: Path, data: DatasetFolder, index: Index, kind: str
) -> tuple[list[ImageFile], list[str]]:
    """The images that a list file names, each once; and what is wrong with entries that name none."""
    within = path.is_relative_to(data.root)
    if within and not data.reading.follow_links and not leads_inside(path, data.root):
        raise DataError(f"{path}: a link that leads out of the data set; --follow-links allows it")
    lines, encoding = read_list(path)
    if encoding == "gbk":
        data.notes.append(f"{shown(path, data.root)}: not UTF-8, read as GBK")
    images, problems = {}, []
    for line in lines:
        try:
            image = image_named(line, index, kind)
            images[image.name] = image
        except DataError as error:
            problems.append(f"{path}: {error}")
    return list(images.values()), problems


# --- a new split ----------------------------------------------------------------------------------


def new_split(data: DatasetFolder, images: list[ImageFile]) -> dict[str, list[ImageFile]]:
    """A seeded split, as near to 50:50 as can be, announced; never where there are lists already, which
    it would outrank from then on. Sub-folders may be sequences, whose frames are alike: none is in
    both lists."""
    if strays := stray_lists(data.root):
        raise DataError(
            f"{data.root}: cannot tell which of {some(strays)} are its lists; name two text files "
            f"with a name a line: {BY_HAND}"
        )
    groups = sequences(images)
    if len(groups) == 1:  # nothing to keep apart
        groups = {"": next(iter(groups.values()))}
    halves = halved(groups)
    how = "a 50:50 split" if groups.keys() == {""} else "a split by whole sub-folders"
    counts = f"{len(halves[0])} training and {len(halves[1])} test images"
    folder = data.root / "50_50"
    data.notes.append(f"no list found: made {how} (seed {SPLIT_SEED}) in {folder}: {counts}")
    data.layout += ", lists 50_50/train.txt and 50_50/test.txt"
    return {kind: sorted(half, key=NAME) for kind, half in zip(("train", "test"), halves)}


def stray_lists(root: Path) -> list[str]:
    """The files at any depth that look like lists of images by their names."""
    files = [path for folder in walk(root) for path in folder.iterdir()]
    files = [path for path in files if path.suffix.lower() in LIST_SUFFIXES]
    files = [path for path in files if path.stem.lower().startswith(LIST_NAMES) and path.is_file()]
    return sorted(shown(path, root) for path in files)


def sequences(images: list[ImageFile]) -> dict[str, list[ImageFile]]:
    """The images by their sub-folder, which may be a sequence, at the first depth at which there are
    several; "" for images in none."""
    folders = [[f for f in i.subfolder.split("/") if f not in IMAGE_SUBFOLDERS] for i in images]
    common = os.path.commonpath(["/".join(parts) for parts in folders])
    depth = len(PurePosixPath(common).parts) + 1
    groups: dict[str, list[ImageFile]] = defaultdict(list)
    for image, parts in zip(images, folders):
        groups["/".join(parts[:depth])].append(image)
    return groups


def halved(groups: dict[str, list[ImageFile]]) -> tuple[list[ImageFile], list[ImageFile]]:
    """A training and a test half of images, seeded: groups stay whole, the largest first, each where
    fewer are; the images of "" fill up one by one."""
    singles = sorted(groups.get("", []), key=NAME)
    folders = sorted(groups.keys() - {""})
    mixed = [folders[i] for i in np.random.default_rng(SPLIT_SEED).permutation(len(folders))]
    halves: tuple[list[ImageFile], list[ImageFile]] = ([], [])
    for folder in sorted(mixed, key=lambda folder: -len(groups[folder])):
        min(halves, key=len).extend(groups[folder])
    total = len(singles) + sum(map(len, halves))
    cut = min(max(total // 2 - len(halves[0]), 0), len(singles))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(singles))
    halves[0].extend(singles[i] for i in order[:cut])
    halves[1].extend(singles[i] for i in order[cut:])
    return halves


def write_split(data: DatasetFolder, halves: dict[str, list[ImageFile]]) -> None:
    """Writes a new split, if all that it names can be used."""
    if any(data.problems.values()):
        data.notes.append("note: the new lists are written when all images and masks can be used")
        return
    folder = data.root / "50_50"
    if not leads_inside(folder, data.root):
        raise DataError(f"{folder}: a link that leads out of the data set")
    try:
        texts = ["".join(f"{image.name}\n" for image in half).encode() for half in halves.values()]
        for kind, text in zip(halves, texts):
            with atomic_write(folder / f"{kind}.txt") as file:
                file.write(text)
    except (OSError, UnicodeError) as error:
        raise DataError(f"{folder}: cannot be written ({error}); name your lists: {BY_HAND}") from error
