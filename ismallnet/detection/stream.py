"""Detection in people's own frames: the loop behind `test.py --input`."""

import argparse
import contextlib
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
from ismallnet.detection.detector import Detector
from ismallnet.detection.frames import Frame, Source, arriving, read_frames
from ismallnet.detection.records import (
    merge,
    open_records,
    overlay,
    read_records,
    record,
    write_picture,
)
from ismallnet.distributed import Interruption, Processes
from ismallnet.files import atomic_write, sweep, write_json
from ismallnet.metrics import quantise
from ismallnet.results import results_folder

SETTINGS = ("threshold", "min_area", "max_targets", "range", "percentiles", "tile", "overlap", "every")
SETTINGS += ("flips", "amp", "backend", "save_npy")


@dataclasses.dataclass(frozen=True)
class Job:
    """A frame to be done: its place among all, and the name its results have."""

    position: int
    name: str
    source: Source
    index: int


def plan(sources: list[Source], every: int, done: dict[tuple[str, int], str]) -> list[Job]:
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
    args: argparse.Namespace,
    done: dict[tuple[str, int], str],
    position: int,
    interruption: Interruption,
    folder: Path,
) -> Iterator[tuple[Job, Frame]]:
    """The frames of files that appear in --watch, until the interruption; a file with a bad frame is
    tried again when it changes.

    Args:
        position: of the first one.
        folder: of the results.
    """
    whole: set[str] = set()
    for source in arriving(Path(args.watch), whole):
        if interruption.check():
            return
        if source is None:
            continue
        jobs = plan([source], args.every, done)
        new = [job for job in jobs if (str(source.path), job.index) not in done]
        bad = False
        for job, frame in frames_of(new, workers=1):
            if frame.problem:
                bad = True
            else:
                done[str(source.path), job.index] = job.name
            yield dataclasses.replace(job, position=position), frame
            position += 1
        if not bad:
            whole.add(str(source.path))
        if new:
            write_video(folder, source, jobs)


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
    folder: Path, job: Job, frame: Frame, probability: np.ndarray, detector: Detector, save_npy: bool
) -> dict:
    """The pictures of one frame; returns its record."""
    targets = detector.targets(probability, frame.pixels)
    limits = detector.limits_of(frame.pixels)
    write_picture(folder / "maps" / f"{job.name}.png", quantise(probability))
    write_picture(folder / "overlays" / f"{job.name}.png", overlay(frame.pixels, limits, targets))
    if save_npy:
        with atomic_write(folder / "maps" / f"{job.name}.npy") as file:
            np.save(file, probability)
    return record(job.name, job.position, frame, limits, targets)


def write_video(folder: Path, source: Source, jobs: list[Job]) -> None:
    """The overlays of a video's frames as a video, as fast as it was; nothing for other sources."""
    if source.kind != "video":
        return
    stem = "".join(jobs[0].name.rsplit("_000000", 1))  # two videos of one name have two
    path, writer = folder / f"{stem}.mp4", None
    temporary = folder / f".{stem}.tmp.mp4"
    every = jobs[1].index - jobs[0].index if len(jobs) > 1 else 1
    for job in jobs:
        shown = folder / "overlays" / f"{job.name}.png"
        picture = cv2.imread(str(shown)) if shown.exists() else None
        if picture is None:  # not done yet, or a bad frame
            continue
        if writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            size = picture.shape[1::-1]
            writer = cv2.VideoWriter(str(temporary), code, source.fps / every, size)
        writer.write(picture)
    if writer is not None and writer.isOpened():
        writer.release()
        os.replace(temporary, path)
        print(f"video: {path}")


def settings_of(args: argparse.Namespace, weights: Path) -> dict:
    """What a continuation must have in common with its beginning."""
    kept = {key: getattr(args, key) for key in SETTINGS}
    kept["input"] = [args.watch] if args.watch else list(args.input)
    kept["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    return json.loads(json.dumps({"weights": str(weights), **kept}))  # as it is read back


def prepare(folder: Path, settings: dict, resume: bool) -> list[dict]:
    """The results' folder: emptied of an earlier call's records and their pictures, or checked for a
    continuation, whose records are returned without their targets.

    Raises:
        DataError: what is there came from other settings.
    """
    about = folder / "about.json"
    sweep(folder, folder / "maps", folder / "overlays")
    if not resume:
        with contextlib.suppress(DataError):  # damaged: what it names cannot be told
            for entry, _, _ in read_records(folder):
                for kind in ("maps/{}.png", "maps/{}.npy", "overlays/{}.png"):
                    (folder / kind.format(entry["frame"])).unlink(missing_ok=True)
        for path in folder.glob("records-*.jsonl"):
            path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        write_json(about, settings)
        return []
    try:
        before = json.loads(about.read_text())
    except (OSError, ValueError):
        raise DataError(f"{about}: found nothing to resume; leave --resume out") from None
    for key in settings.keys() - {"weights"}:
        if before.get(key) != settings[key]:
            raise DataError(
                f"{folder}: began with {key} {before.get(key)}, found {settings[key]}; use the same, "
                "or leave --resume out to start again"
            )
    return [
        {key: entry[key] for key in ("position", "frame", "file", "index")}
        for entry, _, _ in read_records(folder)
    ]


def run(
    args: argparse.Namespace,
    sources: list[Source],
    detector: Detector,
    weights: Path,
    processes: Processes,
) -> int:
    """Detects in all frames of the sources, or of --watch; the exit code is 1 where any is bad."""
    rank, world = processes.rank, processes.world
    if args.watch and world > 1:
        raise DataError(f"--watch: found {world} processes, expected one; leave torchrun out")
    folder = results_folder(args.results, args.name, [args.watch] if args.watch else args.input)
    records = prepare(folder, settings_of(args, weights), args.resume) if rank == 0 else []
    processes.barrier()
    if rank:
        records = prepare(folder, settings_of(args, weights), True)
    processes.barrier()  # nobody writes while another still reads
    done = {(entry["file"], entry["index"]): entry["frame"] for entry in records}
    jobs = plan(sources, args.every, done)
    mine = [job for job in jobs[rank::world] if (str(job.source.path), job.index) not in done]
    problems, shown = [], False
    with Interruption(None) as interruption, open_records(folder, rank) as file:
        if args.watch:
            next_position = max((entry["position"] for entry in records), default=-1) + 1
            found = watched(args, done, next_position, interruption, folder)
        else:
            found = frames_of(mine, args.workers)
        bar = progress((), folder.name, None if args.watch else len(mine), unit="frame")
        for batch in batches(found, 1 if args.watch else args.batch_size):
            bar.update(len(batch))
            if batch[0][1].problem:
                problems.append(batch[0][1].problem)
                bar.write(f"error: {problems[-1]}", file=sys.stderr)
                if args.strict:
                    break
                continue
            for (job, frame), probability in zip(
                batch, detector.probabilities([frame.pixels for _, frame in batch])
            ):
                entry = write_results(folder, job, frame, probability, detector, args.save_npy)
                if entry["range"] and not shown:
                    shown = True
                    low, high = entry["range"]
                    bar.write(f"{job.name}: {frame.pixels.dtype}, {low:g} to {high:g} become 0 to 255")
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                if args.watch:
                    bar.write(f"{job.name}: {len(entry['targets'])} targets")
            if interruption.check():
                break
        bar.close()
    problems = processes.gather(problems)
    stopped = processes.any(bool(interruption.reason))
    if rank == 0:
        order = {(str(job.source.path), job.index): job.position for job in jobs}
        count, targets = merge(folder, order)
        print(f"{count} frames, {targets} targets: {folder}/detections.csv, detections.json, overlays/")
        for source, group in itertools.groupby(jobs, key=lambda job: job.source):
            write_video(folder, source, list(group))
        if problems:
            print(f"error: {len(problems)} frames could not be read", file=sys.stderr)
        if count:
            where = f"--results {args.results} --name {folder.name}"
            print(f"a report of them: python visualization.py {where}")
        if stopped and not args.watch:
            print(f"stopped by {interruption.reason}; go on: the same command and --resume")
    if problems:
        return 2 if args.strict else 1
    return interruption.code if stopped and not args.watch else 0
