"""Which images of a data set are for training and for testing: its list files, its split folders, or a
new split."""

import contextlib
import os
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.datasets.names import (
    IMAGE_SUBFOLDERS,
    KINDS,
    LIST_FOLDERS,
    LIST_SUFFIXES,
    composed,
    kind_of,
    leads_inside,
    readable,
    shown,
    walk,
    without_extension,
)
from ismallnet.datasets.pairing import checked
from ismallnet.datasets.sample import DatasetFolder, ImageFile
from ismallnet.files import atomic_write, disguise

SPLIT_SEED = 0  # of the 50:50 split that is made where a data set has no list


# --- where the lists are -----------------------------------------------------------------------------


def find_lists(root: Path, name: str, split: list[str] | None) -> dict[str, Path] | None:
    """{"train": file, "test": file} of the split asked for or the one that wins; None: no list."""
    if split is None:
        return usual_lists(root, name)
    return two_files(root, split) if len(split) == 2 else lists_of_folder(root, name, split[0])


def two_files(root: Path, split: list[str]) -> dict[str, Path]:
    files = []
    for text in split:
        places = [Path(text)] if ".." in Path(text).parts else [root / text, Path(text)]
        files.append(next((path for path in places if path.is_file()), None))
    if missing := [text for text, file in zip(split, files) if file is None]:
        raise DataError(f"{root}: found no split file {', '.join(missing)}; expected text files")
    return dict(zip(("train", "test"), files))


def lists_of_folder(root: Path, name: str, split: str) -> dict[str, Path]:
    places = [root / split, Path(split)]
    if any(place.is_file() for place in places):
        raise DataError(
            f"{split}: one list, expected a training and a test list: --split TRAIN.txt TEST.txt"
        )
    if lists := first_lists(places, name):
        return lists
    folders = sorted({shown(p.parent, root) for p in root.glob("**/*.txt")})
    raise DataError(
        f"{root / split}: found no lists there; expected {{train,trainval,test}}.txt. This data "
        f"set has lists in: {', '.join(folders) or 'no folder'}"
    )


def usual_lists(root: Path, name: str) -> dict[str, Path] | None:
    right_in_it = (root / "train.txt").is_file() and (root / "test.txt").is_file()
    return first_lists([root] if right_in_it else [root / f for f in LIST_FOLDERS], name)


def first_lists(places: list[Path], name: str) -> dict[str, Path] | None:
    """The lists of the first of the folders that has both, with val for test if need be; else the first
    list alone."""
    candidates = [lists for val in (False, True) for f in places if (lists := lists_in(f, name, val))]
    return next((lists for lists in candidates if len(lists) == 2), next(iter(candidates), None))


def lists_in(folder: Path, name: str, val: bool = False) -> dict[str, Path]:
    """The lists in one folder; `trainval` is used before `train`; with `val`, val.txt serves where
    there is no test.txt, beside `train`."""
    others = [p.stem.removeprefix("test") for p in sorted(folder.glob("test_*.txt"))]
    best: dict[str, Path] = {}
    for end in ("", f"_{name}", "_full", "_v1", *(others if len(others) == 1 else [])):
        stems = {"train": (f"trainval{end}", f"train{end}"), "test": (f"test{end}", f"val{end}")}
        stems["test"] = stems["test"][: 1 + val]
        files = {k: [p for s in v if (p := folder / f"{s}.txt").is_file()] for k, v in stems.items()}
        lists = {k: v[0] for k, v in files.items() if v}
        if "test" in lists and lists["test"].stem.startswith("val") and files["train"]:
            lists["train"] = files["train"][-1]  # trainval has the images of val, which is tested on
        best = lists if len(lists) > len(best) else best
    return best


# --- what a list says --------------------------------------------------------------------------------


def read_list(path: Path) -> tuple[list[str], str]:
    """The lines of a list file that hold something, in Unicode NFC, and the file's encoding: UTF-8,
    UTF-16 with its mark, or GBK."""
    raw = path.read_bytes()
    if raw and (what := disguise(path)):
        raise DataError(f"{path}: not a list of names ({what})")
    for encoding in ("utf-16",) if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "gbk"):
        with contextlib.suppress(UnicodeDecodeError):
            if "\0" not in (text := raw.decode(encoding)):
                return lines_of(text), encoding
    raise DataError(f"{path}: not a text file; expected one name a line")


def lines_of(text: str) -> list[str]:
    lines = (line.strip().strip("\ufeff").strip() for line in re.split(r"[\r\n]+", composed(text)))
    return [line for line in lines if line]


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


def points_outside(line: str) -> bool:
    """Whether an entry is an absolute path or has `..` in it."""
    path = line.replace("\\", "/")
    return (
        path.startswith("/") or bool(PureWindowsPath(path).drive) or ".." in PurePosixPath(path).parts
    )


def entry(line: str, index: Index, kind: str) -> ImageFile:
    """The image that a line of a list names; where several split folders have it, that of the list's
    kind is meant. Refuses none, several, and a path that leads out of the data set."""
    if points_outside(line):
        last = re.split(r"[\\/]", line)[-1]
        hint = f"; write {last!r} for it: an image of this name is there" if index.named(last) else ""
        raise DataError(f"the entry {line!r} points outside the data set{hint}")
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


def list_of(part: str) -> str:
    """The list that a split folder is for."""
    return "test" if kind_of(part) in ("test", "val") else "train"


# --- the lists of a data set ----------------------------------------------------------------------


def choose_samples(
    data: DatasetFolder, images: list[ImageFile], lists: dict[str, Path] | None
) -> dict[Path, str]:
    """Fills in the data set's lists and problems: from the list files, from the split folders, or
    from a new 50:50 split, whose files and texts it returns for `write_split`."""
    new: dict[Path, str] = {}
    if lists is None and any(image.part for image in images):
        chosen = {list_of(i.part): [] for i in images}
        for image in images:
            chosen[list_of(image.part)].append(image)
    else:
        if not lists:
            new = make_split(data, images)
            lists = dict(zip(("train", "test"), new))
        data.layout += f", lists {' and '.join(shown(path, data.root) for path in lists.values())}"
        index = Index(images, data.root)
        chosen = {kind: listed(path, data, new, index, kind) for kind, path in lists.items()}
    for kind, entries in chosen.items():
        problems, data.lists[kind] = data.problems.setdefault(kind, []), []
        for image in entries:
            try:
                data.lists[kind].append(checked(image, data.root, data.reading))
            except DataError as error:
                problems.append(str(error))
    say_overlap(data, images if lists else [])
    return new


def listed(
    path: Path, data: DatasetFolder, new: dict[Path, str], index: Index, kind: str
) -> list[ImageFile]:
    """The images that a list names, each once; the entries that cannot be used become problems. `new`
    has the texts of lists that are not written yet."""
    problems = data.problems.setdefault(kind, [])
    entries: dict[str, ImageFile] = {}
    for line in lines_of(new[path]) if path in new else lines_from(path, data):
        try:
            image = entry(line, index, kind)
            entries[image.name] = image
        except DataError as error:
            problems.append(f"{path}: {error}")
    return list(entries.values())


def lines_from(path: Path, data: DatasetFolder) -> list[str]:
    within = path.is_relative_to(data.root)
    if within and not data.reading.follow_links and not leads_inside(path, data.root):
        raise DataError(f"{path}: a link that leads out of the data set; --follow-links allows it")
    lines, encoding = read_list(path)
    if encoding == "gbk":
        data.notes.append(f"{shown(path, data.root)}: not UTF-8, read as GBK")
    return lines


def say_overlap(data: DatasetFolder, images: list[ImageFile]) -> None:
    """Notes on images that are in both lists, and on those of `images` that are in none."""
    names = {kind: {sample.name for sample in samples} for kind, samples in data.lists.items()}
    if both := sorted(names.get("train", set()) & names.get("test", set())):
        data.notes.append(
            f"warning: {len(both)} images are in the training and the test list: {some(both)}"
        )
    alone = sorted({image.name for image in images}.difference(*names.values()))
    if alone and not any(data.problems.values()):
        data.notes.append(f"note: {len(alone)} images are in none of these lists: {some(alone)}")


# --- a new split ----------------------------------------------------------------------------------


def make_split(data: DatasetFolder, images: list[ImageFile]) -> dict[Path, str]:
    """The files and texts of a seeded split, as near to 50:50 as can be, announced; never where there
    are lists already, which it would outrank from then on. Sub-folders may be sequences, whose frames
    are alike: none is in both lists."""
    if strays := stray_lists(data.root):
        raise DataError(
            f"{data.root}: cannot tell which of {some(strays)} are its lists; name two text files "
            "with a name a line: --split TRAIN.txt TEST.txt"
        )
    folder = data.root / "50_50"
    if not leads_inside(folder, data.root):
        raise DataError(f"{folder}: a link that leads out of the data set")
    groups = sequences(images)
    if len(groups) == 1 and "" not in groups:
        data.notes.append(
            f"warning: all images are in one sub-folder, {next(iter(groups))}/. If they are frames "
            "of one video, neighbouring frames are in both lists, and the results are too good. "
            "Name lists of your own: --split TRAIN.txt TEST.txt"
        )
        groups = {"": next(iter(groups.values()))}
    halves = halved(groups)
    how = "a 50:50 split" if groups.keys() == {""} else "a split by whole sub-folders"
    counts = f"{len(halves[0])} training and {len(halves[1])} test images"
    data.notes.append(f"no list found: made {how} (seed {SPLIT_SEED}) in {folder}: {counts}")
    texts = ["".join(f"{name}\n" for name in sorted(half)) for half in halves]
    return dict(zip((folder / "train.txt", folder / "test.txt"), texts))


def stray_lists(root: Path) -> list[str]:
    """The files at any depth that look like lists of images by their names; none of folders with more
    than 20 of them, as folders of labels have."""
    strays = []
    for folder in walk(root):
        files = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in LIST_SUFFIXES]
        files = [p for p in files if p.stem.lower().startswith(KINDS) and p.is_file()]
        strays += files if len(files) <= 20 else []
    return sorted(shown(path, root) for path in strays)


def sequences(images: list[ImageFile]) -> dict[str, list[str]]:
    """The names of images by their sub-folder, which may be a sequence, at the first depth at which
    there are several; "" for images in none."""
    folders = {
        readable(i.name): [f for f in i.subfolder.split("/") if f not in IMAGE_SUBFOLDERS]
        for i in images
    }
    common = os.path.commonpath(["/".join(parts) for parts in folders.values()])
    depth = len(PurePosixPath(common).parts) + 1
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(folders):
        groups["/".join(folders[name][:depth])].append(name)
    return groups


def halved(groups: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """A training and a test half of names, seeded: groups stay whole, the largest first, each where
    fewer are; the names of "" fill up one by one."""
    singles = groups.get("", [])
    folders = sorted(groups.keys() - {""})
    mixed = [folders[i] for i in np.random.default_rng(SPLIT_SEED).permutation(len(folders))]
    halves: tuple[list[str], list[str]] = ([], [])
    for folder in sorted(mixed, key=lambda folder: -len(groups[folder])):
        min(halves, key=len).extend(groups[folder])
    total = len(singles) + sum(map(len, halves))
    cut = min(max(total // 2 - len(halves[0]), 0), len(singles))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(singles))
    halves[0].extend(singles[i] for i in order[:cut])
    halves[1].extend(singles[i] for i in order[cut:])
    return halves


def write_split(data: DatasetFolder, files: dict[Path, str]) -> None:
    """Writes a new split, if all that it names can be used."""
    if files and any(data.problems.values()):
        data.notes.append("note: the new lists are written when all images and masks can be used")
        return
    for path, text in files.items():
        try:
            with atomic_write(path) as file:
                file.write(text.encode())
        except (OSError, UnicodeError) as error:
            for other in files:  # one list alone would be taken for all there is
                with contextlib.suppress(OSError):
                    other.unlink()
            reason = getattr(error, "strerror", None) or "a file name is not UTF-8"
            raise DataError(
                f"{data.root}: has no list of training and test images, and a 50:50 split cannot be "
                f"written there ({reason}); name your lists: --split TRAIN.txt TEST.txt"
            ) from error
