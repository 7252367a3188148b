"""Which frames are to be done, under which names, and as they come."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ismallnet.cli import DataError, note
from ismallnet.detection.detector import Limits
from ismallnet.detection.search import in_number, is_frame_file, without_logs
from ismallnet.detection.sources import Frame, Source, describe, read_frames

Key = tuple[str, int]  # a frame: its file and its index there


@dataclasses.dataclass(frozen=True)
class Job:
    """A frame to be done: its place among all, and the name its results have; of a video's frame also
    the name of the annotated video."""

    position: int
    name: str
    source: Source
    index: int
    video: str = ""

    @property
    def key(self) -> Key:
        return str(self.source.path), self.index

    @property
    def sequence(self) -> str:
        """What it is a frame of: its file where that has several, else its folder."""
        return str(self.source.path if self.source.count > 1 else self.source.path.parent)


class Work(NamedTuple):
    """A frame that was read, and its grey limits; none where it could not be read.

    Args:
        own: the limits that its own values give, where those of the sequence depend on them.
    """

    job: Job
    frame: Frame
    limits: Limits
    own: Limits


def plan(
    sources: list[Source], every: int, done: dict[Key, str], videos: dict[str, str] | None = None
) -> list[Job]:
    """All frames of the sources, every Nth of those with several, under names of their own: the
    file's, with the frame's number where it has several, and a number more where two are alike.

    Args:
        done: the names of the frames that are done, by file and index; they keep them.
        videos: the names of annotated videos, by file; grows.
    """
    jobs, taken = [], set(done.values())
    videos = {} if videos is None else videos
    for source in sources:
        file, video = str(source.path), ""
        if source.kind == "video":
            others = set(videos.values())
            names = (name for name in numbered(source.path.stem) if name not in others)
            video = videos.get(file) or videos.setdefault(file, next(names))
        for index in range(0, source.count, every if source.count > 1 else 1):
            name = done.get((file, index))
            if name is None:
                number = "" if source.kind == "image" else f"_{index:06d}"
                stem = f"{source.path.stem}{number}"
                name = next(n for n in numbered(stem) if n not in taken)
            taken.add(name)
            jobs.append(Job(len(jobs), name, source, index, video))
    return jobs


def numbered(stem: str) -> Iterator[str]:
    """stem, stem_2, stem_3, …"""
    yield stem
    yield from (f"{stem}_{k}" for k in itertools.count(2))


def share(jobs: list[Job], rank: int, world: int, whole: bool) -> list[Job]:
    """What one of several processes does: every Nth frame, or with `whole` every Nth sequence."""
    if not whole:
        return jobs[rank::world]
    mine = set(list(dict.fromkeys(job.sequence for job in jobs))[rank::world])
    return [job for job in jobs if job.sequence in mine]


def frames_of(jobs: list[Job], workers: int) -> Iterator[tuple[Job, Frame]]:
    """The frames of jobs; those that a video promised and has not got are left out."""
    waiting = {(job.source.path, job.index): job for job in jobs}
    groups = itertools.groupby(jobs, key=lambda job: job.source)
    chosen = [(source, [job.index for job in group]) for source, group in groups]
    for frame in read_frames(chosen, workers):
        yield waiting[frame.source.path, frame.index], frame


def batches(found: Iterator[Work], size: int) -> Iterator[list[Work]]:
    """Neighbours of one shape and depth together; a frame with a problem alone."""

    def kind(work: Work):
        pixels = work.frame.pixels
        return None if pixels is None else (pixels.shape, pixels.dtype)

    batch: list[Work] = []
    for work in found:
        if batch and (len(batch) == size or kind(work) is None or kind(work) != kind(batch[0])):
            yield batch
            batch = []
        batch.append(work)
        if len(batch) == size or kind(work) is None:
            yield batch
            batch = []
    if batch:
        yield batch


class FolderGone(DataError):
    """A folder that is watched cannot be read any more."""


def arriving(folder: Path, seconds: float = 0.5) -> Iterator[Source | None]:
    """The files of a folder as they appear or change, each once it has stopped growing; None after
    each look, so that the one who waits can leave. Files that leave are forgotten.

    Args:
        seconds: between two looks.

    Raises:
        FolderGone: the folder itself is.
    """
    before: dict[Path, tuple[int, int]] = {}
    given: dict[Path, tuple[int, int]] = {}
    while True:
        now = {}
        try:
            paths = sorted(folder.iterdir(), key=in_number)
        except FileNotFoundError:
            raise FolderGone(f"{folder}: the folder is not there any more") from None
        except OSError as error:  # a disk of the network that was disconnected
            raise FolderGone(
                f"{folder}: the folder cannot be read any more: {error.strerror}"
            ) from None
        for path in paths:
            with contextlib.suppress(OSError):  # moved away in between
                if is_frame_file(path):
                    stat = path.stat()
                    now[path] = (stat.st_size, stat.st_mtime_ns)
        for path, state in now.items():
            if before.get(path) == state and given.get(path) != state and state[0]:
                given[path] = state
                if path not in without_logs(list(now)):
                    note(f"table {path}", f"{path} is left out: a table beside pictures")
                    continue
                yield describe(path)
        before = now
        given = {path: state for path, state in given.items() if path in now}
        yield None
        time.sleep(seconds)
