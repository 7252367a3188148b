"""Detection in frames of people's own, the loop behind `detect.py`: file -> frame -> grey limits ->
network -> targets -> a line of the records, pictures."""

import contextlib
import hashlib
import itertools
import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np

from ismallnet.cli import DataError, note, progress, some
from ismallnet.detection import records
from ismallnet.detection.detector import POLARITIES, DetectionSettings, Detector, Limits, Maps, highest
from ismallnet.detection.folder import Names, at_work, check_apart, check_ours, prepare
from ismallnet.detection.sources import FPS, Frame, Source, arriving, read_frames
from ismallnet.detection.tracks import Confirmation
from ismallnet.distributed import Interruption, Processes
from ismallnet.evaluation.metrics import quantise
from ismallnet.files import atomic_write, disk_errors_of, read_png, write_png
from ismallnet.images.grey import PERCENTILES, doubts, said_of
from ismallnet.inference.predict import NotFiniteError

# --limits: each frame's own; those of the first frame of a sequence; their running mean.
MODES = ("each", "first", "running")
RUNNING = 0.1  # weight of a frame's own limits in the running mean, 1 - RUNNING that of the mean before


@dataclass(frozen=True)
class Request:
    """What a call of detect.py asks for, beside the detector's settings; the flags' names."""

    paths: list[
        str
    ]  # as they were typed; with `watch` one folder, whose files are taken as they appear
    folder: Path  # of the results
    weights: Path
    backend: str = "torch"
    watch: bool = False
    recursive: bool = False
    every: int = 1
    save_npy: bool = False
    resume: bool = False
    overwrite: bool = False
    strict: bool = False
    batch_size: int = 1
    workers: int = 1
    limits: str = "each"  # one of MODES
    confirm: Confirmation | None = None
    raw: str | None = None

    def identity(self, settings: DetectionSettings) -> dict:
        """All that the results depend on, as about.json keeps it."""
        kept = asdict(settings)
        kept["range"] = kept.pop("limits")
        names = ("every", "backend", "save_npy", "limits", "raw")
        kept |= {name: getattr(self, name) for name in names}
        kept |= {"input": self.paths, "weights": str(self.weights)}
        kept["confirm"] = str(self.confirm) if self.confirm else None
        kept["sha256"] = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        return json.loads(json.dumps(kept))  # tuples become lists, as they are read back

    def extras(self, settings: DetectionSettings) -> tuple[str, ...]:
        """What is written of targets beside the usual."""
        asked = {"polarity": settings.polarity != "bright", "track": self.confirm is not None}
        return tuple(name for name, wanted in asked.items() if wanted)


def run(request: Request, sources: list[Source], detector: Detector, processes: Processes) -> int:
    """Detects in all frames of the sources, or of the watched folder.

    Returns:
        The exit code: 0; 1 where a frame could not be read, 2 if that stopped the run (strict); that
        of the signal which interrupted it.
    """
    folder, first = request.folder, processes.rank == 0
    if request.watch and processes.world > 1:
        raise DataError(f"--watch: found {processes.world} processes, expected one; leave torchrun out")
    if first:
        check_apart(folder, request.paths, sources, request.recursive)
        check_ours(folder)
        check_sequences(request, sources)
    with at_work(folder) if first else contextlib.nullcontext(), disk_errors_of(folder):
        if first:
            identity = request.identity(detector.settings)
            prepare(folder, identity, sources, request.resume, request.overwrite)
        processes.barrier()
        done = list(records.read_records(folder, order_of(sources))) if request.resume else []
        processes.barrier()  # nobody writes while another still reads
        with Interruption(None) as interruption, records.open_records(folder, processes.rank) as file:
            worker = Worker(request, detector, sources, done, processes, file)
            detect_in(worker, sources, interruption)
        return finish(worker, sources, interruption, processes)


def order_of(sources: list[Source]) -> dict[str, int]:
    return {str(source.path): n for n, source in enumerate(sources)}


def check_sequences(request: Request, sources: list[Source]) -> None:
    """Names the sequences where they matter.

    Raises:
        DataError: none has enough frames to confirm a target; or --every, of pictures alone.
    """
    if request.every > 1 and sources and all(source.kind == "image" for source in sources):
        text = "found pictures alone, expected videos, stacks or TIFF pages; leave it out"
        raise DataError(f"--every {request.every}: {text}")
    if request.watch or (request.limits == "each" and not request.confirm):
        return
    counts: dict[str, int] = {}
    for source in sources:
        counts[source.sequence] = counts.get(source.sequence, 0) - (-source.count // request.every)
    print("sequences:", some([f"{name} ({count or '?'} frames)" for name, count in counts.items()]))
    least, most = request.confirm.seen if request.confirm else 1, max(counts.values())
    if most < least and all(source.kind != "video" for source in sources):
        raise DataError(
            f"--confirm: found {most} frames in the longest sequence, expected {least} or more: a "
            "folder in the order of its names, a video, a stack"
        )


# --- the loop -----------------------------------------------------------------------------------------


class Shot(NamedTuple):
    """A frame that was read, the name of its pictures, and its grey limits; `own`: its own values give
    them."""

    frame: Frame
    name: str = ""
    limits: Limits | None = None
    own: bool = False


def detect_in(worker: "Worker", sources: list[Source], interruption: Interruption) -> None:
    """The loop over frames."""
    request = worker.request
    frames = read_frames(sources, worker.wants, request.workers)
    frames = watched(worker, interruption) if request.watch else frames
    for batch in batches(map(worker.mapped, frames), 1 if request.watch else request.batch_size):
        worker.bar.update(len(batch))
        if batch[0].frame.problem:
            worker.bad(batch[0].frame)
        else:
            worker.detect(batch)
        if interruption.check() or (batch[0].frame.problem and request.strict):
            break
    worker.bar.close()


def watched(worker: "Worker", interruption: Interruption) -> Iterator[Frame]:
    """The frames of files that appear in the watched folder, until the interruption, or until the
    folder is gone. A file that changes is looked at again: for frames that were bad, or that were not
    there yet."""
    try:
        for source in arriving(Path(worker.request.paths[0])):
            if interruption.check():
                return
            if source is None:
                continue
            count, key = worker.count, (str(source.path), 0)
            yield from read_frames([source], worker.wants)
            if worker.count > count and source.kind == "video":
                write_videos(worker.request.folder, str(source.path))
            elif worker.count == count and worker.done.get(key, source.state) != source.state:
                text = "was replaced; frames that are done are not done again: give each a new name"
                worker.bar.write(f"note: {source.path} {text}", file=sys.stderr)
    except DataError as error:
        worker.gone = str(error)


def batches(shots: Iterable[Shot], size: int) -> Iterator[list[Shot]]:
    """Neighbours of one shape and depth together; a frame with a problem alone."""

    def kind(shot: Shot) -> tuple | None:
        pixels = shot.frame.pixels
        return None if pixels is None else (pixels.shape, pixels.dtype)

    for alike, group in itertools.groupby(shots, kind):
        while batch := list(itertools.islice(group, size if alike else 1)):
            yield batch


class Worker:
    """One process: which frames are its own, and what becomes of them.

    Args:
        done: the records of frames that are done, in order.
        file: of its records.
    """

    def __init__(
        self,
        request: Request,
        detector: Detector,
        sources: list[Source],
        done: list[dict],
        processes: Processes,
        file: BinaryIO,
    ):
        self.request, self.detector, self.file = request, detector, file
        self.rank, self.world = processes.rank, processes.world
        self.done: dict[records.Key, tuple | None] = {}  # the state of the file when it was done
        for entry in done:
            self.done[entry["file"], entry["index"]] = tuple(entry.get("state") or ()) or None
        self.names = Names(done)
        for source in sources:  # all processes name all files, in the same order
            self.names.ending(source)
        self.places = {entry["file"]: entry["position"] for entry in done} | order_of(sources)
        self.next = itertools.count(max(self.places.values(), default=-1) + 1)
        self.limits = SequenceLimits(request.limits, detector, done, self.places)
        new = [s for s in sources if s.kind != "image" or (str(s.path), 0) not in self.done]
        parts = [s.sequence if request.limits != "each" else str(s.path) for s in new]
        self.turns = {name: n for n, name in enumerate(dict.fromkeys(parts))}  # of the processes
        self.problems: dict[records.Key, str] = {}  # of frames that could not be read
        self.doubts: list[tuple[str, str]] = []  # names of frames, and keys of grey.DOUBTS
        self.noted: set = set()
        self.gone = ""  # why a watched folder cannot be read any more
        self.count, self.began, self.seconds = 0, time.perf_counter(), 0.0
        total = sum(-(-source.count // request.every) for source in sources) - len(done)
        self.bar = progress((), request.folder.name, max(total, 0) // self.world or None, "frame")

    def wants(self, source: Source, index: int) -> bool:
        """Whether a frame is this process's to do: they share the frames, or where these depend on
        others whole sequences."""
        file, every = str(source.path), 1 if source.kind == "image" else self.request.every
        if (file, index) in self.done or index % every:
            return False
        if self.request.limits != "each":
            return self.turns.get(source.sequence, 0) % self.world == self.rank
        return (self.turns.get(file, 0) + index // every) % self.world == self.rank

    def mapped(self, frame: Frame) -> Shot:
        """A frame with its name and grey limits."""
        if frame.problem:
            return Shot(frame)
        file = str(frame.source.path)
        if file not in self.places:
            self.places[file] = next(self.next)
        limits = self.limits.of(frame, (self.places[file], frame.index))
        return Shot(frame, self.names.of(frame.source, frame.index), *limits)

    def bad(self, frame: Frame) -> None:
        self.problems[frame.key] = frame.problem
        later = "; it is tried again when it changes" if self.request.watch else ""
        self.bar.write(f"error: {frame.problem}{later}", file=sys.stderr)

    def detect(self, batch: list[Shot]) -> None:
        """
        Raises:
            NotFiniteError: names the frame.
        """
        pixels, limits = zip(*((shot.frame.pixels, shot.limits) for shot in batch))
        try:
            for shot, maps in zip(batch, self.detector.maps(pixels, limits)):
                self.good(shot, maps)
        except NotFiniteError as error:
            raise NotFiniteError(batch[error.index].name, error.index) from None

    def good(self, shot: Shot, maps: Maps) -> None:
        """Writes the pictures of a frame, and its record. Where targets have to be confirmed, the
        overlays are drawn at the end."""
        request, frame, source = self.request, shot.frame, shot.frame.source
        targets = self.detector.targets(maps, frame.pixels)
        entry = records.record(frame, shot.name, self.places[str(source.path)], shot.limits, targets)
        if source.kind == "video":
            entry["video"] = source.path.stem + self.names.ending(source)
            entry["fps"] = source.fps / request.every
        probability = highest(maps)
        write_png(request.folder / "maps" / f"{shot.name}.png", quantise(probability))
        if not request.confirm:
            write_overlay(self, frame, entry)
        if request.save_npy:
            with atomic_write(request.folder / "maps" / f"{shot.name}.npy") as file:
                np.save(file, probability)
        self.file.write(json.dumps(entry).encode() + b"\n")
        if request.watch:
            self.done[frame.key] = source.state
            self.problems.pop(frame.key, None)  # of a file that was watched while it was copied
        self.count, self.seconds = self.count + 1, time.perf_counter() - self.began
        for polarity, pair in shot.limits.items():
            keys = doubts(frame.pixels, pair, not shot.own, polarity == "dark")
            self.doubts += [(shot.name, key) for key in keys]
        self.say(shot)
        if request.watch:
            self.bar.write(f"{shot.name}: {len(targets)} targets")

    def say(self, shot: Shot) -> None:
        """How a frame's grey values were read, once a depth (and sequence, where it has limits of its
        own)."""
        settings, mode, dtype = self.detector.settings, self.request.limits, shot.frame.pixels.dtype
        kind = (dtype, shot.frame.source.sequence if mode != "each" else None)
        pairs = [] if kind in self.noted else filter(None, shot.limits.values())
        for (low, high), end in zip(pairs, ("", " (dark targets)")):
            self.bar.write(f"{shot.name}: {dtype}, {low:g} to {high:g} become 0 to 255{end}")
        self.noted.add(kind)
        chosen = settings.limits or tuple(settings.percentiles) != PERCENTILES or mode != "each"
        if dtype == np.uint8 and chosen:
            text = "frames of 8 bits are used as they are; --range, --percentiles and --limits change"
            note("8 bits", f"{shot.name}: {text} nothing in them")


class SequenceLimits:
    """The grey limits of frames, as their sequence has them. Frames of another type of pixels count as
    a sequence of their own; those of 8 bits have no limits, and flat ones change nothing.

    Args:
        mode: one of MODES.
        detector: says what a frame's own limits are.
        done: the records of frames that are done, in order.
        places: of all files, in which the frames of a sequence must come.
    """

    def __init__(self, mode: str, detector: Detector, done: list[dict], places: dict[str, int]):
        self.mode, self.detector = mode, detector
        self.state: dict[tuple[str, str], Limits] = {}  # by sequence and type of pixels
        self.last: dict[tuple[str, str], tuple[int, int]] = {}  # place of the last frame that is done
        for entry in done if mode != "each" else ():
            pairs = (entry["range"], entry.get("dark_range"))  # the second of both polarities alone
            limits = dict(zip(POLARITIES[detector.settings.polarity], pairs))
            if is_range(limits):
                key = entry["sequence"], entry["dtype"]
                self.state[key] = {polarity: tuple(pair) for polarity, pair in limits.items()}
                self.last[key] = places[entry["file"]], entry["index"]

    def of(self, frame: Frame, place: tuple[int, int]) -> tuple[Limits, bool]:
        """The limits of a frame, and whether its own values give them.

        Args:
            place: of its file among all, and its own in the file.

        Raises:
            DataError: it comes before frames that are done, which depend on it.
        """
        key = frame.source.sequence, str(frame.pixels.dtype)
        before = self.state.get(key)
        if before and place <= self.last.get(key, (-1, -1)):
            raise DataError(
                f"{frame.source.path}: a new frame before frames that are done, whose grey values "
                f"depend on it (--limits {self.mode}). Type --overwrite in place of --resume"
            )
        if before and self.mode == "first":
            return before, False
        own = self.detector.limits_of(frame.pixels)
        if self.mode == "each" or not is_range(own):
            return before or own, not (before or self.detector.settings.limits)
        self.state[key] = running_mean(own, before) if before else own
        return self.state[key], not before


def is_range(limits: Limits) -> bool:
    """Whether frames have limits, which are not alike."""
    return all(pair is not None and pair[0] < pair[1] for pair in limits.values())


def running_mean(own: Limits, before: Limits) -> Limits:
    return {
        polarity: tuple(RUNNING * new + (1 - RUNNING) * old for new, old in zip(pair, before[polarity]))
        for polarity, pair in own.items()
    }


# --- the end ------------------------------------------------------------------------------------------


def finish(
    worker: Worker, sources: list[Source], interruption: Interruption, processes: Processes
) -> int:
    """Merges what the processes did, and says what to do next; the exit code."""
    request, folder = worker.request, worker.request.folder
    problems = processes.gather(list(worker.problems.values()))
    doubted = processes.gather(worker.doubts)
    counts, seconds = zip(*processes.gather([(worker.count, worker.seconds)]))
    stopped = processes.any(bool(interruption.reason)) and not request.watch
    if processes.rank == 0:
        frames, targets = write_all(worker, sources)
        tables = f"{folder}/detections.csv, detections.json, overlays/"
        print(f"{frames} frames, {targets} targets: {tables}")
        if sum(counts) and not request.watch:
            rate = sum(counts) / max(seconds)
            print(f"{sum(counts)} frames in {max(seconds):.1f} s: {rate:.1f} a second")
        for line in said_of(doubted, "frames"):
            print(f"note: {line}", file=sys.stderr)
        if problems:
            print(f"error: {len(problems)} frames could not be read", file=sys.stderr)
        if frames:
            where = shlex.join(["--results", str(folder.parent), "--name", folder.name])
            print(f"for a report of them type: python visualization.py {where}")
        if stopped:
            print(f"stopped by {interruption.reason}; type the same command with --resume to continue")
    if worker.gone:
        text = (
            "the tables have what was done; when it is there again, type the same command with --resume"
        )
        print(f"error: {worker.gone}; {text}", file=sys.stderr)
    if problems or worker.gone:
        return 2 if problems and request.strict else 1
    return interruption.code if stopped else 0


def write_all(worker: Worker, sources: list[Source]) -> tuple[int, int]:
    """What is written at the end: tables, videos, and the overlays where targets have to be confirmed;
    the numbers of frames and targets."""
    request, order = worker.request, order_of(sources)
    if rule := request.confirm:
        tracks = records.confirm(request.folder, order, rule)
        write_overlays(worker, sources)
        print(f"{tracks} tracks, seen in {rule.seen} of {rule.of} frames within {rule.distance:g} px")
    counts = records.merge(request.folder, order, request.extras(worker.detector.settings))
    write_videos(request.folder)
    return counts


def write_overlay(worker: Worker, frame: Frame, entry: dict) -> None:
    extras = worker.request.extras(worker.detector.settings)
    picture = records.overlay(frame.pixels, entry, extras)
    write_png(worker.request.folder / "overlays" / f"{entry['frame']}.png", picture)


def write_overlays(worker: Worker, sources: list[Source]) -> None:
    """The overlays of all frames that are done, which are read once more for it."""
    folder = worker.request.folder
    entries = {(entry["file"], entry["index"]): entry for entry in records.read_records(folder, {})}
    frames = read_frames(sources, lambda s, k: (str(s.path), k) in entries, worker.request.workers)
    bar = progress(frames, f"{folder.name} overlays", len(entries), unit="frame")
    for frame in bar:
        if frame.problem:
            bar.write(f"error: {frame.problem}", file=sys.stderr)
        else:
            write_overlay(worker, frame, entries[frame.key])


def write_videos(folder: Path, file: str = "") -> None:
    """The overlays of videos as videos, as fast as they were; those of one file, or all."""
    videos: dict[str, list[dict]] = {}
    for entry in records.read_records(folder, {}):
        if "video" in entry and file in ("", entry["file"]):
            videos.setdefault(entry["video"], []).append(entry)
    for name, entries in videos.items():
        write_video(folder, name, entries)


def write_video(folder: Path, name: str, entries: list[dict]) -> None:
    temporary = folder.absolute() / f".{name}.tmp.mp4"  # the ending tells OpenCV the format
    pictures = (read_png(folder / "overlays" / f"{entry['frame']}.png") for entry in entries)
    writer = None
    for picture in (picture for picture in pictures if picture is not None):
        height, width = picture.shape[:2]  # MPEG-4 has even sides alone
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        if writer is None:
            code, rate = cv2.VideoWriter_fourcc(*"mp4v"), written_rate(entries[0].get("fps", FPS))
            writer = cv2.VideoWriter(str(temporary), code, rate, picture.shape[1::-1])
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    if writer is None or not writer.isOpened():
        print(f"note: OpenCV writes no video {name}; the pictures are in {folder}/overlays/")
        return
    writer.release()
    os.replace(temporary, folder / f"{name}.mp4")
    print(f"video: {folder / f'{name}.mp4'}")


def written_rate(fps: float) -> float:
    """The nearest number of frames a second that MPEG-4 can hold, as OpenCV writes it: a whole number
    of up to 65,535 hundredths or ones."""
    return round(fps, 2) if fps <= 655 else min(float(round(fps)), 65535.0)
