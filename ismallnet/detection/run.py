"""The run behind `detect.py`, a loop: source -> frame -> grey limits -> network -> targets -> a line
of the records, pictures; at the end the tables of all lines. And the folder that it writes to: no file
that a run of detect.py did not write is deleted or replaced."""

import contextlib
import hashlib
import itertools
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from ismallnet.cli import DataError, counted, note, progress, some
from ismallnet.detection import records
from ismallnet.detection.detector import DetectionSettings, Detector
from ismallnet.detection.live import Camera, arriving
from ismallnet.detection.sources import Frame, Source, read_frames
from ismallnet.detection.tracks import Confirmation, by_sequence, settle
from ismallnet.distributed import Interruption, Processes
from ismallnet.evaluation.metrics import quantise
from ismallnet.files import disk_errors_of, lock, read_json, sweep, write_json, write_png
from ismallnet.images.grey import Limits, doubts, said_of
from ismallnet.inference.predict import NotFiniteError

ABOUT = "about.json"  # the settings of the run
ALONE = "expected a folder for the results alone; nothing was written. Type another --name or --results"


@dataclass(frozen=True)
class Request:
    """What a call of detect.py asks for, beside the detector's settings; the flags' names.

    Args:
        paths: as they were typed; of a camera its address, with `watch` one folder, whose files are
            read as they appear.
        folder: of the results.
    """

    paths: list[str]
    folder: Path
    weights: Path
    backend: str = "torch"
    watch: bool = False
    camera: Camera | None = None
    format: str | None = None
    every: int = 1
    resume: bool = False
    batch_size: int = 1
    confirm: Confirmation | None = None

    @property
    def live(self) -> bool:
        """Whether frames come until the run is stopped."""
        return self.watch or self.camera is not None

    def identity(self, settings: DetectionSettings) -> dict:
        """All that the results depend on, as about.json keeps it."""
        kept = asdict(settings)
        kept["range"] = kept.pop("limits")
        kept |= {"every": self.every, "backend": self.backend, "input": self.paths}
        kept["weights"], kept["confirm"] = str(self.weights), self.confirm and str(self.confirm)
        if settings.ignore:
            kept["ignored"] = hashlib.sha256(Path(settings.ignore).read_bytes()).hexdigest()
        kept["sha256"] = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        return json.loads(json.dumps(kept))  # tuples become lists, as they are read back


def run_detection(
    request: Request, sources: list[Source], detector: Detector, processes: Processes
) -> int:
    """Detects in all frames of the sources, of the watched folder, or of the camera.

    Returns:
        The exit code: 0; 1 where a frame could not be read; that of the signal which interrupted it.
    """
    folder, first = request.folder, processes.rank == 0
    if first:
        check_ours(folder, request.resume)
        check_sequences(request, sources)
    locked = lock(folder, "another detect.py is at work") if first else contextlib.nullcontext()
    with locked, disk_errors_of(folder):
        if first:
            identity = request.identity(detector.settings)
            prepare(folder, identity, sources, request.resume)
        processes.barrier()
        files = [source.file for source in sources]
        done = records.ordered(records.read_records(folder), files) if request.resume else []
        processes.barrier()  # nobody writes while another still reads
        worker = Worker(request, detector, sources, done, processes)
        with Interruption(None) as interruption, records.open_records(folder, processes.rank) as file:
            frames = worker.frames(interruption)
            for batch in alike_neighbours(frames, 1 if request.live else request.batch_size):
                worker.detect(batch, file)
                if interruption.check():
                    break
        return finish(worker, interruption)


def check_sequences(request: Request, sources: list[Source]) -> None:
    """Refuses --every where there are no sequences; names those of --confirm."""
    if request.every > 1 and sources and all(source.kind == "image" for source in sources):
        text = "found pictures alone, expected videos, stacks or TIFF pages; leave it out"
        raise DataError(f"--every {request.every}: {text}")
    if request.confirm:
        counts: Counter[str] = Counter()
        for source in sources:
            counts[source.sequence] += -(-source.count // request.every)
        named = [f"{name} ({count or '?'} frames)" for name, count in counts.items()]
        print("sequences:", some(named))


def alike_neighbours(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Neighbours of one shape and depth together; a frame with a problem alone."""

    def kind(frame: Frame) -> tuple | None:
        return None if frame.pixels is None else (frame.pixels.shape, frame.pixels.dtype)

    for alike, group in itertools.groupby(frames, kind):
        while batch := list(itertools.islice(group, size if alike else 1)):
            yield batch


class Worker:
    """One process: which frames are its own, what they are called, and how they went.

    Args:
        sources: those that are named, in order.
        done: the records of frames that are done, in order.
    """

    def __init__(
        self,
        request: Request,
        detector: Detector,
        sources: list[Source],
        done: list[dict],
        processes: Processes,
    ):
        self.request, self.detector, self.processes = request, detector, processes
        self.done = {records.key_of(entry) for entry in done}
        self.sources, self.names = sources, records.Names(done, sources)
        self.turns = itertools.count()  # of the processes, frame by frame
        self.problems: dict[tuple[str, int], str] = {}  # of frames that could not be read
        self.doubts: list[tuple[str, str]] = []  # names of frames, and keys of grey.DOUBTS

    def frames(self, interruption: Interruption) -> Iterator[Frame]:
        """The frames that are this process's to do, with a progress bar."""
        request, sources, total = self.request, self.sources, 0
        if request.camera:
            frames = request.camera.frames(self.wants, interruption.check)
        elif request.watch:
            files = arriving(Path(request.paths[0]), interruption.check)
            frames = (frame for file in files for frame in read_frames([file], self.wants))
        else:
            frames = read_frames(sources, self.wants)
            total = sum(-(-source.count // request.every) for source in sources) - len(self.done)
        total = max(total, 0) // self.processes.world
        return progress(frames, request.folder.name, total or None, "frame")

    def wants(self, source: Source, index: int) -> bool:
        """Whether a frame is this process's to do. Several processes are asked for the same frames in
        the same order, and take turns."""
        every = 1 if source.kind == "image" else self.request.every
        if (source.file, index) in self.done or index % every:
            return False
        return next(self.turns) % self.processes.world == self.processes.rank

    def detect(self, batch: list[Frame], file: BinaryIO) -> None:
        """The way of frames of one shape and type: their grey limits, the network's maps, the targets
        in these, and what is written of them; `file` is that of this process's records."""
        if batch[0].problem:
            self.problems[batch[0].key] = batch[0].problem
            tqdm.write(f"error: {batch[0].problem}", sys.stderr)
            return
        names = [self.names.of(frame.source, frame.index) for frame in batch]
        limits = [self.detector.limits_of(frame.pixels) for frame in batch]
        try:
            maps = self.detector.maps([frame.pixels for frame in batch], limits)
        except NotFiniteError as error:
            raise NotFiniteError(names[error.index], error.index) from None
        for frame, name, own_limits, probability in zip(batch, names, limits, maps):
            targets = self.detector.targets(probability, frame.pixels)
            entry = records.record(frame, name, own_limits, targets) | self.of_video(frame.source)
            write_png(self.request.folder / "maps" / f"{name}.png", quantise(probability))
            records.write_overlay(self.request.folder, frame.pixels, entry)
            file.write(json.dumps(entry).encode() + b"\n")
            self.look(frame, name, own_limits)
            if self.request.live:
                self.done.add(frame.key)
                self.problems.pop(frame.key, None)  # of a file that was watched while it was copied
                tqdm.write(f"{name}: {counted(len(targets), 'target')}")

    def of_video(self, source: Source) -> dict:
        """What is written of a video's frame beside the usual: the annotated video's name and rate."""
        if source.kind != "video":
            return {}
        name = source.path.stem + self.names.ending(source)
        return {"video": name, "fps": source.fps / self.request.every}

    def look(self, frame: Frame, name: str, limits: Limits | None) -> None:
        """Says how the grey values of a type are read, and keeps what makes one doubt them."""
        s, dtype = self.detector.settings, frame.pixels.dtype
        keys = doubts(frame.pixels, limits, s.limits is not None, s.polarity == "dark")
        self.doubts += [(name, key) for key in keys]
        text = f"{limits[0]:g} to {limits[1]:g} become 0 to 255" if limits else "used as it is"
        note(f"grey values of {dtype}", f"{name}: {dtype}, {text} ({s.polarity} targets)")


# --- the folder of the results ------------------------------------------------------------------------


def check_ours(folder: Path, resume: bool) -> None:
    """Refuses a folder that holds files and is no folder of detect.py's, or no run to resume."""
    if "input" in read_json(folder / ABOUT):
        return
    if folder.is_dir() and (held := sorted(p.name for p in folder.iterdir() if p.name != ".lock")):
        raise DataError(f"{folder}: found files that detect.py did not write: {some(held, 3)}; {ALONE}")
    if resume:
        raise DataError(f"{folder}: no run to resume there; leave --resume out")


def prepare(folder: Path, identity: dict, sources: list[Source], resume: bool) -> None:
    """Makes the results' folder, or checks that it holds what is to be resumed; `identity` is all that
    the results depend on, which about.json keeps."""
    before = read_json(folder / ABOUT)
    if resume:
        check_same(folder, before, identity, sources)
    elif any(path.stat().st_size for path in folder.glob("records-*.jsonl")):
        raise DataError(
            f"{folder}: holds results of {' '.join(before['input'])} already. Type --resume to "
            f"continue that run. {records.AGAIN}"
        )
    sweep(folder, folder / "maps", folder / "overlays")
    for path in folder.glob(".*.tmp.mp4"):  # of a run that was killed
        path.unlink()
    write_json(folder / ABOUT, before | identity if resume else identity)


def check_same(folder: Path, before: dict, identity: dict, sources: list[Source]) -> None:
    """Refuses to resume a run with other settings, or of files that have changed."""
    free = {"weights", "confirm"} if identity["confirm"] else {"weights"}  # confirmed anew at the end
    for key in (before.keys() | identity.keys()) - free:
        if before.get(key) != identity.get(key):
            text = f"this run has {key} {before.get(key)}, found {identity.get(key)}"
            raise DataError(f"{folder}: {text}. Type the same to resume it. {records.AGAIN}")
    now = {source.file: source.state for source in sources if source.state}
    then = {entry["file"]: tuple(entry.get("state") or ()) for entry in records.read_records(folder)}
    changed = [file for file, state in then.items() if state and now.get(file, state) != state]
    if changed:
        text = "found another size or time than when frames of it were done"
        raise DataError(f"{some(changed)}: {text}, expected that of {folder}'s run. {records.AGAIN}")


# --- the end ------------------------------------------------------------------------------------------


def finish(worker: Worker, interruption: Interruption) -> int:
    """Merges what the processes did, and says what to do next; the exit code."""
    request, folder, processes = worker.request, worker.request.folder, worker.processes
    problems = processes.gather(list(worker.problems.values()))
    doubted = processes.gather(worker.doubts)
    stopped = processes.any(bool(interruption.reason)) and not request.live
    if processes.rank == 0:
        files = [source.file for source in worker.sources]
        entries = records.ordered(records.read_records(folder), files)
        targets = write_all(worker, entries)
        tables = f"{folder}/detections.csv, overlays/"
        print(f"{counted(len(entries), 'frame')}, {counted(targets, 'target')}: {tables}")
        for line in said_of(doubted, "frame"):
            print(f"note: {line}", file=sys.stderr)
        if problems:
            print(f"error: {counted(len(problems), 'frame')} could not be read", file=sys.stderr)
        if entries:
            where = shlex.join(["--results", str(folder.parent), "--name", folder.name])
            print(f"for a report of them type: python visualization.py {where}")
        if stopped:
            print(f"stopped by {interruption.reason}; type the same command with --resume to continue")
    return 1 if problems else interruption.code if stopped else 0


def write_all(worker: Worker, entries: list[dict]) -> int:
    """Settles what is a target in its sequence, and writes all that is written of all frames together;
    returns how many targets there are."""
    request, folder = worker.request, worker.request.folder
    before, sequences = [entry["targets"] for entry in entries], by_sequence(entries)
    settle(sequences, request.confirm)
    records.replace_records(folder, entries)
    changed = [entry for entry, targets in zip(entries, before) if entry["targets"] != targets]
    draw_again(worker, {records.key_of(entry): entry for entry in changed})
    if request.format == "mot":
        records.write_mot(folder, sequences)
    for of_sequence in sequences.values():
        if name := of_sequence[0].get("video"):
            records.write_video(folder, name, of_sequence)
    dark = worker.detector.settings.polarity == "dark"
    extras = [name for name, asked in (("polarity", dark), ("track", request.confirm)) if asked]
    return records.write_tables(folder, entries, extras)


def draw_again(worker: Worker, changed: dict[tuple[str, int], dict]) -> None:
    """Draws the overlays of frames whose targets changed; these are read once more for it."""
    folder, files = worker.request.folder, {file for file, _ in changed}
    sources = [source for source in worker.sources if source.file in files]
    if not sources:
        return
    frames = read_frames(sources, lambda s, k: (s.file, k) in changed)
    for frame in progress(frames, f"{folder.name} overlays", len(changed), unit="frame"):
        if frame.problem:
            tqdm.write(f"error: {frame.problem}", sys.stderr)
        else:
            records.write_overlay(folder, frame.pixels, changed[frame.key])
