"""The lists of training and test images of a data set: where they are, and what a list file says."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from ismallnet.cli import DataError
from ismallnet.datasets.names import EXTENSIONS, leads_inside, readable, shown
from ismallnet.files import disguise

if TYPE_CHECKING:
    from ismallnet.datasets.pairing import ImageFile

MASK_ENDINGS = ("_pixels0", "_mask", "_gt", "_label", "_seg")  # of mask files: X_mask.png is X's
MASK_BEGINNINGS = ("mask_", "gt_", "label_", "seg_")  # as mask_X.png
KINDS = ("train", "trainval", "test", "val")  # of split folders and lists
OTHER_NAMES = {"training": "train", "testing": "test", "valid": "val", "validation": "val"}
PARTS = (*KINDS, *OTHER_NAMES)  # names of split folders
# A first line with the names of columns: image,mask or name;split.
HEADER = re.compile(r"\W*(image|img|name|file|filename|mask|id|path)[a-z_]*\W*[,;\t]", re.IGNORECASE)
MOST_NAMED = 10  # entries in a report
LIST_FOLDERS = ("50_50", "img_idx", ".", "80_20", "idx_427", "idx_320", "splits")
LIST_FOLDERS += ("ImageSets/Segmentation", "ImageSets/Main", "ImageSets", "lists", "list", "split")


def find_lists(root: Path, name: str, split: list[str] | None) -> dict[str, Path] | None:
    """{"train": file, "test": file} of the split asked for or the one that wins; None: no list."""
    if split is not None and len(split) == 2:
        places = [[Path(s)] if ".." in Path(s).parts else [root / s, Path(s)] for s in split]
        files = [next((p for p in paths if p.is_file()), None) for paths in places]
        if missing := [s for s, file in zip(split, files) if file is None]:
            raise DataError(f"{root}: found no split file {', '.join(missing)}; expected text files")
        return dict(zip(("train", "test"), files))
    if split is not None and any(p.is_file() for p in (root / split[0], Path(split[0]))):
        raise DataError(
            f"{split[0]}: one list, expected a training and a test list: --split TRAIN.txt TEST.txt"
        )
    if split is not None:
        places = (root / split[0], Path(split[0]))
        tries = (lists_in(place, name, val) for place in places for val in (False, True))
        tries = [lists for lists in tries if lists]
        lists = next((one for one in tries if len(one) == 2), tries[0] if tries else None)
        if not lists:
            folders = sorted({str(p.parent.relative_to(root)) for p in root.glob("**/*.txt")})
            raise DataError(
                f"{root / split[0]}: found no lists there; expected {{train,trainval,test}}.txt. "
                f"This data set has lists in: {', '.join(folders) or 'no folder'}"
            )
        return lists
    if (root / "train.txt").is_file() and (root / "test.txt").is_file():
        return lists_in(root, name)
    candidates = [lists for f in LIST_FOLDERS if (lists := lists_in(root / f, name))]
    candidates += [lists for f in LIST_FOLDERS if (lists := lists_in(root / f, name, val=True))]
    return next((c for c in candidates if len(c) == 2), candidates[0] if candidates else None)


def kind_of(part: str) -> str:
    """A split folder's name in the usual words: val for validation."""
    return OTHER_NAMES.get(part, part)


def lists_in(folder: Path, name: str, val: bool = False) -> dict[str, Path]:
    """The lists in one folder; `trainval` is taken before `train`; with `val`, val.txt serves where
    there is no test.txt, beside `train`."""
    others = [p.stem.removeprefix("test") for p in sorted(folder.glob("test_*.txt"))]
    endings = ["", f"_{name}", "_full", "_v1", *(others if len(others) == 1 else [])]
    best: dict[str, Path] = {}
    for ending in endings:
        stems = {"train": (f"trainval{ending}", f"train{ending}"), "test": [f"test{ending}"]}
        stems["test"] += [f"val{ending}"] if val else []
        files = {k: [p for s in v if (p := folder / f"{s}.txt").is_file()] for k, v in stems.items()}
        lists = {k: v[0] for k, v in files.items() if v}
        if "test" in lists and lists["test"].stem.startswith("val") and files["train"]:
            lists["train"] = files["train"][-1]  # trainval has the images of val, which is tested on
        if len(lists) > len(best):
            best = lists
    return best


def read_list(path: Path) -> tuple[list[str], str]:
    """The lines of a list file that hold something, in Unicode NFC, and the file's encoding. Line ends
    and byte-order marks do not count.

    Raises:
        DataError: neither UTF-8, UTF-16 with its mark, nor GBK.
    """
    raw = path.read_bytes()
    if raw and (what := disguise(path)):
        raise DataError(f"{path}: not a list of names ({what})")
    utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    reason = "a zero byte"
    for encoding in ("utf-16",) if utf16 else ("utf-8-sig", "gbk"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError as error:
            reason = error.reason
            continue
        if "\0" not in text:
            if is_json(text):
                raise DataError(f"{path}: found JSON, expected a text file with one name a line")
            return lines_of(text), encoding
    raise DataError(f"{path}: not a text file ({reason}); expected one name a line")


def lines_of(text: str) -> list[str]:
    """The lines of a list that hold something, in Unicode NFC."""
    lines = re.split(r"[\r\n]+", unicodedata.normalize("NFC", text))
    lines = [line.strip().strip("\ufeff").strip() for line in lines]
    return [line for line in lines if line]


def is_json(text: str) -> bool:
    """Whether a text is a JSON object or array of more than a number."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return not (isinstance(found, list) and len(found) == 1)  # a name in brackets


def readings(line: str) -> Iterator[str]:
    """What a line may mean, the most literal first: the whole line, without quotes, without a
    comment, its first column. Nothing for a line that is a comment."""
    texts = [line, line.split(" #")[0], *re.split(r"[,;\t]", line)[:1]]
    if quoted := re.match(r"""(["'])(.+?)\1""", line):
        texts.insert(1, quoted[2])
    texts += line.split()[:1]
    for text in dict.fromkeys(text.strip().strip("\"'").strip() for text in texts):
        if text and not (text.startswith("#") and text != line):
            yield text


def without_extension(entry: str) -> str:
    stem, dot, extension = entry.rpartition(".")
    return stem if dot and f".{extension.lower()}" in EXTENSIONS else entry


class Index(dict):
    """The images of a data set by every name that a list may give them: with their folders or not,
    with their extension or not."""

    def __init__(self, images: list[ImageFile], root: Path):
        self.folded: dict[str, list[ImageFile]] = {}  # without case
        self.masks: dict[str, list[ImageFile]] = {}  # by the path of the mask
        self.root = root
        self.names = sorted({readable(image.name) for image in images})
        for image in images:
            parts = image.path.relative_to(root).parts
            keys = {"/".join(parts[i:]) for i in range(len(parts))} | {image.name}
            keys = {unicodedata.normalize("NFC", readable(key)) for key in keys}
            keys |= {without_extension(key) for key in keys}
            keys |= {key.removesuffix(image.suffix) for key in keys}
            for key in keys:
                self.setdefault(key, []).append(image)
            for key in {key.casefold() for key in keys}:
                self.folded.setdefault(key, []).append(image)
            if image.mask:
                key = unicodedata.normalize("NFC", readable(image.mask.relative_to(root).as_posix()))
                for name in dict.fromkeys((without_extension(key), image.mask.stem)):
                    self.masks.setdefault(name, []).append(image)

    def find(self, line: str) -> list[ImageFile]:
        """The images that a line may mean: none, one, or several of which its list must choose."""
        return next((images for text in readings(line) if (images := self.named(text))), [])

    def named(self, text: str) -> list[ImageFile]:
        """The images of a name, as it stands."""
        key = text.replace("\\", "/")
        key = key.removeprefix("./").removeprefix(f"{self.root.name}/")
        stem = without_extension(key)
        ending = next((e for e in MASK_ENDINGS if stem.endswith(e)), "")
        keys = dict.fromkeys((key, stem, stem.removesuffix(ending)))
        ways = (self.get, lambda name: self.folded.get(name.casefold()), self.masks.get)
        return next((images for way in ways for name in keys if (images := way(name))), [])

    def other_columns(self, line: str, images: list[ImageFile]) -> list[ImageFile]:
        """The images, other than those, that a later column of a line names with a file's ending, where
        its first column has none: that may be a running number."""
        first, *others = [text.strip("\"'") for text in re.split(r"[,;\s]+", line)]
        if without_extension(first) != first:
            return []
        named = [text for text in others if without_extension(text) != text]
        found = [image for text in named for image in self.find(text)]
        return [image for image in found if image not in images]

    def cut_off(self, line: str) -> bool:
        """Whether a line of several words can be read only as its first one, without a file's ending,
        though it ends as a file does that is not there: `img (2).png`, read as `img`."""
        line = line.strip("\"'")
        first, *others = line.split()
        ends = bool(others) and without_extension(line) != line
        return (
            ends
            and without_extension(first) == first
            and not self.named(line)
            and not self.named(others[-1])
        )

    def nearest(self, line: str) -> str:
        """For a message: the name that is most like an entry's, or nothing."""
        text = without_extension([*readings(line), line][-1].replace("\\", "/").rpartition("/")[2])
        close = difflib.get_close_matches(text, self.names, n=1, cutoff=0.2)
        return f"; the nearest name there is {close[0]!r}" if close else ""


def points_outside(line: str) -> bool:
    """Whether an entry is an absolute path or has `..` in it."""
    texts = list(readings(line))
    paths = [text.replace("\\", "/") for text in texts]
    absolute = any(p.startswith("/") or PureWindowsPath(p).drive for p in paths)
    return absolute or any(".." in PurePosixPath(p).parts for p in paths)


def listed(
    path: Path,
    index: Index,
    root: Path,
    part: str,
    follow_links: bool = False,
    text: str | None = None,
) -> tuple[list[ImageFile], list[str], list[str]]:
    """The images that a list names, the entries that cannot be used, and notes.

    Args:
        text: of a list that is not written yet.
    """
    if not follow_links and path.is_relative_to(root) and not leads_inside(path, root):
        raise DataError(f"{path}: a link that leads out of the data set; --follow-links allows it")
    lines, encoding = read_list(path) if text is None else (lines_of(text), "")
    entries: dict[str, ImageFile] = {}
    problems, notes, repeated, absent = [], [], 0, 0
    for line in lines:
        images = index.find(line)
        if len(images) > 1:  # in split folders the list says which one it means
            own = [image for image in images if image.part and image.is_test == (part == "test")]
            own = own or [image for image in images if readable(image.name) == without_extension(line)]
            images = own or images  # 0 is images/0.png, not images/seq1/0.png
        if points_outside(line):
            name = re.split(r"[\\/]", line)[-1]
            hint = (
                f"; write {name!r} for it: an image of this name is there" if index.find(name) else ""
            )
            problems.append(f"{path}: the entry {line!r} points outside the data set{hint}")
        elif not images and line.startswith("#"):
            continue
        elif not images and line is lines[0] and HEADER.match(line):
            notes.append(f"{shown(path, root)}: the first line, {line!r}, is taken for a header")
        elif not images or index.cut_off(line):
            absent += 1
            hint = index.nearest(line) if absent <= MOST_NAMED else ""
            problems.append(f"{path}: {line!r} is listed, but {root} has no such image{hint}")
        elif others := index.other_columns(line, images):
            problems.append(
                f"{path}: {line!r} names two images, {images[0].name} and {others[0].name}; keep the "
                "column with the names alone"
            )
        elif len({image.path.parent / image.stem for image in images}) > 1:
            several = " and ".join(shown(i.path, root) for i in images)
            problems.append(f"{path}: {line!r} could be {several}; name its folder")
        elif images[0].name in entries and entries[images[0].name] is images[0]:
            repeated += 1
        elif images[0].name in entries:
            other = shown(entries[images[0].name].path, root)
            problems.append(f"{path}: {line!r} and {other} would share their results' name")
        else:
            entries[images[0].name] = images[0]
    if encoding == "gbk":
        notes.append(f"{shown(path, root)}: not UTF-8, read as GBK")
    if repeated:
        notes.append(f"{shown(path, root)}: {repeated} repeated entries are used once")
    return list(entries.values()), problems, notes
