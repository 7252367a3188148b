"""The names of files and folders in data sets, as tables; and what lies in a folder."""

import contextlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ismallnet.cli import DataError, some

EXTENSIONS = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")
NOT_READ = (".webp", ".gif", ".jp2", ".pgm", ".ppm", ".heic", ".avif", ".fits", ".fit", ".dcm")
NOT_READ += (".npy", ".npz", ".mat", ".raw", ".bin")
ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|7z|rar|gz|bz2|xz|zst)(\.\d+)?$", re.IGNORECASE)

# Folders, compared without case; those that come first are tried first.
IMAGE_FOLDERS = ("images", "image", "imges", "IRSTD1k_Img", "mixed", "img", "imgs", "JPEGImages")
IMAGE_FOLDERS += ("img_dir",)
MASK_FOLDERS = ("masks", "mask", "IRSTD1k_Label", "annotations/masks", "labels", "label")
MASK_FOLDERS += ("annotations", "gt", "ground_truth", "SegmentationClass", "ann_dir")
IMAGE_SUBFOLDERS = ("targets", "backgrounds", "mixed")  # of open-sirst-v2: no sequences
MASK_ENDINGS = ("", "_pixels0", "_mask", "_gt", "_label", "_seg")  # the mask of X.png is X.png, …
# Split folders and lists.
KINDS = ("train", "trainval", "test", "val")
OTHER_NAMES = {"training": "train", "testing": "test", "valid": "val", "validation": "val"}
PARTS = (*KINDS, *OTHER_NAMES)
# Where split folders have their images and masks; each form is tried for each of the names above.
SPLIT_FORMS = (
    ("{part}/{images}", "{part}/{masks}"),
    ("{part}_{images}", "{part}_{masks}"),
    ("{images}_{part}", "{masks}_{part}"),
    ("{part}-{images}", "{part}-{masks}"),
    ("{part}", "{part}/{masks}"),
)
COMMON_MASKS = ("{masks}/{part}", "{masks}")  # else the masks are in one folder for all of them
LIST_FOLDERS = ("50_50", "img_idx", ".", "80_20", "idx_427", "idx_320", "splits")
LIST_FOLDERS += ("ImageSets/Segmentation", "ImageSets/Main", "ImageSets", "lists", "list", "split")
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".lst", ".list", ".xlsx", ".mat", ".npy", ".yaml")
LABELS = {  # what files without masks hold: how their text begins or what it has, by ending
    ".xml": ("VOC boxes (.xml)", re.compile(r"<annotation")),
    ".txt": ("YOLO labels (.txt)", re.compile(r"\A\s*\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*$", re.MULTILINE)),
    ".json": ("COCO or labelme outlines or boxes (.json)", re.compile(r'"(shapes|annotations)"')),
}


def kind_of(part: str) -> str:
    """A split folder's name in the usual words: val for validation."""
    return OTHER_NAMES.get(part.lower(), part.lower())


def readable(name: str) -> str:
    """A file name for people and for comparisons: one whose bytes are not UTF-8 is read as GBK, which
    Chinese Windows writes; where it is not that either, as it is."""
    try:
        name.encode()
    except UnicodeEncodeError:
        with contextlib.suppress(UnicodeDecodeError):
            return os.fsencode(name).decode("gbk")
    return name


def printable(name: str) -> str:
    """A file name to be drawn: `readable`, with ? for bytes that are no text."""
    return readable(name).encode("utf-8", "replace").decode()


def composed(name: str) -> str:
    """A name in Unicode NFC, in which names are compared."""
    return unicodedata.normalize("NFC", readable(name))


def without_extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return stem if dot and f".{extension.lower()}" in EXTENSIONS else name


def shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


# --- what lies in a folder ---------------------------------------------------------------------------


def image_files(folder: Path) -> list[Path]:
    """The image files right in a folder, sorted by name, preferred extension first."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        files = [e for e in entries if e.name.lower().endswith(EXTENSIONS) and e.name[0] != "."]
        files = [Path(e.path) for e in files if os.path.isfile(e.path)]
    return sorted(files, key=lambda p: (p.stem, EXTENSIONS.index(p.suffix.lower()), p.name))


def has_images(folder: Path) -> bool:
    """Whether an image file is in a folder or its sub-folders."""
    return any(map(image_files, walk(folder)))


def walk(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """A folder and its sub-folders, sorted; not the hidden ones, and no loops of links."""
    real = os.path.realpath(folder)
    if real in above or not folder.is_dir():
        return
    yield folder
    with os.scandir(folder) as entries:
        inner = sorted(folder / e.name for e in entries if e.name[0] != "." and os.path.isdir(e.path))
    for deeper in inner:
        yield from walk(deeper, (*above, real))


def inside(root: Path, name: str) -> Path | None:
    """The folder of that name ("annotations/masks"), in another case if there is none in this one.

    Raises:
        DataError: several in other cases.
    """
    for part in name.split("/"):
        if not (root / part).is_dir():
            same = sorted(f for f in root.glob("*") if f.name.lower() == part.lower() and f.is_dir())
            if len(same) > 1:
                raise DataError(f"{same[0]} and {same[1]}: which of them? Rename one, or move it away")
            if not same:
                return None
            part = same[0].name
        root = root / part
    return root


def folders_of(root: Path, names: tuple[str, ...], form: str = "{}", part: str = "") -> list[Path]:
    """The folders with images that have these names in a form of `SPLIT_FORMS`, in the names' order;
    not those that only hold another one of them."""
    texts = [form.format(name, part=part, images=name, masks=name) for name in names]
    folders = dict.fromkeys(f for text in texts if (f := inside(root, text)) and has_images(f))
    return [f for f in folders if not any(other.parent == f for other in folders)]


def leads_inside(path: Path, root: Path) -> bool:
    """Whether a path, its links followed, is in the folder `root`."""
    real, top = (os.path.realpath(p) for p in (path, root))  # a loop of links stays a link
    return (real == top or real.startswith(os.path.join(top, ""))) and not os.path.islink(real)


# --- what lies there and is not read -----------------------------------------------------------------


def not_read(folder: Path, root: Path) -> str:
    """The pictures in a folder that are not read, in words: of other formats, and links to nothing."""
    files = [path for f in walk(folder) for path in sorted(f.iterdir()) if path.name[0] != "."]
    files = [path for path in files if path.suffix.lower() in NOT_READ or not path.exists()]
    if not files:
        return ""
    return (
        f"{len(files)} files in {shown(folder, root)}/ are not read: "
        f"{some([path.relative_to(folder).as_posix() for path in files])}; save them as PNG, and fetch "
        "those that are links to nothing (git annex get, dvc pull)"
    )


def archives(folder: Path) -> list[Path]:
    """The archives right in a folder, by name."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in files if ARCHIVE.search(path.name) and path.is_file()]


def hint_for(root: Path, names: tuple[str, ...]) -> str:
    """For errors about files that a data set has not: what lies there instead, or nothing."""
    places = dict.fromkeys(f for name in (*names, *PARTS) if (f := inside(root, name)))
    hints = [text for folder in places if (text := not_read(folder, root))]
    folders = [root, *sorted(f for f in root.iterdir() if f.is_dir())]
    if packed := [shown(path, root) for folder in folders for path in archives(folder)]:
        hints.append(f"{some(packed)}: archives that may hold them; unpack them first, into {root}")
    return "".join(f". {hint}" for hint in hints)


def label_files(place: Path) -> str:
    """The boxes and polygons in a data set, or in one file, in words."""
    counts: Counter[str] = Counter()
    files = [path for folder in walk(place) for path in sorted(folder.iterdir())] or [place]
    for path in files:
        kind, pattern = LABELS.get(path.suffix.lower(), ("", None))
        if pattern and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            counts[f"{kind} in {shown(path.parent, place)}/"] += bool(pattern.search(text))
    return " and ".join(f"{count} files of {text}" for text, count in counts.items() if count)
