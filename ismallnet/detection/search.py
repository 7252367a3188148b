"""Which files the paths name that people type: folders, patterns, lists; in which order."""

import glob
import re
import shlex
from pathlib import Path

from ismallnet.cli import DataError, note
from ismallnet.datasets.names import EXTENSIONS
from ismallnet.images.arrays import ARRAYS, RawLayout
from ismallnet.images.scientific import DICOM, FITS

PICTURES = (*EXTENSIONS, ".pgm", ".ppm", ".webp", ".gif", ".jp2", *FITS, *DICOM)
EXACT = (".avi", ".mp4", ".m4v", ".mov")  # videos whose header has the number of frames
VIDEO = (*EXACT, ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".asf", ".flv", ".3gp", ".y4m", ".mjpeg")
VIDEO += (".ts", ".mts", ".m2ts", ".h264")
TABLE = re.compile(r"[-+.\deE]+(?:[\s,;]+[-+.\deE]+){3,}[\s,;]*")  # a line of numbers
KINDS = (*PICTURES, *ARRAYS, *VIDEO)


def chosen_files(paths: list[str], recursive: bool, raw: RawLayout | None) -> dict[Path, bool]:
    """The files that paths name, in their order, each once, and whether a list names it; as
    `frames.find_sources`."""
    chosen: dict[Path, bool] = {}
    for text in paths:
        path, listed = Path(text), False
        if not text:
            raise DataError(
                "'': found an empty PATH, expected a file, a folder or a pattern; . is this folder"
            )
        if path.is_dir():
            files = sorted(in_folder(path, recursive, raw), key=in_number)
        elif path.suffix.lower() == ".txt" and path.is_file():
            files, listed = in_list(path), True
        elif path.exists():
            files = [path]
        else:
            files = sorted(matching(text), key=in_number)
        for file in files:
            chosen.setdefault(file, listed)
    return chosen


def in_folder(folder: Path, recursive: bool, raw: RawLayout | None) -> list[Path]:
    """The frame files of a folder; those that are left out are named, hidden ones are not."""
    paths = [path for path in folder.rglob("*") if path.name[0] != "."]
    files = [path for path in paths if is_file(path)]
    below = without_logs([path for path in files if is_frame_file(path, raw)])
    here = [path for path in below if path.parent == folder]
    if recursive and (
        links := [f"{path.name}/" for path in paths if path.is_symlink() and path.is_dir()]
    ):
        note(
            f"links in {folder}",
            f"{folder}: linked folders are left out: {', '.join(links)}; name them",
        )
    looked_at = files if recursive else [path for path in files if path.parent == folder]
    left = sorted({path.name for path in looked_at} - {path.name for path in below})
    if below and left:
        some = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")
        note(f"in {folder}", f"{folder}: {len(left)} files are left out, which are no frames: {some}")
    if recursive and below:
        return below
    others = sorted({path.relative_to(folder).parts[0] for path in below if path.parent != folder})
    names = ", ".join(f"{name}/" for name in others[:5]) + (" …" if len(others) > 5 else "")
    if not here and (folder / "images").is_dir():
        images = shlex.quote(str(folder / "images"))
        raise DataError(f"{folder}: a data set, not frames; type python detect.py {images}")
    if not here and others:
        raise DataError(f"{folder}: found frames in {names} only; type --recursive to take them")
    if not here:
        kinds = ".raw, .bin, …" if raw else ", ".join(KINDS)
        raise DataError(f"{folder}: found no frames in it, expected {kinds}")
    if others:
        note(f"below {folder}", f"{folder}: frames in {names} are left out; --recursive takes them")
    return here


def without_logs(paths: list[Path]) -> list[Path]:
    """Frame files without the .csv beside frames of other kinds: those are tables of something else."""
    others = [path for path in paths if path.suffix.lower() != ".csv"]
    return others or paths


def is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system
        return False


def in_list(path: Path) -> list[Path]:
    """The files that a text file names, a line each, beside it or from the current folder."""
    found = []
    raw = path.read_bytes()
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    for line in raw.decode(encoding, "surrogateescape").splitlines():
        if not (name := line.strip().strip("\"'")):
            continue
        places = [place for place in (path.parent / name, Path(name)) if is_there(place)]
        if not places and name[0] == "#":  # a comment
            continue
        if not places:
            shown = name if len(name) <= 100 else f"{name[:100]} …"
            table = "; a table of numbers? Rename it to .csv" if TABLE.fullmatch(name) else ""
            raise DataError(f"{path}: names {shown}, which is not there; expected a file a line{table}")
        found.append(places[0])
    if not found:
        raise DataError(f"{path}: names no file; expected a file a line")
    return found


def matching(text: str) -> list[Path]:
    """The files of a pattern.

    Raises:
        DataError: there are none.
    """
    if "://" in text or text.isdecimal():
        raise DataError(
            f"{text}: streams and cameras are not read; save frames to a folder and type python "
            "detect.py --watch FOLDER"
        )
    files = [Path(p) for p in glob.glob(text, recursive=True) if Path(p).is_file()]
    if not files:
        raise DataError(f"{text}: no such file, folder or pattern")
    return files


def is_frame_file(path: Path, raw: RawLayout | None = None) -> bool:
    """Whether a file in a folder is one to read; hidden ones are not."""
    suffix = path.suffix.lower()
    kind = suffix in KINDS if raw is None else suffix not in (*KINDS, ".txt", ".json", ".md")
    return kind and path.name[0] != "." and is_file(path)


def is_file(path: Path) -> bool:
    """Whether it is a file; also a link that leads nowhere, which is reported when its turn comes."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def in_number(path: str | Path) -> list:
    """Sorts frame_2 before frame_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]
