"""Which images of a data set are for training and for testing: its list files, its split folders, or a
new split."""

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.datasets.names import (
    IMAGE_SUBFOLDERS,
    KINDS,
    LIST_FOLDERS,
    LIST_SUFFIXES,
    MASK_ENDINGS,
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
    places = (root / split, Path(split))
    if any(place.is_file() for place in places):
        raise DataError(
            f"{split}: one list, expected a training and a test list: --split TRAIN.txt TEST.txt"
        )
    if lists := most(lists_in(place, name, val) for place in places for val in (False, True)):
        return lists
    folders = sorted({shown(p.parent, root) for p in root.glob("**/*.txt")})
    raise DataError(
        f"{root / split}: found no lists there; expected {{train,trainval,test}}.txt. This data "
        f"set has lists in: {', '.join(folders) or 'no folder'}"
    )


def usual_lists(root: Path, name: str) -> dict[str, Path] | None:
    places = [root / folder for folder in LIST_FOLDERS]
    if (root / "train.txt").is_file() and (root / "test.txt").is_file():
        places = [root]
    return most(lists_in(place, name, val) for val in (False, True) for place in places)


def most(candidates: Iterator[dict[str, Path]]) -> dict[str, Path] | None:
    """The first of the candidates that has both lists, else the first that has one."""
    candidates = [lists for lists in candidates if lists]
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
    """The lines of a list file that hold something, in Unicode NFC, and the file's encoding. Line ends
    and byte-order marks do not count.

    Raises:
        DataError: neither UTF-8, UTF-16 with its mark, nor GBK.
    """
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
    """The images of a data set by every name that a list may give them: with their folders or not, with
    their file's ending or not, or their mask's name; without case where no name fits as it is."""

    def __init__(self, images: list[ImageFile], root: Path):
        self.root = root
        self.names: dict[str, list[ImageFile]] = defaultdict(list)
        self.folded: dict[str, list[ImageFile]] = defaultdict(list)
        self.masks: dict[str, list[ImageFile]] = defaultdict(list)
        for image in images:
            keys = suffixes(image.path, root) | {composed(image.name)}
            keys |= {key.removesuffix(image.suffix) for key in keys}
            for key in keys:
                self.names[key].append(image)
            for key in {key.casefold() for key in keys}:
                self.folded[key].append(image)
            for key in suffixes(image.mask, root) if image.mask else ():
                self.masks[key].append(image)

    def named(self, text: str) -> list[ImageFile]:
        """The images that a name may mean."""
        key = text.replace("\\", "/").removeprefix("./").removeprefix(f"{self.root.name}/")
        key = without_extension(key)
        ending = next((e for e in MASK_ENDINGS if key.endswith(e)), "")
        for name in dict.fromkeys((key, key.removesuffix(ending))):
            for table, entry in (
                (self.names, name),
                (self.folded, name.casefold()),
                (self.masks, name),
            ):
                if entry in table:
                    return table[entry]
        return []

    def of_line(self, line: str) -> list[ImageFile]:
        """The images of a line: one name, or columns that all name one and the same image."""
        if images := self.named(line):
            return images
        columns = [self.named(text.strip("\"'")) for text in re.split(r"[,;\s]+", line) if text]
        return columns[0] if columns and all(images == columns[0] for images in columns) else []


def suffixes(path: Path, root: Path) -> set[str]:
    """A file's path in the data set, and with fewer and fewer of its folders; without its ending."""
    parts = path.relative_to(root).parts
    return {without_extension(composed("/".join(parts[k:]))) for k in range(len(parts))}


def points_outside(line: str) -> bool:
    """Whether an entry is an absolute path or has `..` in it."""
    path = line.strip("\"'").replace("\\", "/")
    return (
        path.startswith("/") or bool(PureWindowsPath(path).drive) or ".." in PurePosixPath(path).parts
    )


def listed(
    lines: list[str], path: Path, index: Index, kind: str, problems: list[str]
) -> list[ImageFile]:
    """The images that a list names; adds the entries that cannot be used to `problems`."""
    entries: dict[str, ImageFile] = {}
    for line in lines:
        try:
            image = entry(line, index, kind)
            if entries.setdefault(image.name, image) is not image:
                other = shown(entries[image.name].path, index.root)
                raise DataError(f"{line!r} and {other} would share their results' name")
        except DataError as error:
            problems.append(f"{path}: {error}")
    return list(entries.values())


def entry(line: str, index: Index, kind: str) -> ImageFile:
    """The image that a line of a list names.

    Args:
        kind: "train" or "test": where several split folders have the name, that of the list is meant.

    Raises:
        DataError: none, or several, or a path that leads out of the data set.
    """
    images = index.of_line(line)
    if points_outside(line):
        last = re.split(r"[\\/]", line)[-1]
        hint = f"; write {last!r} for it: an image of this name is there" if index.named(last) else ""
        raise DataError(f"the entry {line!r} points outside the data set{hint}")
    if len(images) > 1:
        own = [image for image in images if image.part and list_of(image.part) == kind]
        images = own or [i for i in images if composed(i.name) == without_extension(line)] or images
    if not images:
        raise DataError(
            f"{line!r} is listed, but {index.root} has no such image; expected one name a line, "
            "nothing else"
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
    chosen: dict[str, dict[str, ImageFile]] = {}
    if lists is None and any(image.part for image in images):
        for image in images:
            chosen.setdefault(list_of(image.part), {}).setdefault(image.name, image)
        chosen = {kind: list(entries.values()) for kind, entries in chosen.items()}
    else:
        if not lists:
            new = make_split(data, images)
            lists = dict(zip(("train", "test"), new))
        data.layout += f", lists {' and '.join(shown(path, data.root) for path in lists.values())}"
        index = Index(images, data.root)
        for kind, path in lists.items():
            problems = data.problems.setdefault(kind, [])
            chosen[kind] = listed(lines_from(path, data, new), path, index, kind, problems)
    for kind, entries in chosen.items():
        problems = data.problems.setdefault(kind, [])
        samples = [checked(image, data.root, data.reading, problems) for image in entries]
        data.lists[kind] = [sample for sample in samples if sample is not None]
    names = [{sample.name for sample in samples} for samples in data.lists.values()]
    if len(names) == 2 and (both := sorted(names[0] & names[1])):
        data.notes.append(
            f"warning: {len(both)} images are in the training and the test list: {some(both)}"
        )
    used = {image.name for entries in chosen.values() for image in entries}
    alone = sorted({image.name for image in images} - used)
    if alone and lists and not any(data.problems.values()):
        data.notes.append(f"note: {len(alone)} images are in none of these lists: {some(alone)}")
    return new


def lines_from(path: Path, data: DatasetFolder, new: dict[Path, str]) -> list[str]:
    """The lines of a list; notes say what was odd about it.

    Args:
        new: texts of lists that are not written yet.
    """
    if path in new:
        return lines_of(new[path])
    if (
        not data.reading.follow_links
        and path.is_relative_to(data.root)
        and not leads_inside(path, data.root)
    ):
        raise DataError(f"{path}: a link that leads out of the data set; --follow-links allows it")
    lines, encoding = read_list(path)
    if encoding == "gbk":
        data.notes.append(f"{shown(path, data.root)}: not UTF-8, read as GBK")
    if repeated := len(lines) - len(set(lines)):
        data.notes.append(f"{shown(path, data.root)}: {repeated} repeated entries are used once")
    return lines


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
    counts = " and ".join(f"{len(half)} {kind}" for half, kind in zip(halves, ("training", "test")))
    data.notes.append(f"no list found: made {how} (seed {SPLIT_SEED}) in {folder}: {counts} images")
    texts = ["".join(f"{name}\n" for name in sorted(half)) for half in halves]
    return dict(zip((folder / "train.txt", folder / "test.txt"), texts))


def stray_lists(root: Path) -> list[str]:
    """The files that look like lists of images by their names, at any depth; of a folder with more than
    20 of them, as a folder of labels has, none."""
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
        readable(image.name): [f for f in image.subfolder.split("/") if f and f not in IMAGE_SUBFOLDERS]
        for image in images
    }
    deepest = max(map(len, folders.values()))
    several = (d for d in range(1, deepest) if len({tuple(f[:d]) for f in folders.values()}) > 1)
    depth = next(several, deepest)
    groups: dict[str, list[str]] = {}
    for name in sorted(folders):
        groups.setdefault("/".join(folders[name][:depth]), []).append(name)
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
    """Writes a new split, if all that it names can be used.

    Args:
        files: of `make_split`; none where there are lists.
    """
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
