"""Detection in frames of people's own: the loop behind `detect.py`."""

import dataclasses
import itertools
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np

from ismallnet.cli import DataError, progress
from ismallnet.detection.contrast import Contrast, doubts
from ismallnet.detection.detector import DetectionSettings, Detector, Maps, highest
from ismallnet.detection.folder import video_stem
from ismallnet.detection.jobs import (
    FolderGone,
    Job,
    Key,
    Work,
    arriving,
    batches,
    frames_of,
    plan,
    share,
)
from ismallnet.detection.records import (
    Records,
    confirm,
    merge,
    open_records,
    overlay,
    read_records,
    record,
)
from ismallnet.detection.request import Request, describe_sequences, prepare, say
from ismallnet.detection.sources import Frame, Source
from ismallnet.distributed import Interruption, Processes
from ismallnet.evaluation.metrics import quantise
from ismallnet.files import atomic_write, disk_errors_of, read_png, write_png
from ismallnet.images.grey import said_of
from ismallnet.inference.predict import NotFiniteError


class Beginning(NamedTuple):
    """Where a run begins.

    Args:
        done: the names of the finished frames.
        videos: the names of the annotated videos, by file.
        position: the first free one.
        jobs: all frames; while watching none.
        contrast: the grey limits as an earlier run left them.
    """

    done: dict[Key, str]
    videos: dict[str, str]
    position: int
    jobs: list[Job]
    contrast: Contrast


def watched(
    request: Request, beginning: Beginning, interruption: Interruption
) -> Iterator[tuple[Job, Frame]]:
    """The frames of files that appear in the watched folder, until the interruption, or until the
    folder is gone. A file that changes is looked at again: for frames that were bad, or that were not
    there yet."""
    done, videos, position = beginning.done, beginning.videos, beginning.position
    for source in arriving(Path(request.paths[0])):
        if interruption.check():
            return
        if source is None:
            continue
        jobs = plan([source], request.every, done, videos)
        new = [job for job in jobs if job.key not in done]
        for job, frame in frames_of(new, workers=1):
            if not frame.problem:
                done[job.key] = job.name
            yield dataclasses.replace(job, position=position), frame
            position += 1
        if new:
            write_video(request.folder, source, jobs)


def write_results(request: Request, work: Work, maps: Maps, detector: Detector) -> dict:
    """The pictures of one frame; returns its record. Where targets have to be confirmed, the overlays
    are drawn at the end."""
    folder, job, frame, limits = request.folder, work.job, work.frame, work.limits
    probability = highest(maps)
    first, *second = limits.values()
    entry = record(job.name, job.position, frame, first, detector.targets(maps, frame.pixels))
    entry |= {"sequence": job.sequence, "dtype": str(frame.pixels.dtype), "state": job.source.state}
    entry |= {"video": job.video} if job.video else {}
    entry |= {"dark_range": second[0]} if second else {}
    write_png(folder / "maps" / f"{job.name}.png", quantise(probability))
    if not request.confirm:
        write_overlay(request, detector.settings, frame, entry)
    if request.save_npy:
        with atomic_write(folder / "maps" / f"{job.name}.npy") as file:
            np.save(file, probability)
    return entry


def write_overlay(request: Request, settings: DetectionSettings, frame: Frame, entry: dict) -> None:
    extras = request.extras(settings)
    picture = overlay(frame.pixels, entry["range"], entry["targets"], extras)
    write_png(request.folder / "overlays" / f"{entry['frame']}.png", picture)


def write_overlays(request: Request, settings: DetectionSettings, jobs: list[Job]) -> None:
    """The overlays of all frames that are done, which are read once more for it."""
    positions = {job.key: job.position for job in jobs}
    with Records(request.folder, positions) as records:
        places = {}
        for place, entry in zip(records.places, records):
            places[entry["file"], entry["index"]] = place
        done = [job for job in jobs if job.key in places]
        frames = frames_of(done, request.workers)
        bar = progress(frames, f"{request.folder.name} overlays", len(done), unit="frame")
        for job, frame in bar:
            if frame.problem:
                bar.write(f"error: {frame.problem}", file=sys.stderr)
            else:
                write_overlay(request, settings, frame, records.read(places[job.key]))


def write_video(folder: Path, source: Source, jobs: list[Job]) -> None:
    """The overlays of a video's frames as a video, as fast as it was; nothing for other sources."""
    if source.kind != "video":
        return
    stem, writer = jobs[0].video, None
    temporary = folder / f".{stem}.tmp.mp4"  # the ending tells OpenCV the format
    every = jobs[1].index - jobs[0].index if len(jobs) > 1 else 1
    for job in jobs:
        picture = read_png(folder / "overlays" / f"{job.name}.png")
        if picture is None:  # not done yet, or a bad frame
            continue
        if writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            size = picture.shape[1::-1]
            writer = cv2.VideoWriter(str(temporary), code, written_rate(source.fps / every), size)
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    if writer is not None and writer.isOpened():
        writer.release()
        os.replace(temporary, folder / f"{stem}.mp4")
        print(f"video: {folder / f'{stem}.mp4'}")
    elif writer is not None:
        print(f"note: OpenCV writes no video of {source.path}; the pictures are in {folder}/overlays/")


def written_rate(fps: float) -> float:
    """The nearest number of frames a second that MPEG-4 can hold, as OpenCV writes it: a whole number
    of up to 65,535 thousandths, hundredths, tenths or ones."""
    digits = next(n for n in (3, 2, 1, 0) if fps * 10**n <= 65535 or not n)
    return min(round(fps, digits), 65535.0)


def start(
    request: Request, detector: Detector, sources: list[Source], processes: Processes
) -> Beginning:
    """Prepares the folder, and reads what an earlier run left there."""
    if processes.rank == 0:
        prepare(request, sources, request.identity(detector.settings))
    processes.barrier()
    done: dict[Key, str] = {}
    videos: dict[str, str] = {}
    position, entries = 0, []
    for entry, _, _ in read_records(request.folder) if request.resume else ():
        done[entry["file"], entry["index"]] = entry["frame"]
        position = max(position, entry["position"] + 1)
        if (video := video_stem(entry)) and video not in videos.values():
            videos.setdefault(entry["file"], video)
        if request.limits != "each":
            entries.append({key: value for key, value in entry.items() if key != "targets"})
    processes.barrier()  # nobody writes while another still reads
    jobs = plan(sources, request.every, done, videos)
    contrast = Contrast(request.limits, detector)
    contrast.resume(entries, {job.key: job.position for job in jobs})
    return Beginning(done, videos, position, jobs, contrast)


# --- the loop --------------------------------------------------------------------------------------


class Outcome:
    """What becomes of the frames of one process.

    Args:
        file: of the records.
        total: frames, where it is known.
    """

    def __init__(self, request: Request, detector: Detector, file: BinaryIO, total: int | None):
        self.request, self.detector, self.file = request, detector, file
        self.bar = progress((), request.folder.name, total, unit="frame")
        self.problems: dict[Key, str] = {}  # of frames that could not be read
        self.doubts: list[tuple[str, str]] = []  # names of frames, and what makes one doubt them
        self.noted: set = set()
        self.gone = ""  # why a watched folder cannot be read any more
        self.count, self.began, self.seconds = 0, time.perf_counter(), 0.0

    def until_gone(self, frames: Iterator[tuple[Job, Frame]]) -> Iterator[tuple[Job, Frame]]:
        """The frames of a watched folder, which end when it cannot be read any more."""
        try:
            yield from frames
        except FolderGone as error:
            self.gone = str(error)

    def bad(self, work: Work) -> None:
        self.problems[work.job.key] = work.frame.problem
        later = "; it is tried again when it changes" if self.request.watch else ""
        self.bar.write(f"error: {work.frame.problem}{later}", file=sys.stderr)

    def good(self, work: Work, maps: Maps) -> None:
        settings = self.detector.settings
        entry = write_results(self.request, work, maps, self.detector)
        self.file.write(json.dumps(entry).encode() + b"\n")
        self.file.flush()
        self.count, self.seconds = self.count + 1, time.perf_counter() - self.began
        self.problems.pop(work.job.key, None)  # of a file that was watched while it was copied
        say(self.bar, self.request, settings, work, entry, self.noted)
        kinds = []
        if work.own:
            kinds += doubts(work.frame.pixels, work.own, own=True)
        if work.own != work.limits:
            kinds += doubts(work.frame.pixels, work.limits, own=False)
        self.doubts += [(work.job.name, kind) for kind in dict.fromkeys(kinds)]


def run(request: Request, sources: list[Source], detector: Detector, processes: Processes) -> int:
    """Detects in all frames of the sources, or of the watched folder.

    Returns:
        The exit code: 0; 1 where a frame could not be read, 2 if that stopped the run (strict); that
        of the signal which interrupted it.
    """
    rank, world = processes.rank, processes.world
    if request.watch and world > 1:
        raise DataError(f"--watch: found {world} processes, expected one; leave torchrun out")
    beginning = start(request, detector, sources, processes)
    jobs = beginning.jobs
    if rank == 0:
        describe_sequences(request, jobs, world)
    new = [job for job in jobs if job.key not in beginning.done]
    mine = share(new, rank, world, whole=request.limits != "each")
    size = 1 if request.watch else request.batch_size
    with (
        disk_errors_of(request.folder),
        Interruption(None) as interruption,
        open_records(request.folder, rank) as file,
    ):
        outcome = Outcome(request, detector, file, None if request.watch else len(mine))
        if request.watch:
            frames = outcome.until_gone(watched(request, beginning, interruption))
        else:
            frames = frames_of(mine, request.workers)
        for batch in batches(mapped(frames, beginning.contrast), size):
            outcome.bar.update(len(batch))
            if batch[0].frame.problem:
                outcome.bad(batch[0])
                if request.strict:
                    break
                continue
            for work, maps in zip(batch, predicted(detector, batch)):
                outcome.good(work, maps)
            if interruption.check():
                break
        outcome.bar.close()
    return finish(request, jobs, outcome, interruption, processes)


def mapped(frames: Iterator[tuple[Job, Frame]], contrast: Contrast) -> Iterator[Work]:
    """Frames with their grey limits."""
    for job, frame in frames:
        limits = {} if frame.problem else contrast.limits(job, frame.pixels)
        yield Work(job, frame, limits, {} if frame.problem else contrast.own)


def predicted(detector: Detector, batch: list[Work]) -> list[Maps]:
    """The maps of a batch.

    Raises:
        NotFiniteError: names the frame.
    """
    try:
        return detector.maps([work.frame.pixels for work in batch], [work.limits for work in batch])
    except NotFiniteError as error:
        raise NotFiniteError(batch[error.index].job.name, error.index) from None


def finish(
    request: Request,
    jobs: list[Job],
    outcome: Outcome,
    interruption: Interruption,
    processes: Processes,
) -> int:
    """Merges what the processes found, and says what to do next; the exit code."""
    problems = processes.gather(list(outcome.problems.values()))
    found = processes.gather(outcome.doubts)
    work = processes.gather([(outcome.count, outcome.seconds)])
    stopped = processes.any(bool(interruption.reason)) and not request.watch
    if processes.rank == 0:
        folder = request.folder
        count, targets = write_all(request, outcome.detector.settings, jobs)
        print(f"{count} frames, {targets} targets: {folder}/detections.csv, detections.json, overlays/")
        if not request.watch:
            print(speed(work), end="")
        for line in said_of(found, "frames"):
            print(f"note: {line}", file=sys.stderr)
        if problems:
            print(f"error: {len(problems)} frames could not be read", file=sys.stderr)
        if count:
            where = shlex.join(["--results", str(folder.parent), "--name", folder.name])
            print(f"for a report of them type: python visualization.py {where}")
        if stopped:
            print(f"stopped by {interruption.reason}; type the same command with --resume to continue")
    if outcome.gone:
        again = "when it is there again, type the same command with --resume"
        print(
            f"error: {outcome.gone}; the tables have what was done until then; {again}", file=sys.stderr
        )
    if problems or outcome.gone:
        return 2 if problems and request.strict else 1
    return interruption.code if stopped else 0


def speed(work: list[tuple[int, float]]) -> str:
    """A line on how fast the processes were; nothing where they had nothing to do.

    Args:
        work: of each process, the frames of this run and the seconds from its first read to its last
            record.
    """
    count, seconds = sum(n for n, _ in work), max((s for _, s in work), default=0.0)
    return f"{count} frames in {seconds:.1f} s: {count / seconds:.1f} a second\n" if count else ""


def write_all(request: Request, settings: DetectionSettings, jobs: list[Job]) -> tuple[int, int]:
    """What is written at the end: tables, videos, and the overlays where targets have to be confirmed;
    the numbers of frames and targets."""
    positions = {job.key: job.position for job in jobs}
    if rule := request.confirm:
        tracks = confirm(request.folder, positions, rule)
        write_overlays(request, settings, jobs)
        print(f"{tracks} tracks, seen in {rule.seen} of {rule.of} frames within {rule.distance:g} px")
    counts = merge(request.folder, positions, request.extras(settings))
    for source, group in itertools.groupby(jobs, key=lambda job: job.source):
        write_video(request.folder, source, list(group))
    return counts
