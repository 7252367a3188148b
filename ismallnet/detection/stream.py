"""Detection in frames of people's own: the loop behind `detect.py`."""

import dataclasses
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ismallnet.cli import DataError, progress
from ismallnet.detection.detector import DetectionSettings, Detector
from ismallnet.detection.frames import Frame, Source, arriving, read_frames
from ismallnet.detection.records import (
    check_same,
    clear,
    merge,
    open_records,
    overlay,
    read_records,
    record,
    video_stem,
)
from ismallnet.distributed import Interruption, Processes
from ismallnet.files import atomic_write, read_json, read_png, sweep, write_json, write_png
from ismallnet.images import few_bright_pixels
from ismallnet.inference import NotFiniteError
from ismallnet.metrics import quantise
from ismallnet.results import UNFINISHED

Key = tuple[str, int]  # a frame: its file and its index there


@dataclasses.dataclass(frozen=True)
class Request:
    """What a call of detect.py asks for, beside the detector's settings.

    Args:
        paths: as they were typed; with `watch` one folder, whose files are taken as they appear.
        folder: of the results.
        weights, backend: of the network; a resumed run must have the same.
        every: of sources with several frames every Nth.
        save_npy: float maps as well.
        resume, overwrite: what to do with results that are there already; without either they are
            an error.
        strict: stop at the first frame that cannot be read.
        batch_size: frames of one size run together.
        workers: threads that read image files.
    """

    paths: list[str]
    folder: Path
    weights: Path
    backend: str = "torch"
    watch: bool = False
    every: int = 1
    save_npy: bool = False
    resume: bool = False
    overwrite: bool = False
    strict: bool = False
    batch_size: int = 1
    workers: int = 1

    def identity(self, settings: DetectionSettings) -> dict:
        """All that the results depend on, as about.json keeps it."""
        kept = dataclasses.asdict(settings)
        kept["range"] = kept.pop("limits")
        kept |= {"every": self.every, "backend": self.backend, "save_npy": self.save_npy}
        kept |= {"input": self.paths, "weights": str(self.weights)}
        kept["sha256"] = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        return json.loads(json.dumps(kept))  # tuples become lists, as they are read back


@dataclasses.dataclass(frozen=True)
class Job:
    """A frame to be done: its place among all, and the name its results have."""

    position: int
    name: str
    source: Source
    index: int

    @property
    def key(self) -> Key:
        return str(self.source.path), self.index


def plan(sources: list[Source], every: int, done: dict[Key, str]) -> list[Job]:
    """All frames of the sources, every Nth of those with several, under names of their own: the
    file's, with the frame's number where it has several, and a number more where two are alike.

    Args:
        done: the names of the frames that are done, by file and index; they keep them.
    """
    jobs, taken = [], set(done.values())
    for source in sources:
        for index in range(0, source.count, every if source.count > 1 else 1):
            name = done.get((str(source.path), index))
            if name is None:
                number = "" if source.kind == "image" else f"_{index:06d}"
                stem = f"{source.path.stem}{number}"
                name = next(n for n in numbered(stem) if n not in taken)
            taken.add(name)
            jobs.append(Job(len(jobs), name, source, index))
    return jobs


def numbered(stem: str) -> Iterator[str]:
    """stem, stem_2, stem_3, …"""
    yield stem
    yield from (f"{stem}_{k}" for k in itertools.count(2))


def frames_of(jobs: list[Job], workers: int) -> Iterator[tuple[Job, Frame]]:
    """The frames of jobs; those that a video promised and has not got are left out."""
    waiting = {(job.source.path, job.index): job for job in jobs}
    groups = itertools.groupby(jobs, key=lambda job: job.source)
    chosen = [(source, [job.index for job in group]) for source, group in groups]
    for frame in read_frames(chosen, workers):
        yield waiting[frame.source.path, frame.index], frame


def watched(
    request: Request, done: dict[Key, str], position: int, interruption: Interruption
) -> Iterator[tuple[Job, Frame]]:
    """The frames of files that appear in the watched folder, until the interruption. A file that
    changes is looked at again: for frames that were bad, or that were not there yet.

    Args:
        done: names of the finished frames; grows.
        position: of the first new one.
    """
    for source in arriving(Path(request.paths[0])):
        if interruption.check():
            return
        if source is None:
            continue
        jobs = plan([source], request.every, done)
        new = [job for job in jobs if job.key not in done]
        for job, frame in frames_of(new, workers=1):
            if not frame.problem:
                done[job.key] = job.name
            yield dataclasses.replace(job, position=position), frame
            position += 1
        if new:
            write_video(request.folder, source, jobs)


def batches(found: Iterator[tuple[Job, Frame]], size: int) -> Iterator[list[tuple[Job, Frame]]]:
    """Neighbours of one shape and depth together; a frame with a problem alone."""

    def kind(pair: tuple[Job, Frame]):
        pixels = pair[1].pixels
        return None if pixels is None else (pixels.shape, pixels.dtype)

    batch: list[tuple[Job, Frame]] = []
    for pair in found:
        if batch and (len(batch) == size or kind(pair) is None or kind(pair) != kind(batch[0])):
            yield batch
            batch = []
        batch.append(pair)
        if len(batch) == size or kind(pair) is None:
            yield batch
            batch = []
    if batch:
        yield batch


def write_results(
    request: Request, job: Job, frame: Frame, probability: np.ndarray, detector: Detector
) -> dict:
    """The pictures of one frame; returns its record."""
    folder = request.folder
    targets = detector.targets(probability, frame.pixels)
    limits = detector.limits_of(frame.pixels)
    write_png(folder / "maps" / f"{job.name}.png", quantise(probability))
    write_png(folder / "overlays" / f"{job.name}.png", overlay(frame.pixels, limits, targets))
    if request.save_npy:
        with atomic_write(folder / "maps" / f"{job.name}.npy") as file:
            np.save(file, probability)
    return record(job.name, job.position, frame, limits, targets)


def write_video(folder: Path, source: Source, jobs: list[Job]) -> None:
    """The overlays of a video's frames as a video, as fast as it was; nothing for other sources."""
    if source.kind != "video":
        return
    stem, writer = video_stem(jobs[0].name), None
    temporary = folder / f".{stem}.tmp.mp4"  # the ending tells OpenCV the format
    every = jobs[1].index - jobs[0].index if len(jobs) > 1 else 1
    for job in jobs:
        picture = read_png(folder / "overlays" / f"{job.name}.png")
        if picture is None:  # not done yet, or a bad frame
            continue
        if writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            size = picture.shape[1::-1]
            writer = cv2.VideoWriter(str(temporary), code, source.fps / every, size)
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    if writer is not None and writer.isOpened():
        writer.release()
        os.replace(temporary, folder / f"{stem}.mp4")
        print(f"video: {folder / f'{stem}.mp4'}")


# --- the results' folder ---------------------------------------------------------------------------


def prepare(request: Request, identity: dict) -> None:
    """Makes the results' folder, or checks that it is this request's to continue.

    Raises:
        DataError: it holds other results; nothing in it was changed.
    """
    folder, about = request.folder, request.folder / "about.json"
    sweep(folder, folder / "maps", folder / "overlays")
    before = read_json(about)
    if (folder / UNFINISHED).exists() or (before and "input" not in before):
        raise DataError(f"{folder}: holds the maps of a data set; type another --name")
    if request.resume:
        check_same(folder, before, identity)
        return
    if any(path.stat().st_size for path in folder.glob("records-*.jsonl")):
        if not request.overwrite:
            of = f" of {' '.join(before['input'])}" if before else ""
            raise DataError(
                f"{folder}: holds results{of} already. Type --resume to continue that run, "
                "--overwrite to delete them, or another --name"
            )
        clear(folder)
    write_json(about, identity)


def start(
    request: Request, settings: DetectionSettings, processes: Processes
) -> tuple[dict[Key, str], int]:
    """Prepares the folder; returns the names of the finished frames, and the first free position."""
    if processes.rank == 0:
        prepare(request, request.identity(settings))
    processes.barrier()
    entries = [entry for entry, _, _ in read_records(request.folder)] if request.resume else []
    processes.barrier()  # nobody writes while another still reads
    done = {(entry["file"], entry["index"]): entry["frame"] for entry in entries}
    return done, max((entry["position"] for entry in entries), default=-1) + 1


# --- the loop --------------------------------------------------------------------------------------


def run(request: Request, sources: list[Source], detector: Detector, processes: Processes) -> int:
    """Detects in all frames of the sources, or of the watched folder.

    Returns:
        The exit code: 0; 1 where a frame could not be read, 2 if that stopped the run (strict); that
        of the signal which interrupted it.
    """
    rank, world = processes.rank, processes.world
    if request.watch and world > 1:
        raise DataError(f"--watch: found {world} processes, expected one; leave torchrun out")
    done, position = start(request, detector.settings, processes)
    jobs = plan(sources, request.every, done)
    mine = [job for job in jobs if job.key not in done][rank::world]
    problems: dict[Key, str] = {}  # of frames that could not be read
    bright: list[str] = []  # names of frames of which few pixels take the grey range
    with Interruption(None) as interruption, open_records(request.folder, rank) as file:
        if request.watch:
            frames = watched(request, done, position, interruption)
        else:
            frames = frames_of(mine, request.workers)
        total = None if request.watch else len(mine)
        bar = progress((), request.folder.name, total, unit="frame")
        noted: set = set()
        for batch in batches(frames, 1 if request.watch else request.batch_size):
            bar.update(len(batch))
            if problem := batch[0][1].problem:
                problems[batch[0][0].key] = problem
                later = "; it is tried again when it changes" if request.watch else ""
                bar.write(f"error: {problem}{later}", file=sys.stderr)
                if request.strict:
                    break
                continue
            maps = probabilities(detector, batch)
            for (job, frame), probability in zip(batch, maps):
                entry = write_results(request, job, frame, probability, detector)
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                problems.pop(job.key, None)  # of a file that was watched while it was copied
                note(bar, request, job, frame, entry, noted)
                if detector.settings.limits is None and few_bright_pixels(frame.pixels, entry["range"]):
                    bright.append(job.name)
            if interruption.check():
                break
        bar.close()
    return finish(request, jobs, list(problems.values()), bright, interruption, processes)


def probabilities(detector: Detector, batch: list[tuple[Job, Frame]]) -> list[np.ndarray]:
    """The maps of a batch.

    Raises:
        NotFiniteError: names the frame.
    """
    try:
        return detector.probabilities([frame.pixels for _, frame in batch])
    except NotFiniteError as error:
        raise NotFiniteError(batch[error.index][0].name, error.index) from None


def note(bar, request: Request, job: Job, frame: Frame, entry: dict, noted: set) -> None:
    """Says how a frame's grey values were read, once a depth, and what was found while watching."""
    if entry["range"] and frame.pixels.dtype not in noted:
        noted.add(frame.pixels.dtype)
        low, high = entry["range"]
        bar.write(f"{job.name}: {frame.pixels.dtype}, {low:g} to {high:g} become 0 to 255")
    if request.watch:
        bar.write(f"{job.name}: {len(entry['targets'])} targets")


def finish(
    request: Request,
    jobs: list[Job],
    problems: list[str],
    bright: list[str],
    interruption: Interruption,
    processes: Processes,
) -> int:
    """Merges what the processes found, writes the videos, and says what to do next; the exit code."""
    problems, bright = processes.gather(problems), processes.gather(bright)
    stopped = processes.any(bool(interruption.reason)) and not request.watch
    if processes.rank == 0:
        folder = request.folder
        count, targets = merge(folder, {job.key: job.position for job in jobs})
        print(f"{count} frames, {targets} targets: {folder}/detections.csv, detections.json, overlays/")
        for source, group in itertools.groupby(jobs, key=lambda job: job.source):
            write_video(folder, source, list(group))
        if bright:
            names = ", ".join(bright[:3]) + (" …" if len(bright) > 3 else "")
            print(
                f"note: in {len(bright)} frames ({names}) the brightest 0.1 % of the pixels take more "
                "than half of the grey values: targets, or hot pixels, which hide dim targets. For hot "
                "pixels type --percentiles 0.1 99.9",
                file=sys.stderr,
            )
        if problems:
            print(f"error: {len(problems)} frames could not be read", file=sys.stderr)
        if count:
            where = f"--results {folder.parent} --name {folder.name}"
            print(f"for a report of them type: python visualization.py {where}")
        if stopped:
            print(f"stopped by {interruption.reason}; type the same command with --resume to continue")
    if problems:
        return 2 if request.strict else 1
    return interruption.code if stopped else 0
