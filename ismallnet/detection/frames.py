"""Frames of people's own: image files, folders, globs, videos, multi-page TIFFs and NumPy stacks,
read one after the other."""

import contextlib
import glob
import itertools
import re
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from ismallnet.cli import DataError, read_ahead
from ismallnet.images import READ_ERRORS, decode, decode_page, open_picture
from ismallnet.layouts import EXTENSIONS

TIFF = (".tif", ".tiff")
EXACT = (".avi", ".mp4", ".m4v", ".mov")  # videos whose header has the number of frames
VIDEO = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
READERS = 4  # threads that read image files, at most
KINDS = (*EXTENSIONS, ".npy", *VIDEO)


@dataclass(frozen=True)
class Source:
    """A file with one frame or more. `count` is what its header promises; `fps` that of a video."""

    path: Path
    kind: str  # "image", "pages", "stack" or "video"
    count: int = 1
    fps: float | None = None
    problem: str = ""  # why it cannot be opened


@dataclass(frozen=True)
class Frame:
    """One frame: HxW or HxWx3 pixels of any depth, or what is wrong with it."""

    source: Source
    index: int  # in its source
    pixels: np.ndarray | None
    problem: str = ""
    seconds: float | None = None  # its time in a video, from the stream's time stamps


def find_sources(paths: list[str]) -> list[Source]:
    """What the paths name, in their order; the files of a folder or glob by name, numbers in it as
    numbers; each once. What cannot be opened in it is reported when its turn comes.

    Raises:
        DataError: a path that is not there, or holds no frames.
    """
    found = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            files = [p for p in path.iterdir() if is_frame_file(p)]
        elif path.exists():
            files = [path]
        else:
            files = [Path(p) for p in glob.glob(text, recursive=True) if Path(p).is_file()]
            if not files:
                raise DataError(f"{text}: no such file, folder or pattern")
        if not files:
            raise DataError(f"{text}: found no frames in it, expected {', '.join(KINDS)}")
        found += sorted(files, key=in_number)
    return [describe(path) for path in dict.fromkeys(found)]


def is_frame_file(path: Path) -> bool:
    """Whether a file in a folder is one to read; hidden ones are not."""
    return path.suffix.lower() in KINDS and path.name[0] != "." and path.is_file()


def in_number(path: str | Path) -> list:
    """Sorts frame_2 before frame_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]


def describe(path: Path) -> Source:
    """What a file holds, from its header; one that cannot be read counts as one (bad) image."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            stack = load_stack(path)
            return Source(path, "stack", len(stack))
        if suffix in VIDEO:
            video = cv2.VideoCapture(str(path))
            count, fps = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
            # Estimated from the bit rate or the duration, or not there: a recorder was cut off.
            if suffix not in EXACT or not 0 < count < 2**31:
                count = next(n for n in itertools.count() if not video.grab())
            video.release()
            return Source(path, "video", max(int(count), 1), fps if fps > 0 else 25.0)
        if suffix in TIFF:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as in `decode`
                with Image.open(path) as picture:
                    pages = getattr(picture, "n_frames", 1)
            return Source(path, "pages" if pages > 1 else "image", pages)
    except DataError as error:
        return Source(path, "image", problem=str(error))
    except READ_ERRORS as error:
        return Source(path, "image", problem=f"{path}: not a readable image ({error})")
    return Source(path, "image")


def load_stack(path: Path) -> np.ndarray:
    """A NumPy file as frames, (N, H, W) or (N, H, W, 3), left on disk; (H, W) and (H, W, 3) are one."""
    try:
        stack = np.load(path, mmap_mode="r", allow_pickle=False)
    except READ_ERRORS as error:
        raise DataError(f"{path}: not a readable NumPy array ({error})") from error
    if stack.ndim == 2 or (stack.ndim == 3 and stack.shape[2] == 3):
        stack = stack[None]
    wrong = stack.shape[3] != 3 if stack.ndim == 4 else stack.ndim != 3 or stack.shape[2] == 4
    if wrong or 0 in stack.shape:  # an (H, W, 4) is no stack of frames that are 4 px wide
        raise DataError(f"{path}: found shape {stack.shape}, expected (N, H, W) or (N, H, W, 3)")
    if stack.dtype.kind not in "uif":
        raise DataError(f"{path}: found {stack.dtype}, expected integers or floats")
    return stack


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
        return Frame(source, 0, decode(source.path))
    except DataError as error:
        return Frame(source, 0, None, str(error))


def read_pages(source: Source, indices: list[int]) -> Iterator[Frame]:
    """The file stays open: to find a page from the file's start takes a step a page."""
    with contextlib.ExitStack() as stack:
        picture = None
        for index in indices:
            try:
                picture = picture or stack.enter_context(open_picture(source.path))
                yield Frame(source, index, decode_page(picture, source.path, index))
            except (DataError, *READ_ERRORS) as error:  # the next one may be whole
                picture = None
                yield Frame(source, index, None, f"{source.path}, frame {index}: {error}")


def read_stack(source: Source, indices: list[int]) -> Iterator[Frame]:
    stack = load_stack(source.path)
    for index in indices:
        yield Frame(source, index, np.array(stack[index]))


def read_video(source: Source, indices: list[int]) -> Iterator[Frame]:
    """A header may promise more frames than a video has: it ends where it ends, which is said."""
    video = cv2.VideoCapture(str(source.path))
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
                pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
                yield Frame(source, index, pixels, seconds=seconds)
    finally:
        video.release()


def arriving(folder: Path, seconds: float = 0.5) -> Iterator[Source | None]:
    """The files of a folder as they appear or change, each once it has stopped growing; None after
    each look, so that the one who waits can leave. Files that leave are forgotten.

    Args:
        seconds: between two looks.

    Raises:
        DataError: the folder itself is gone.
    """
    before: dict[Path, tuple[int, int]] = {}
    given: dict[Path, tuple[int, int]] = {}
    while True:
        now = {}
        try:
            paths = sorted(folder.iterdir(), key=in_number)
        except FileNotFoundError:
            raise DataError(f"{folder}: the folder is not there any more") from None
        for path in paths:
            with contextlib.suppress(FileNotFoundError):  # moved away in between
                if is_frame_file(path):
                    stat = path.stat()
                    now[path] = (stat.st_size, stat.st_mtime_ns)
        for path, state in now.items():
            if before.get(path) == state and given.get(path) != state and state[0]:
                given[path] = state
                yield describe(path)
        before = now
        given = {path: state for path, state in given.items() if path in now}
        yield None
        time.sleep(seconds)
