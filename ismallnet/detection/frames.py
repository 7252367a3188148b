"""Frames of people's own: image files, folders, globs, videos, multi-page TIFFs and NumPy stacks,
read one after the other."""

import contextlib
import glob
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ismallnet.cli import DataError, note, read_ahead
from ismallnet.csvfile import decoded
from ismallnet.detection.videos import count_frames, missing_bytes, open_video
from ismallnet.folders import EXTENSIONS
from ismallnet.formats import (
    ARRAYS,
    DICOM,
    FITS,
    RawLayout,
    as_frames,
    disguise,
    read_array,
    read_behind,
    read_raw,
)
from ismallnet.images import (
    READ_ERRORS,
    decode,
    decode_page,
    decode_scientific,
    full_pages,
    open_picture,
    stack_behind,
    unreadable,
)
from ismallnet.thermal import JPEG, read_thermal

PAGED = (".tif", ".tiff", ".gif")
PICTURES = (*EXTENSIONS, ".pgm", ".ppm", ".webp", ".gif", ".jp2", *FITS, *DICOM)
EXACT = (".avi", ".mp4", ".m4v", ".mov")  # videos whose header has the number of frames
VIDEO = (*EXACT, ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".asf", ".flv", ".3gp", ".y4m", ".mjpeg")
VIDEO += (".ts", ".mts", ".m2ts", ".h264")
TABLE = re.compile(r"[-+.\deE]+(?:[\s,;]+[-+.\deE]+){3,}[\s,;]*")  # a line of numbers
ROW = re.compile(r"[-+.\deE]+(?:[\s,;]+[-+.\deE]+){7,}")  # the beginning of a row of pixels
READERS = 4  # threads that read image files, at most
KINDS = (*PICTURES, *ARRAYS, *VIDEO)


@dataclass(frozen=True)
class Source:
    """A file with one frame or more.

    Args:
        kind: "image", "pages", "stack" or "video".
        count: of the frames that its header promises.
        fps: of a video.
        pages: where the frames are in a file of pages.
        raw: of a file without a header.
        problem: why it cannot be opened.
    """

    path: Path
    kind: str
    count: int = 1
    fps: float | None = None
    pages: tuple[int, ...] = ()
    raw: RawLayout | None = None
    problem: str = ""


@dataclass(frozen=True)
class Frame:
    """One frame: HxW or HxWx3 pixels of any depth, or what is wrong with it."""

    source: Source
    index: int  # in its source
    pixels: np.ndarray | None
    problem: str = ""
    seconds: float | None = None  # its time in a video, from the stream's time stamps


def find_sources(
    paths: list[str], recursive: bool = False, raw: RawLayout | None = None
) -> list[Source]:
    """What the paths name, in their order; the files of a folder or pattern by name, numbers in it as
    numbers; each once. What cannot be opened in it is reported when its turn comes.

    Args:
        paths: files, folders, patterns, text files with a path a line.
        recursive: the folders' sub-folders too.
        raw: how files that are no pictures are to be read; only they are read then.

    Raises:
        DataError: a path that is not there, or holds no frames.
    """
    found = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            found += sorted(in_folder(path, recursive, raw), key=in_number)
        elif path.suffix.lower() == ".txt" and path.is_file():
            found += in_list(path)
        elif path.exists():
            found.append(path)
        else:
            found += sorted(matching(text), key=in_number)
    return [describe(path, raw) for path in dict.fromkeys(found)]


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
        raise DataError(f"{folder}: a data set, not frames; type python detect.py {folder / 'images'}")
    if not here and others:
        raise DataError(f"{folder}: found frames in {names} only; type --recursive to take them")
    if not here:
        kinds = ".raw, .bin, …" if raw else ", ".join(KINDS)
        raise DataError(f"{folder}: found no frames in it, expected {kinds}")
    if others:
        note(f"below {folder}", f"{folder}: frames in {names} are left out; --recursive takes them")
    return here


def without_logs(paths: list[Path]) -> list[Path]:
    """Frame files without the .csv that hold no row of pixels, where frames of other kinds are. Empty
    ones stay: a frame that was not written is an error."""
    tables = {path for path in paths if path.suffix.lower() == ".csv"}
    if len(tables) == len(paths):
        return paths
    return [path for path in paths if path not in tables or holds_row(path)]


def holds_row(path: Path) -> bool:
    """Whether the beginning of a text file has a line of 8 numbers or more, or is empty."""
    try:
        with open(path, "rb") as file:
            head = decoded(file.read(1 << 16))
    except OSError:
        return True  # said when its turn comes
    return not head.strip() or any(ROW.match(line) for line in head.splitlines())


def is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system
        return False


def in_list(path: Path) -> list[Path]:
    """The files that a text file names, a line each, beside it or from the current folder."""
    found = []
    for line in decoded(path.read_bytes(), "surrogateescape").splitlines():
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


def describe(path: Path, raw: RawLayout | None = None) -> Source:
    """What a file holds, from its header; one that cannot be read counts as one (bad) image."""
    suffix = path.suffix.lower()
    try:
        if raw is not None:
            return Source(path, "stack", len(read_raw(path, raw)), raw=raw)
        if suffix in ARRAYS:
            return Source(path, "stack", len(as_frames(read_array(path), path)))
        if suffix in (*FITS, *DICOM):
            count = len(decode_scientific(path))
            return Source(path, "stack" if count > 1 else "image", count)
        if suffix in VIDEO:
            return describe_video(path, suffix in EXACT)
        if suffix in PAGED:
            with open_picture(path) as picture:
                pages = full_pages(picture)
                count = stack_behind(picture, path)
            if len(pages) > 1:
                return Source(path, "pages", len(pages), pages=tuple(pages))
            if count > 1:
                return Source(path, "stack", count)
        elif suffix not in KINDS:
            kinds = f"expected {', '.join(KINDS)}, or --raw WIDTHxHEIGHT:TYPE"
            raise DataError(f"{path}: not a readable image ({disguise(path) or kinds})")
    except DataError as error:
        return Source(path, "image", problem=str(error))
    except READ_ERRORS as error:
        if suffix not in PAGED:
            return Source(path, "image", problem=str(unreadable(path, error)))
    return Source(path, "image")


def describe_video(path: Path, exact: bool) -> Source:
    """
    Args:
        exact: its header has the number of frames; otherwise they are counted.
    """
    if what := disguise(path):
        raise DataError(f"{path}: not a readable video ({what})")
    if lacks := missing_bytes(path):
        note(
            f"end of {path}",
            f"{path}: {lacks} bytes are missing at its end: it was cut off; the frames that are there "
            "are used",
        )
    count, fps = count_frames(path, exact)
    return Source(path, "video", max(count, 1), fps)


def read_frames(chosen: list[tuple[Source, list[int]]], workers: int = 2) -> Iterator[Frame]:
    """Reads frames in order: of each source those with the given indices. A frame that cannot be
    read comes with a `problem`."""
    for single, group in itertools.groupby(chosen, key=lambda pair: pair[0].kind == "image"):
        if single:
            sources = [source for source, _ in group]
            workers = min(workers, READERS)  # whole frames wait in memory, of any size
            yield from read_ahead(read_image_frame, sources, workers, 2 * workers)
            continue
        for source, indices in group:
            read = {"pages": read_pages, "stack": read_stack, "video": read_video}[source.kind]
            done = 0
            try:
                for frame in read(source, indices):
                    done += 1
                    yield frame
            except (*READ_ERRORS, DataError, cv2.error) as error:
                for index in indices[done:]:
                    yield Frame(source, index, None, f"{source.path}, frame {index}: {error}")


def read_image_frame(source: Source) -> Frame:
    if source.problem:
        return Frame(source, 0, None, source.problem)
    try:
        temperatures = read_thermal(source.path) if source.path.suffix.lower() in JPEG else None
        return Frame(source, 0, decode(source.path) if temperatures is None else temperatures)
    except DataError as error:
        return Frame(source, 0, None, str(error))


def read_pages(source: Source, indices: list[int]) -> Iterator[Frame]:
    """The file stays open: to find a page from the file's start takes a step a page."""
    with contextlib.ExitStack() as stack:
        picture = None
        for index in indices:
            try:
                picture = picture or stack.enter_context(open_picture(source.path))
                page = source.pages[index]
                yield Frame(source, index, decode_page(picture, source.path, page))
            except (DataError, *READ_ERRORS) as error:  # the next one may be whole
                picture = None
                yield Frame(source, index, None, f"{source.path}, frame {index}: {error}")


def read_stack(source: Source, indices: list[int]) -> Iterator[Frame]:
    if source.raw:
        stack = read_raw(source.path, source.raw)
    elif source.path.suffix.lower() in ARRAYS:
        stack = as_frames(read_array(source.path), source.path)
    elif source.path.suffix.lower() in PAGED:
        stack = read_behind(source.path)
    else:
        stack = decode_scientific(source.path)
    for index in indices:
        frame = stack[index]  # of any byte order
        yield Frame(source, index, np.array(frame, frame.dtype.newbyteorder("=")))


def read_video(source: Source, indices: list[int]) -> Iterator[Frame]:
    """A header may promise more frames than a video has: it ends where it ends, which is said."""
    video, deep = open_video(source.path)
    try:
        wanted, last = set(indices), max(indices, default=-1)
        for index in range(last + 1):
            if not video.grab():
                if index == 0:
                    raise DataError("not a readable video")
                promised = f"its header promises {source.count}"
                tqdm.write(f"warning: {source.path}: ends after {index} frames, {promised}", sys.stderr)
                return
            if index in wanted:
                found, pixels = video.retrieve()
                if not found:
                    raise DataError("damaged")
                seconds = max(round(video.get(cv2.CAP_PROP_POS_MSEC) / 1000, 6), 0.0)
                if index and not seconds:  # no time stamps
                    seconds = index / source.fps
                pixels = pixels if deep else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
                yield Frame(source, index, pixels, seconds=seconds)
    finally:
        video.release()
