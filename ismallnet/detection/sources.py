"""Frames of people's own: which files the typed paths name, and their frames, one after the other."""

import contextlib
import glob
import itertools
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ismallnet.cli import DataError, note, some
from ismallnet.datasets.names import EXTENSIONS
from ismallnet.files import disguise, reading
from ismallnet.images.arrays import ARRAYS, RawLayout, as_frames, read_array, read_raw
from ismallnet.images.picture import decode, open_pictures
from ismallnet.images.scientific import DICOM, FITS, JPEG, read_thermal
from ismallnet.parallel import read_ahead

PAGED = (".tif", ".tiff", ".gif")
PICTURES = (*EXTENSIONS, ".pgm", ".ppm", ".webp", ".gif", ".jp2", *FITS, *DICOM)
COUNTED = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm")  # their header says how long they are
VIDEOS = (*COUNTED, ".mpg", ".mpeg", ".wmv", ".asf", ".flv", ".3gp", ".y4m", ".mjpeg")
VIDEOS += (".ts", ".mts", ".m2ts", ".h264")
KINDS = (*PICTURES, *ARRAYS, *VIDEOS)
NO_RAW = (*KINDS, ".txt", ".json", ".md")  # files that --raw does not read in folders
READERS = 4  # threads that read image files, at most
FPS = 25.0  # of a video that does not say it
GREY16 = int.from_bytes(b"Y1\0\x10", "little")  # FFmpeg's name of 16-bit grey pixels


@dataclass(frozen=True)
class Source:
    """A file with one frame or more.

    Args:
        kind: "image" of one frame, "stack" of several, or "video".
        count: of its frames; of a video what its header promises, 0 if nothing.
        fps: of a video.
        raw: how a file without a header is read.
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

    @property
    def sequence(self) -> str:
        """What its frames belong to: the file where it has several, else its folder."""
        several = self.count > 1 or self.kind == "video"
        return str(self.path if several else self.path.parent)


@dataclass(frozen=True)
class Frame:
    """One frame: HxW or HxWx3 pixels of any depth, or what is wrong with it."""

    source: Source
    index: int  # in its source
    pixels: np.ndarray | None
    problem: str = ""
    seconds: float | None = None  # since the first frame of a video, from the stream's time stamps

    @property
    def key(self) -> tuple[str, int]:
        return str(self.source.path), self.index


# --- which files --------------------------------------------------------------------------------------


def find_sources(
    paths: list[str], recursive: bool = False, raw: RawLayout | None = None
) -> list[Source]:
    """What the paths name, each file once, in the order of their names, numbers in them as numbers;
    those of a list first, in its order. What cannot be opened is reported when its turn comes.

    Args:
        paths: files, folders, patterns, text files with a path a line.
        recursive: the folders' sub-folders too.
        raw: how files that are no pictures are to be read; only they are read then.

    Raises:
        DataError: a path that is not there, or holds no frames.
    """
    lists = [text for text in paths if text.lower().endswith(".txt") and Path(text).is_file()]
    listed = [file for text in lists for file in in_list(Path(text))]
    named = [file for text in paths if text not in lists for file in named_by(text, recursive, raw)]
    files = dict.fromkeys([*listed, *sorted(named, key=in_number)])
    return [describe(path, raw) for path in files]


def in_list(path: Path) -> list[Path]:
    """The files that a text file names, a line each, beside it or from the current folder."""
    raw, files = path.read_bytes(), []
    utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = raw.decode("utf-16" if utf16 else "utf-8-sig", "surrogateescape")
    for name in filter(None, (line.strip().strip("\"'") for line in text.splitlines())):
        there = [place for place in (path.parent / name, Path(name)) if place.is_file()]
        if not there and name[0] != "#":  # a comment
            raise DataError(f"{path}: names {name[:100]}, which is not there; expected a file a line")
        files += there[:1]
    if not files:
        raise DataError(f"{path}: names no file; expected a file a line")
    return files


def named_by(text: str, recursive: bool, raw: RawLayout | None) -> list[Path]:
    """The files that a typed path or pattern names.

    Raises:
        DataError: there are none.
    """
    path = Path(text)
    if not text:
        raise DataError("'': found an empty PATH, expected a file, a folder or a pattern")
    if path.is_dir():
        return in_folder(path, recursive, raw)
    if path.exists():
        return [path]
    if "://" in text or text.isdecimal():
        raise DataError(
            f"{text}: streams and cameras are not read; save frames to a folder and type python "
            "detect.py --watch FOLDER"
        )
    files = [Path(p) for p in glob.glob(text, recursive=True) if Path(p).is_file()]
    if not files:
        raise DataError(f"{text}: no such file, folder or pattern")
    return files


def in_folder(folder: Path, recursive: bool, raw: RawLayout | None) -> list[Path]:
    """The frame files of a folder; says which files are left out.

    Raises:
        DataError: there are none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.name[0] != ".")
    files = [path for path in paths if is_file(path)]
    here = files if recursive else [path for path in files if path.parent == folder]
    frames = frame_files(here, raw)
    below = {path.relative_to(folder).parts[0]: 0 for path in frame_files(set(files) - set(here), raw)}
    if not frames:
        raise no_frames(folder, sorted(below), raw)
    left_out = {
        "files are left out, which are no frames, or tables beside them": set(here) - set(frames),
        "folders with frames are left out; --recursive takes them": map(folder.joinpath, below),
        "linked folders are left out; name them": [
            path for path in paths if recursive and path.is_symlink() and path.is_dir()
        ],
    }
    for text, others in left_out.items():
        if names := sorted(path.name for path in others):
            note(f"{text} {folder}", f"{folder}: {len(names)} {text}: {some(names, 3)}")
    return frames


def no_frames(folder: Path, below: list[str], raw: RawLayout | None) -> DataError:
    """Why a folder cannot be the input; `below`: its sub-folders with frames."""
    if (folder / "images").is_dir():
        images = shlex.quote(str(folder / "images"))
        return DataError(f"{folder}: a data set, not frames; type python detect.py {images}")
    if below:
        return DataError(
            f"{folder}: found frames in {some(below)}/ only; type --recursive to read them"
        )
    kinds = ".raw, .bin, …" if raw else ", ".join(KINDS)
    return DataError(f"{folder}: found no frames in it, expected {kinds}")


def frame_files(files: Iterable[Path], raw: RawLayout | None = None) -> list[Path]:
    """Those files of a folder that are frames, by their names. A .csv is one only where there are no
    others: it may be a table of pixels, and beside pictures it is a log."""
    if raw is not None:
        return [path for path in files if path.suffix.lower() not in NO_RAW]
    frames = [path for path in files if path.suffix.lower() in KINDS]
    return [path for path in frames if path.suffix.lower() != ".csv"] or frames


def is_file(path: Path) -> bool:
    """Whether it is a file; also a link that leads nowhere, which is reported when its turn comes."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def in_number(path: str | Path) -> list:
    """Sorts frame_2 before frame_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]


def arriving(folder: Path, seconds: float = 0.5) -> Iterator[Source | None]:
    """The files of a folder as they appear or change, each once it has stopped growing; None after
    each look, so that the one who waits can leave. Files that leave are forgotten.

    Args:
        seconds: between two looks.

    Raises:
        DataError: the folder cannot be read any more.
    """
    before: dict[Path, tuple[int, int] | None] = {}
    given: dict[Path, tuple[int, int] | None] = {}
    while True:
        try:
            paths = sorted(folder.iterdir(), key=in_number)
        except OSError as error:  # removed, or a disk of the network that was disconnected
            raise DataError(f"{folder}: cannot be read any more: {error.strerror}") from None
        files = frame_files(path for path in paths if path.name[0] != "." and path.is_file())
        now = {path: state_of(path) for path in files}
        for path, state in now.items():
            if state and state[0] and before.get(path) == state != given.get(path):
                given[path] = state
                yield describe(path)
        before, given = now, {path: state for path, state in given.items() if path in now}
        yield None
        time.sleep(seconds)


# --- what is in a file --------------------------------------------------------------------------------


def describe(path: Path, raw: RawLayout | None = None) -> Source:
    """What a file holds, from its header; one that cannot be opened counts as one bad image."""
    state = state_of(path)  # before it is read
    try:
        source = read_header(path, raw)
    except DataError as error:
        source = Source(path, "image", problem=str(error))
    return replace(source, state=state)


def state_of(path: Path) -> tuple[int, int] | None:
    """A file's bytes, and when it was changed, in ns since 1970; None if it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def read_header(path: Path, raw: RawLayout | None) -> Source:
    suffix = path.suffix.lower()
    if raw is None and suffix not in KINDS:
        kinds = f"expected {', '.join(KINDS)}, or --raw WIDTHxHEIGHT:TYPE"
        raise DataError(f"{path}: not a readable image ({disguise(path) or kinds})")
    if raw is None and suffix in VIDEOS:
        return describe_video(path)
    array = raw is not None or suffix in ARRAYS  # of which one frame has a number, too
    if not array and suffix not in (*PAGED, *FITS, *DICOM):
        return Source(path, "image")
    with reading(path), open_frames(path, raw) as frames:
        return Source(path, "stack" if array or len(frames) > 1 else "image", len(frames), raw=raw)


@contextlib.contextmanager
def open_frames(path: Path, raw: RawLayout | None) -> Iterator[Sequence[np.ndarray]]:
    """The frames of a file that may have several, HxW or HxWx3, read one by one."""
    if raw is not None:
        yield read_raw(path, raw)
    elif path.suffix.lower() in ARRAYS:
        yield as_frames(read_array(path), path)
    else:
        with open_pictures(path) as pictures:
            yield pictures


def describe_video(path: Path) -> Source:
    if what := disguise(path):
        raise DataError(f"{path}: not a readable video ({what})")
    video = open_video(path)
    count, fps = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
    video.release()
    if int(cv2.__version__.split(".")[0]) >= 5:
        check_progressive(path)
    promised = path.suffix.lower() in COUNTED and 0 < count < 2**31
    return Source(path, "video", int(count) if promised else 0, fps if fps > 0 else FPS)


def check_progressive(path: Path) -> None:
    """
    Raises:
        DataError: an interlaced video. OpenCV 5.0 gives its frames as memory that nobody has filled,
            and says so on standard error alone: another process reads the first one.
    """
    code = "import cv2, sys; cv2.VideoCapture(sys.argv[1]).read()"
    command = [sys.executable, "-c", code, str(path.absolute())]
    if b"Cannot convert interlaced" in subprocess.run(command, capture_output=True).stderr:
        raise DataError(
            f"{path}: interlaced, which OpenCV {cv2.__version__} does not read; expected whole frames. "
            f"Convert it: ffmpeg -i {path.name} -vf yadif -c:v ffv1 {path.stem}-whole.mkv, or install "
            "an older version: pip install 'opencv-python-headless<5'"
        )


def open_video(path: Path) -> cv2.VideoCapture:
    """A video; frames of 16-bit grey keep their bits.

    Raises:
        DataError: it cannot be opened, or its name is not UTF-8, on which OpenCV's reader crashes.
    """
    name = str(path.absolute())  # FFmpeg takes what stands before a name's first colon for a protocol
    if name.encode(errors="replace").decode() != name:
        raise DataError(f"{path}: found a name that is not UTF-8; rename the file or folder")
    video = cv2.VideoCapture(name)
    if not video.isOpened():
        raise DataError(f"{path}: not a readable video")
    if video.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT) == GREY16:
        video.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    return video


# --- frames -------------------------------------------------------------------------------------------

Wanted = Callable[[Source, int], bool]  # whether a source's frame of this index is to be read


def read_frames(
    sources: Iterable[Source], wanted: Wanted = lambda source, index: True, workers: int = 2
) -> Iterator[Frame]:
    """The frames of sources, in order. A frame that cannot be read comes with a `problem`."""
    workers = min(workers, READERS)  # whole frames wait in memory, of any size
    for kind, group in itertools.groupby(sources, key=lambda source: source.kind):
        if kind == "image":
            yield from read_ahead(read_image, (s for s in group if wanted(s, 0)), workers, 2 * workers)
            continue
        for source in group:
            yield from (read_video if kind == "video" else read_stack)(source, wanted)


def read_image(source: Source) -> Frame:
    if source.problem:
        return Frame(source, 0, None, source.problem)
    try:
        temperatures = read_thermal(source.path) if source.path.suffix.lower() in JPEG else None
        return Frame(source, 0, decode(source.path) if temperatures is None else temperatures)
    except DataError as error:
        return Frame(source, 0, None, str(error))


def bad_frame(source: Source, index: int, error: Exception | str) -> Frame:
    return Frame(source, index, None, f"{source.path}, frame {index}: {error}")


def read_stack(source: Source, wanted: Wanted) -> Iterator[Frame]:
    """The frames of a file, of which one may be damaged, and the next one whole."""
    with contextlib.ExitStack() as stack:
        frames = None
        for index in (index for index in range(source.count) if wanted(source, index)):
            try:
                with reading(source.path):
                    if frames is None:
                        frames = stack.enter_context(open_frames(source.path, source.raw))
                    if has_shrunk(source):
                        raise DataError("the file became shorter; start when it is complete")
                    pixels = frames[index]  # of any byte order
                    pixels = np.array(pixels, pixels.dtype.newbyteorder("="))
                yield Frame(source, index, pixels)
            except DataError as error:
                yield bad_frame(source, index, error)


def has_shrunk(source: Source) -> bool:
    """Whether a file has lost bytes; to read those of one that is left on disk ends the process."""
    now = state_of(source.path)
    return source.state is not None and (now is None or now[0] < source.state[0])


def read_video(source: Source, wanted: Wanted) -> Iterator[Frame]:
    """A video ends where it ends: headers promise too many frames, or too few."""
    first, count = 0.0, 0
    try:
        video = open_video(source.path)
        while video.grab():
            stamp = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            first = stamp if count == 0 else first
            if wanted(source, count):
                seconds = max(round(stamp - first, 6), 0.0) or count / source.fps  # no time stamps
                yield video_frame(video, source, count, seconds)
            count += 1
        video.release()
        if not count:
            raise DataError(f"{source.path}: not a readable video")
    except DataError as error:  # moved away in between
        yield Frame(source, 0, None, str(error))
    if count < 0.98 * source.count:  # of variable rates the number is estimated
        end = f"ends after {count} frames, its header promises {source.count}: it was cut off"
        tqdm.write(f"warning: {source.path}: {end}", sys.stderr)


def video_frame(video: cv2.VideoCapture, source: Source, index: int, seconds: float) -> Frame:
    """The frame that was grabbed last: HxWx3, or HxW of 16 bits."""
    whole, pixels = video.retrieve()
    if not whole:
        return bad_frame(source, index, "damaged")
    pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if pixels.ndim == 3 else pixels
    return Frame(source, index, pixels, seconds=seconds)
