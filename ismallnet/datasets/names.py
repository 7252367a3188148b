"""What lies in the folders of a data set: image files, sub-folders, links."""

import contextlib
import os
import re
from collections import Counter
from pathlib import Path

EXTENSIONS = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")


def image_files(folder: Path) -> list[Path]:
    """The image files right in a folder, sorted by name, preferred extension first."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = [e for e in entries if e.name.lower().endswith(EXTENSIONS) and e.name[0] != "."]
        plain = [e.is_file(follow_symlinks=False) or os.path.isfile(e.path) for e in found]
    files = [Path(entry.path) for entry, is_file in zip(found, plain) if is_file]
    return sorted(files, key=lambda p: (p.stem, EXTENSIONS.index(p.suffix.lower()), p.name))


def has_images(folder: Path) -> bool:
    """Whether an image file is right in a folder; looks no further than to the first one."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(
            e.name.lower().endswith(EXTENSIONS) and e.name[0] != "." and os.path.isfile(e.path)
            for e in entries
        )


def printable(name: str) -> str:
    """A file name to be drawn: `readable`, with ? for bytes that are no text."""
    return readable(name).encode("utf-8", "replace").decode()


def readable(name: str) -> str:
    """A file name for people and for comparisons: one whose bytes are not UTF-8 is read as GBK, which
    Chinese Windows writes; where it is not that either, as it is."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        with contextlib.suppress(UnicodeDecodeError):
            return os.fsencode(name).decode("gbk")
    return name


def walk(folder: Path, above: tuple[str, ...] = ()) -> list[Path]:
    """A folder and its sub-folders, sorted; not the hidden ones, and no loops of links."""
    real = os.path.realpath(folder)
    if real in above or not folder.is_dir():
        return []
    inner = sorted(f for f in folder.iterdir() if f.is_dir() and f.name[0] != ".")
    return [folder, *(deeper for f in inner for deeper in walk(f, (*above, real)))]


def inside(root: Path, name: str) -> Path | None:
    """The folder of that name ("annotations/masks"), in another case if there is none in this one."""
    for part in name.split("/"):
        if not (root / part).is_dir():
            folded = [f for f in root.glob("*") if f.name.lower() == part.lower() and f.is_dir()]
            if not folded:
                return None
            part = min(folded).name
        root = root / part
    return root


def folders_of(root: Path, names: tuple[str, ...]) -> list[Path]:
    """The folders of these names that hold images, in the names' order."""
    folders = [f for name in names if (f := inside(root, name))]
    return [f for f in folders if any(has_images(deeper) for deeper in walk(f))]


def shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def leads_inside(path: Path, root: Path) -> bool:
    """Whether a path, its links followed, is in the folder `root`."""
    real, top = (os.path.realpath(p) for p in (path, root))  # a loop of links stays a link
    return (real == top or real.startswith(os.path.join(top, ""))) and not os.path.islink(real)


def label_kind(path: Path) -> str:
    """What kind of boxes or polygons a file holds, or nothing."""
    if path.suffix.lower() == ".json":
        return json_kind(path)
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(1_000_000)
    if path.suffix.lower() == ".xml":
        return "VOC boxes (.xml)" if "<annotation" in text else ""
    line = r"\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*"
    lines = text.strip().splitlines()
    return "YOLO labels (.txt)" if lines and all(re.fullmatch(line, one) for one in lines) else ""


def json_kind(path: Path) -> str:
    """`label_kind` of a .json file, of which COCO's annotations may begin far down."""
    kinds = {b'"shapes"': "labelme polygons (.json)", b'"annotations"': "COCO labels (.json)"}
    found, end = set(), b""
    with open(path, "rb") as file:
        while (block := file.read(1 << 20)) and b'"shapes"' not in found:
            found |= {key for key in kinds if key in end + block}
            end = block[-16:]
    return next((kind for key, kind in kinds.items() if key in found), "")


def label_files(root: Path) -> str:
    """The boxes and polygons in a data set, in words."""
    files = (path for folder in walk(root) for path in sorted(folder.iterdir()) if path.is_file())
    kinds: dict[tuple[str, Path], int] = Counter()
    for path in files:
        if path.suffix.lower() in (".json", ".xml", ".txt") and (kind := label_kind(path)):
            kinds[kind, path.parent] += 1
    texts = []
    for (kind, folder), count in kinds.items():
        files = "1 file" if count == 1 else f"{count} files"
        texts.append(f"{files} of {kind} in {shown(folder, root)}/")
    return " and ".join(texts)
