"""Detection in frames of people's own, the loop behind `detect.py`: file -> frame -> grey limits ->
network -> targets -> a line of the records, pictures."""

import contextlib
import hashlib
import itertools
import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from ismallnet.cli import DataError, note, progress, some
from ismallnet.detection import records
from ismallnet.detection.camera import Camera
from ismallnet.detection.detector import DetectionSettings, Detector, Limits, Maps, highest
from ismallnet.detection.folder import Names, check_ours, prepare
from ismallnet.detection.inputs import arriving
from ismallnet.detection.limits import SequenceLimits
from ismallnet.detection.sources import Frame, Source, read_frames
from ismallnet.detection.tracks import Confirmation
from ismallnet.distributed import Interruption, Processes
from ismallnet.evaluation.metrics import quantise
from ismallnet.files import atomic_write, disk_errors_of, lock, write_png
from ismallnet.images.grey import PERCENTILES, doubts, said_of
from ismallnet.inference.predict import NotFiniteError


@dataclass(frozen=True)
class Request:
    """What a call of detect.py asks for, beside the detector's settings; the flags' names.

    Args:
        paths: as they were typed; of a camera its address, with `watch` one folder, whose files are
            read as they appear.
        folder: of the results.
        limits: one of limits.MODES.
    """

    paths: list[str]
    folder: Path
    weights: Path
    backend: str = "torch"
    watch: bool = False
    camera: Camera | None = None
    format: str | None = None
    recursive: bool = False
    every: int = 1
    save_npy: bool = False
    resume: bool = False
    overwrite: bool = False
    strict: bool = False
    batch_size: int = 1
    workers: int = 1
    limits: str = "each"
    confirm: Confirmation | None = None
    raw: str | None = None

    @property
    def live(self) -> bool:
        """Whether frames come until the run is stopped."""
        return self.watch or self.camera is not None

    def identity(self, settings: DetectionSettings) -> dict:
        """All that the results depend on, as about.json keeps it."""
        kept = asdict(settings)
        kept["range"] = kept.pop("limits")
        names = ("every", "backend", "save_npy", "limits", "raw")
        kept |= {name: getattr(self, name) for name in names}
        kept |= {"input": self.paths, "weights": str(self.weights)}
        kept["confirm"] = str(self.confirm) if self.confirm else None
        if settings.ignore:
            kept["ignored"] = hashlib.sha256(Path(settings.ignore).read_bytes()).hexdigest()
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
    order = {str(source.path): n for n, source in enumerate(sources)}
    if request.live and processes.world > 1:
        text = "--watch and --camera: expected one process"
        raise DataError(f"{text}, found {processes.world}; leave torchrun out")
    if first:
        inputs = [*request.paths, *(source.path for source in sources)]
        check_ours(folder, inputs, request.recursive, request.resume)
        check_sequences(request, sources)
    locked = lock(folder, "another detect.py is at work") if first else contextlib.nullcontext()
    with locked, disk_errors_of(folder):
        if first:
            identity = request.identity(detector.settings)
            prepare(folder, identity, sources, request.resume, request.overwrite)
        processes.barrier()
        done = list(records.read_records(folder, order)) if request.resume else []
        processes.barrier()  # nobody writes while another still reads
        with Interruption(None) as interruption, records.open_records(folder, processes.rank) as file:
            worker = Worker(request, detector, order, done, processes, file)
            detect_in(worker, sources, interruption)
        return finish(worker, sources, interruption, processes)


def check_sequences(request: Request, sources: list[Source]) -> None:
    """Names the sequences where they matter; refuses --every and --confirm where there are none."""
    if request.every > 1 and sources and all(source.kind == "image" for source in sources):
        text = "found pictures alone, expected videos, stacks or TIFF pages; leave it out"
        raise DataError(f"--every {request.every}: {text}")
    rule = request.confirm
    if request.live or (request.limits == "each" and not rule):
        return
    counts: Counter[str] = Counter()
    for source in sources:
        counts[source.sequence] += -(-source.count // request.every)
    print("sequences:", some([f"{name} ({count or '?'} frames)" for name, count in counts.items()]))
    videos = any(source.kind == "video" for source in sources)
    if rule and not videos and (most := max(counts.values())) < rule.seen:
        raise DataError(
            f"--confirm: found {most} frames in the longest sequence, expected {rule.seen} or more: a "
            "folder in the order of its names, a video, a stack"
        )


# --- the loop -----------------------------------------------------------------------------------------


def detect_in(worker: "Worker", sources: list[Source], interruption: Interruption) -> None:
    """The loop over frames."""
    request = worker.request
    frames = read_frames(sources, worker.wants, request.workers)
    frames = watched(worker, interruption) if request.watch else frames
    frames = filmed(worker, interruption) if request.camera else frames
    total = sum(-(-source.count // request.every) for source in sources) - len(worker.done)
    bar = progress(frames, request.folder.name, max(total, 0) // worker.world or None, "frame")
    for batch in batches(bar, 1 if request.live else request.batch_size):
        if batch[0].problem:
            worker.bad(batch[0])
        else:
            worker.detect(batch)
        if interruption.check() or (batch[0].problem and request.strict):
            break
    bar.close()


def watched(worker: "Worker", interruption: Interruption) -> Iterator[Frame]:
    """The frames of files that appear in the watched folder, until the interruption, or until the
    folder is gone. A file that changes is looked at again: for frames that were bad, or that were not
    there yet."""
    folder = worker.request.folder
    try:
        for source in arriving(Path(worker.request.paths[0])):
            if interruption.check():
                return
            if source is None:
                continue
            count, file = worker.count, str(source.path)
            yield from read_frames([source], worker.wants)
            if worker.count > count and source.kind == "video":
                own = [entry for entry in records.read_records(folder) if entry["file"] == file]
                records.write_videos(folder, own)
            elif worker.count == count and worker.done.get((file, 0), source.state) != source.state:
                text = "was replaced; frames that are done are not done again: give each a new name"
                say(f"note: {source.path} {text}")
    except DataError as error:
        worker.problems[str(folder), 0] = str(error)
        say(f"error: {error}; when it is there again, type the same command with --resume")


def filmed(worker: "Worker", interruption: Interruption) -> Iterator[Frame]:
    """The newest frames of the camera, until the interruption, or until it gives no more."""
    camera = worker.request.camera
    try:
        for frame in camera.frames():
            if interruption.check():
                break
            if frame is not None and worker.wants(frame.source, frame.index):
                yield frame
    finally:
        camera.close()
        say(camera.note())
    if camera.problem:
        worker.problems[worker.request.paths[0], camera.count] = camera.problem
        say(f"error: --camera {worker.request.paths[0]}: {camera.problem}")


def batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Neighbours of one shape and depth together; a frame with a problem alone."""

    def kind(frame: Frame) -> tuple | None:
        return None if frame.pixels is None else (frame.pixels.shape, frame.pixels.dtype)

    for alike, group in itertools.groupby(frames, kind):
        while batch := list(itertools.islice(group, size if alike else 1)):
            yield batch


class Worker:
    """One process: which frames are its own, and what becomes of them.

    Args:
        order: the places of all files.
        done: the records of frames that are done, in order.
        file: of this process's records.
    """

    def __init__(
        self,
        request: Request,
        detector: Detector,
        order: dict[str, int],
        done: list[dict],
        processes: Processes,
        file: BinaryIO,
    ):
        self.request, self.detector, self.file = request, detector, file
        self.rank, self.world = processes.rank, processes.world
        self.extras = request.extras(detector.settings)
        self.done: dict[records.Key, tuple | None] = {}  # the state of the file when it was done
        for entry in done:
            self.done[entry["file"], entry["index"]] = tuple(entry.get("state") or ()) or None
        self.names = Names(done)
        self.order, self.places = order, {entry["file"]: entry["position"] for entry in done} | order
        self.next = itertools.count(max(self.places.values(), default=-1) + 1)
        self.limits = SequenceLimits(request.limits, detector, done, self.places)
        self.turns: dict[object, int] = {}  # of the processes, by sequence or frame
        self.problems: dict[records.Key, str] = {}  # of frames that could not be read
        self.doubts: list[tuple[str, str]] = []  # names of frames, and keys of grey.DOUBTS
        self.count, self.began, self.seconds = 0, time.perf_counter(), 0.0

    def wants(self, source: Source, index: int) -> bool:
        """Whether a frame is this process's to do: they take turns, frame by frame, or sequence by
        sequence where the limits of a frame depend on others."""
        key = str(source.path), index
        self.names.ending(source)  # all processes name all files, in the same order
        if key in self.done or index % (1 if source.kind == "image" else self.request.every):
            return False
        if self.world == 1:
            return True
        turn = key if self.request.limits == "each" else source.sequence
        return self.turns.setdefault(turn, len(self.turns)) % self.world == self.rank

    def bad(self, frame: Frame) -> None:
        self.problems[frame.key] = frame.problem
        later = "; it is tried again when it changes" if self.request.watch else ""
        say(f"error: {frame.problem}{later}")

    def detect(self, batch: list[Frame]) -> None:
        names = [self.names.of(frame.source, frame.index) for frame in batch]
        limits, own = zip(*map(self.limits_of, batch))
        try:
            maps = self.detector.maps([frame.pixels for frame in batch], limits)
        except NotFiniteError as error:
            raise NotFiniteError(names[error.index], error.index) from None
        for frame, name, pair, is_own, found in zip(batch, names, limits, own, maps):
            self.write(frame, name, pair, found)
            self.look(frame, name, pair, is_own)

    def limits_of(self, frame: Frame) -> tuple[Limits, bool]:
        """A frame's grey limits, and whether its own values give them."""
        file = str(frame.source.path)
        if file not in self.places:
            self.places[file] = next(self.next)
        if self.request.limits == "each":
            return self.detector.limits_of(frame.pixels), not self.detector.settings.limits
        return self.limits.of(frame, (self.places[file], frame.index))

    def write(self, frame: Frame, name: str, limits: Limits, maps: Maps) -> None:
        """Writes the pictures of a frame, and its record. Where targets have to be confirmed, the
        overlays are drawn at the end."""
        request, source = self.request, frame.source
        targets = self.detector.targets(maps, frame.pixels)
        entry = records.record(frame, name, self.places[str(source.path)], limits, targets)
        if source.kind == "video":
            entry["video"] = source.path.stem + self.names.ending(source)
            entry["fps"] = source.fps / request.every
        probability = highest(maps)
        write_png(request.folder / "maps" / f"{name}.png", quantise(probability))
        if not request.confirm:
            records.write_overlay(request.folder, frame.pixels, entry, self.extras)
        if request.save_npy:
            with atomic_write(request.folder / "maps" / f"{name}.npy") as file:
                np.save(file, probability)
        self.file.write(json.dumps(entry).encode() + b"\n")
        self.count, self.seconds = self.count + 1, time.perf_counter() - self.began
        if request.live:
            self.done[frame.key] = source.state
            self.problems.pop(frame.key, None)  # of a file that was watched while it was copied
            tqdm.write(f"{name}: {len(targets)} targets")

    def look(self, frame: Frame, name: str, limits: Limits, own: bool) -> None:
        """Says how the grey values of a type (and a sequence, where it has limits of its own) are read,
        and keeps what makes one doubt them."""
        settings, mode, dtype = self.detector.settings, self.request.limits, frame.pixels.dtype
        chosen = settings.limits or tuple(settings.percentiles) != PERCENTILES or mode != "each"
        for polarity, pair in limits.items():
            keys = doubts(frame.pixels, pair, not own, polarity == "dark")
            self.doubts += [(name, key) for key in keys]
            kind = f"{polarity} {dtype} {'' if mode == 'each' else frame.source.sequence}"
            if pair:
                text = f"{pair[0]:g} to {pair[1]:g} become 0 to 255 ({polarity} targets)"
                note(kind, f"{name}: {dtype}, {text}")
            elif chosen:
                text = "8 bits are used as they are; --range, --percentiles and --limits change nothing"
                note(kind, f"{name}: {text}")


def say(text: str) -> None:
    tqdm.write(text, sys.stderr)


# --- the end ------------------------------------------------------------------------------------------


def finish(
    worker: Worker, sources: list[Source], interruption: Interruption, processes: Processes
) -> int:
    """Merges what the processes did, and says what to do next; the exit code."""
    request, folder = worker.request, worker.request.folder
    problems = processes.gather(list(worker.problems.values()))
    doubted = processes.gather(worker.doubts)
    counts, seconds = zip(*processes.gather([(worker.count, worker.seconds)]))
    stopped = processes.any(bool(interruption.reason)) and not request.live
    if processes.rank == 0:
        frames, targets = write_all(worker, sources)
        tables = f"{folder}/detections.csv, detections.json, overlays/"
        print(f"{frames} frames, {targets} targets: {tables}")
        if sum(counts) and not request.live:
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
    if problems:
        return 2 if problems and request.strict else 1
    return interruption.code if stopped else 0


def write_all(worker: Worker, sources: list[Source]) -> tuple[int, int]:
    """Writes the tables, the videos, and the overlays where targets have to be confirmed; returns the
    numbers of frames and targets."""
    request, folder, rule = worker.request, worker.request.folder, worker.request.confirm
    read = partial(records.read_records, folder, worker.order)
    hot = records.hot_pixels(read())
    again = request.resume and any("hot" in entry for entry in read())  # of fewer frames
    for sequence, places in hot.items():
        text = "single pixels that stay in place were left out as hot pixels (y, x)"
        say(f"note: {sequence}: {len(places)} {text}: {some([str(place) for place in places])}")
    if hot or rule or again:
        entries = list(read())
        records.set_aside(entries, hot)
        if rule:
            tracks = records.confirm(entries, rule)
            text = f"seen in {rule.seen} of {rule.of} frames within {rule.distance:g} px"
            print(f"{tracks} tracks, {text}")
        records.replace_records(folder, entries)
        draw_overlays(worker, sources, entries)
    if request.format == "mot":
        records.write_mot(folder, read())
    counts = records.write_tables(folder, read(), worker.extras)
    records.write_videos(folder, records.read_records(folder))
    return counts


def draw_overlays(worker: Worker, sources: list[Source], entries: list[dict]) -> None:
    """Writes the overlays of all frames that are done, which are read once more for it."""
    folder, waiting = worker.request.folder, {(e["file"], e["index"]): e for e in entries}
    frames = read_frames(sources, lambda s, k: (str(s.path), k) in waiting, worker.request.workers)
    for frame in progress(frames, f"{folder.name} overlays", len(entries), unit="frame"):
        if frame.problem:
            say(f"error: {frame.problem}")
        else:
            records.write_overlay(folder, frame.pixels, waiting[frame.key], worker.extras)
