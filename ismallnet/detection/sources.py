"""Frames of people's own: which files the typed paths name, what is in each, and its frames, one after
the other."""

import contextlib
import glob
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ismallnet.cli import DataError, note, some
from ismallnet.datasets.pairing import EXTENSIONS
from ismallnet.files import disguise, reading
from ismallnet.images.arrays import ARRAYS, as_frames, read_array
from ismallnet.images.picture import decode, open_pictures
from ismallnet.images.scientific import FITS, JPEG, note_thermal
from ismallnet.parallel import read_ahead

PICTURES = (*EXTENSIONS, ".pgm", ".ppm", ".webp", ".gif", ".jp2", *FITS)
COUNTED = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm")  # their header says how long they are
VIDEOS = (*COUNTED, ".mpg", ".mpeg", ".wmv", ".asf", ".flv", ".3gp", ".y4m", ".mjpeg")
VIDEOS += (".ts", ".mts", ".m2ts", ".h264")
HEADERLESS = (".raw", ".bin")
KINDS = (*PICTURES, *ARRAYS, *VIDEOS)
READERS = 4  # threads that read image files; whole frames, of any size, wait in memory
FPS = 25.0  # of a video that does not say it
GREY16 = int.from_bytes(b"Y1\0\x10", "little")  # FFmpeg's name of 16-bit grey pixels


@dataclass(frozen=True)
class Source:
    """A file with one frame or more.

    Args:
        kind: "image" of one frame, "stack" of several, or "video".
        count: of its frames; of a video what its header promises, 0 if nothing.
        fps: of a video.
        problem: why it cannot be opened.
        state: the file's bytes, and when it was changed, in ns since 1970; None if it is not there.
    """

    path: Path
    kind: str
    count: int = 1
    fps: float | None = None
    problem: str = ""
    state: tuple[int, int] | None = None

    @property
    def file(self) -> str:
        return str(self.path)

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
        return self.source.file, self.index


# --- which files --------------------------------------------------------------------------------------


def find_sources(paths: list[str]) -> list[Source]:
    """What files, folders and patterns name, each file once, in the order of their names, where numbers
    count as numbers. What cannot be opened is reported when its turn comes.

    Raises:
        DataError: a path that is not there, or holds no frames.
    """
    files = dict.fromkeys(file for text in paths for file in named_by(text))
    return [source_of(path) for path in sorted(files, key=in_number)]


def named_by(text: str) -> list[Path]:
    """The files that a typed path or pattern names."""
    path = Path(text)
    if text and path.is_dir():
        return in_folder(path)
    if text and path.exists():
        if path.suffix.lower() == ".txt":
            raise DataError(f"{text}: lists are not read any more; type detect.py $(cat {text})")
        if path.suffix.lower() in HEADERLESS:
            raise DataError(
                f"{text}: found pixels without a header; save them as .npy in Python: numpy.save("
                f"{str(path.with_suffix('.npy'))!r}, numpy.fromfile({text!r}, 'uint16').reshape(-1, "
                "HEIGHT, WIDTH)) (big-endian: '>u2')"
            )
        return [path]
    if "://" in text or text.isdecimal():
        raise DataError(f"{text}: no such file; of a camera or a stream type --camera {text}")
    files = [Path(p) for p in glob.glob(text, recursive=True) if Path(p).is_file()]
    if not files:
        raise DataError(f"PATH {text!r}: no such file, folder or pattern")
    return files


def in_folder(folder: Path) -> list[Path]:
    """The frame files of a folder; says what is left out."""
    paths = [path for path in folder.iterdir() if path.name[0] != "."]
    frames = frame_files(path for path in paths if not path.is_dir())  # or a link that leads nowhere
    left_out = sorted(path.name for path in {*paths} - {*frames})
    within = f"for frames in its folders type a pattern: '{folder}/**/*.png'"
    if not frames:
        text = f"found no frames right in it but {some(left_out, 3) or 'nothing'}"
        raise DataError(f"{folder}: {text}, expected {', '.join(KINDS)}; {within}")
    if left_out:
        text = f"left out {len(left_out)} files and folders: {some(left_out, 3)}"
        note(f"in {folder}", f"{folder}: {text}; {within}")
    return frames


def frame_files(files: Iterable[Path]) -> list[Path]:
    """Those files of a folder that are frames, by their names. A .csv is one only where there are no
    others: it may be a table of pixels, and beside pictures it is a log."""
    frames = [path for path in files if path.suffix.lower() in KINDS]
    return [path for path in frames if path.suffix.lower() != ".csv"] or frames


def in_number(path: str | Path) -> list:
    """Sorts frame_2 before frame_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]


# --- what is in a file --------------------------------------------------------------------------------


def source_of(path: Path) -> Source:
    """What a file holds, from its header; one that cannot be opened counts as one bad image."""
    state = state_of(path)  # before it is read
    try:
        source = read_header(path)
    except DataError as error:
        source = Source(path, "image", problem=str(error))
    return replace(source, state=state)


def state_of(path: Path) -> tuple[int, int] | None:
    """A file's bytes, and when it was changed, in ns since 1970; None if it is not there."""
    with contextlib.suppress(OSError):
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns
    return None


def read_header(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        kinds = f"expected {', '.join(KINDS)}"
        raise DataError(f"{path}: not a readable image ({disguise(path) or kinds})")
    if suffix in VIDEOS:
        return describe_video(path)
    array = suffix in ARRAYS  # of which one frame has a number, too
    if not array and suffix not in (".tif", ".tiff", ".gif", *FITS):
        return Source(path, "image")
    with reading(path), open_frames(path) as frames:
        return Source(path, "stack" if array or len(frames) > 1 else "image", len(frames))


@contextlib.contextmanager
def open_frames(path: Path) -> Iterator[Sequence[np.ndarray]]:
    """The frames of a file that may have several, HxW or HxWx3, read one by one."""
    if path.suffix.lower() in ARRAYS:
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
    """Refuses an interlaced video. OpenCV 5.0 gives its frames as memory that nobody has filled, and
    says so on standard error alone: another process reads the first one."""
    code = "import cv2, sys; cv2.VideoCapture(sys.argv[1]).read()"
    command = [sys.executable, "-c", code, str(path.absolute())]
    if b"Cannot convert interlaced" in subprocess.run(command, capture_output=True).stderr:
        raise DataError(
            f"{path}: interlaced, which OpenCV {cv2.__version__} does not read; expected whole frames. "
            f"Convert it: ffmpeg -i {path.name} -vf yadif -c:v ffv1 {path.stem}-whole.mkv"
        )


def open_video(path: Path) -> cv2.VideoCapture:
    """A video; frames of 16-bit grey keep their bits."""
    # FFmpeg takes what stands before a name's first colon for a protocol.
    video = cv2.VideoCapture(str(path.absolute()))
    if not video.isOpened():
        raise DataError(f"{path}: not a readable video")
    if video.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT) == GREY16:
        video.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    return video


# --- frames -------------------------------------------------------------------------------------------

Wanted = Callable[[Source, int], bool]  # whether a source's frame of this index is to be read


def read_frames(
    sources: Iterable[Source], wanted: Wanted = lambda source, index: True
) -> Iterator[Frame]:
    """The frames of sources, in order. A frame that cannot be read comes with a `problem`."""
    for kind, group in itertools.groupby(sources, key=lambda source: source.kind):
        if kind == "image":
            images = (source for source in group if wanted(source, 0))
            yield from read_ahead(read_image, images, READERS, 2 * READERS)
            continue
        for source in group:
            yield from (read_video if kind == "video" else read_stack)(source, wanted)


def read_image(source: Source) -> Frame:
    if source.problem:
        return Frame(source, 0, None, source.problem)
    try:
        if source.path.suffix.lower() in JPEG:
            note_thermal(source.path)
        return Frame(source, 0, decode(source.path))
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
                        frames = stack.enter_context(open_frames(source.path))
                    pixels = frames[index]  # of any byte order
                    pixels = np.array(pixels, pixels.dtype.newbyteorder("="))
                yield Frame(source, index, pixels)
            except DataError as error:
                yield bad_frame(source, index, error)


def read_video(source: Source, wanted: Wanted) -> Iterator[Frame]:
    """A video ends where it ends: headers promise too many frames, or too few."""
    try:
        video = open_video(source.path)
    except DataError as error:  # moved away in between
        yield Frame(source, 0, None, str(error))
        return
    first, count = 0.0, 0
    while video.grab():
        stamp = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
        first = stamp if count == 0 else first
        if wanted(source, count):
            whole, pixels = video.retrieve()
            seconds = max(round(stamp - first, 6), 0.0) or count / source.fps  # no time stamps
            frame = Frame(source, count, rgb(pixels), seconds=seconds) if whole else None
            yield frame or bad_frame(source, count, "damaged")
        count += 1
    video.release()
    if not count:
        yield Frame(source, 0, None, f"{source.path}: not a readable video")
    elif count < 0.98 * source.count:  # of variable rates the number is estimated
        end = f"ends after {count} frames, its header promises {source.count}: it was cut off"
        tqdm.write(f"warning: {source.path}: {end}", sys.stderr)


def rgb(pixels: np.ndarray) -> np.ndarray:
    """OpenCV's pixels, HxW or BGR, as HxW or RGB."""
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if pixels.ndim == 3 else pixels
