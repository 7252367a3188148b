"""Frames of people's own: image files, folders, globs, videos, multi-page TIFFs and NumPy stacks,
read one after the other."""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ismallnet.cli import DataError, note
from ismallnet.detection.search import EXACT, KINDS, VIDEO, chosen_files, in_number
from ismallnet.detection.videos import count_frames, missing_bytes, open_video, retrieve
from ismallnet.files import READ_ERRORS, disguise
from ismallnet.images.arrays import ARRAYS, RawLayout, as_frames, read_array, read_raw
from ismallnet.images.picture import decode, decode_scientific, open_pictures
from ismallnet.images.scientific import DICOM, FITS, JPEG, read_thermal
from ismallnet.parallel import read_ahead

PAGED = (".tif", ".tiff", ".gif")
READERS = 4  # threads that read image files, at most


@dataclass(frozen=True)
class Source:
    """A file with one frame or more.

    Args:
        kind: "image", "pages", "stack" or "video".
        count: of the frames that its header promises.
        fps: of a video.
        raw: of a file without a header.
        problem: why it cannot be opened.
        state: the file's bytes, and when it was changed, in ns since 1970; None if it is not there.
    """

    path: Path
    kind: str
    count: int = 1
    fps: float | None = None
    raw: RawLayout | None = None
    problem: str = ""
    state: tuple[int, int] | None = None


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
    files = chosen_files(paths, recursive, raw)
    sources = [describe(path, raw) for path in files]
    return in_sequence(sources, {path for path, listed in files.items() if listed})


def in_sequence(sources: list[Source], listed: set[Path]) -> list[Source]:
    """The sources, in which those of one folder that are a frame each, a sequence, have changed places
    so that they come in the order of their names; says so.

    Args:
        listed: files of a list, which keep the list's order.
    """

    def moves(source: Source) -> bool:
        return source.count == 1 and source.path not in listed

    groups: dict[Path, list[Source]] = {}
    for source in filter(moves, sources):
        groups.setdefault(source.path.parent, []).append(source)
    ordered = {k: iter(sorted(group, key=lambda s: in_number(s.path))) for k, group in groups.items()}
    result = [next(ordered[s.path.parent]) if moves(s) else s for s in sources]
    if other := next((typed for typed, s in zip(sources, result) if typed != s), None):
        note(
            "order",
            f"{other.path.parent}: the pictures of a folder are taken in the order of their names, not "
            "in that in which they were typed; for another order name them in a .txt file",
        )
    return result


def describe(path: Path, raw: RawLayout | None = None) -> Source:
    """What a file holds, from its header; one that cannot be read counts as one (bad) image."""
    state = state_of(path)  # before it is read
    return replace(read_header(path, raw), state=state)


def state_of(path: Path) -> tuple[int, int] | None:
    """A file's bytes, and when it was changed, in ns since 1970; None if it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def read_header(path: Path, raw: RawLayout | None) -> Source:
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
            with open_pictures(path) as pictures:
                if len(pictures) > 1:
                    return Source(path, "pages", len(pictures))
        elif suffix not in KINDS:
            kinds = f"expected {', '.join(KINDS)}, or --raw WIDTHxHEIGHT:TYPE"
            raise DataError(f"{path}: not a readable image ({disguise(path) or kinds})")
    except DataError as error:
        return Source(path, "image", problem=str(error))
    except READ_ERRORS as error:
        return Source(path, "image", problem=f"{path}: not readable ({error})")
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
    """The file is opened once; of its pages one may be damaged, and the next one whole."""
    with open_pictures(source.path) as pictures:
        for index in indices:
            try:
                yield Frame(source, index, pictures[index])
            except DataError as error:
                yield Frame(source, index, None, f"{source.path}, frame {index}: {error}")


def read_stack(source: Source, indices: list[int]) -> Iterator[Frame]:
    if source.raw:
        stack = read_raw(source.path, source.raw)
    elif source.path.suffix.lower() in ARRAYS:
        stack = as_frames(read_array(source.path), source.path)
    else:
        stack = decode_scientific(source.path)
    for index in indices:
        if isinstance(stack, np.memmap) and has_shrunk(source):
            raise DataError("the file became shorter while it was read; start when it is complete")
        frame = stack[index]  # of any byte order
        yield Frame(source, index, np.array(frame, frame.dtype.newbyteorder("=")))


def has_shrunk(source: Source) -> bool:
    """Whether a file that is left on disk has lost bytes, on which reading would end the process."""
    now = state_of(source.path)
    return source.state is not None and (now is None or now[0] < source.state[0])


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
                pixels = retrieve(video, source.path)
                seconds = max(round(video.get(cv2.CAP_PROP_POS_MSEC) / 1000, 6), 0.0)
                if index and not seconds:  # no time stamps
                    seconds = index / source.fps
                pixels = pixels if deep else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
                yield Frame(source, index, pixels, seconds=seconds)
        if last == source.count - 1 and video.grab():
            say = f"its header promises {source.count} frames, but others follow, which are not used"
            tqdm.write(f"warning: {source.path}: {say}; save the video again", sys.stderr)
    finally:
        video.release()
