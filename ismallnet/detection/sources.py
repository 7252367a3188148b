"""Files with frames of people's own: what is in one, and its frames, one after the other."""

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ismallnet.cli import DataError
from ismallnet.datasets.pairing import EXTENSIONS
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
    with contextlib.suppress(OSError):
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns
    return None


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
    name = str(path.absolute())  # FFmpeg takes what stands before a name's first colon for a protocol
    if name.encode(errors="replace").decode() != name:  # on which OpenCV's reader crashes
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
                    now = state_of(source.path)  # a page that is gone would end the process
                    if source.state and (now is None or now[0] < source.state[0]):
                        raise DataError("the file became shorter; start when it is complete")
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
            if not whole:
                yield bad_frame(source, count, "damaged")
            elif pixels.ndim == 3:
                yield Frame(source, count, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), seconds=seconds)
            else:
                yield Frame(source, count, pixels, seconds=seconds)
        count += 1
    video.release()
    if not count:
        yield Frame(source, 0, None, f"{source.path}: not a readable video")
    elif count < 0.98 * source.count:  # of variable rates the number is estimated
        end = f"ends after {count} frames, its header promises {source.count}: it was cut off"
        tqdm.write(f"warning: {source.path}: {end}", sys.stderr)
