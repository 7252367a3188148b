"""What a call of detect.py asks for, its results' folder, and what is said of its frames."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError, note
from ismallnet.detection.detector import DetectionSettings
from ismallnet.detection.folder import (
    check_inputs_apart,
    check_ours,
    check_same,
    check_unchanged,
    clear,
)
from ismallnet.detection.jobs import Job, Work
from ismallnet.detection.sources import Source
from ismallnet.detection.tracks import Confirmation
from ismallnet.files import read_json, sweep, write_json
from ismallnet.images.grey import PERCENTILES


@dataclasses.dataclass(frozen=True)
class Request:
    """What a call of detect.py asks for, beside the detector's settings.

    Args:
        paths: as they were typed; with `watch` one folder, whose files are taken as they appear.
        folder: of the results.
        recursive: sub-folders of folders are read too.
        weights, backend: of the network; a resumed run must have the same.
        every: of sources with several frames every Nth.
        save_npy: float maps as well.
        resume, overwrite: what to do with results that are there already; without either they are
            an error.
        strict: stop at the first frame that cannot be read.
        batch_size: frames of one size run together.
        workers: threads that read image files.
        limits: one of contrast.MODES.
        confirm: which targets count in a sequence; all by default.
        raw: how files without a header are read, as it was typed.
    """

    paths: list[str]
    folder: Path
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
    limits: str = "each"
    confirm: Confirmation | None = None
    raw: str | None = None

    def identity(self, settings: DetectionSettings) -> dict:
        """All that the results depend on, as about.json keeps it."""
        kept = dataclasses.asdict(settings)
        kept["range"] = kept.pop("limits")
        kept |= {"every": self.every, "backend": self.backend, "save_npy": self.save_npy}
        kept |= {"input": self.paths, "weights": str(self.weights)}
        kept |= {"limits": self.limits, "raw": self.raw}
        kept["confirm"] = str(self.confirm) if self.confirm else None
        kept["sha256"] = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        return json.loads(json.dumps(kept))  # tuples become lists, as they are read back

    def extras(self, settings: DetectionSettings) -> tuple[str, ...]:
        """What is written of targets beside the usual."""
        asked = {"polarity": settings.polarity != "bright", "track": self.confirm is not None}
        return tuple(name for name, wanted in asked.items() if wanted)


def prepare(request: Request, sources: list[Source], identity: dict) -> None:
    """Makes the results' folder, or checks that it is this request's to continue.

    Raises:
        DataError: it holds other results, or files of somebody else; nothing in it was changed.
    """
    folder, about = request.folder, request.folder / "about.json"
    check_inputs_apart(folder, request.paths, sources, request.recursive)
    check_ours(folder)
    before = read_json(about)
    if request.resume:
        check_same(folder, before, identity)
        check_unchanged(folder, sources)
        sweep(folder, folder / "maps", folder / "overlays")
        write_json(about, before | {"confirm": identity["confirm"]})
        return
    if any(path.stat().st_size for path in folder.glob("records-*.jsonl")):
        if not request.overwrite:
            of = f" of {' '.join(before['input'])}" if before else ""
            raise DataError(
                f"{folder}: holds results{of} already. Type --resume to continue that run, "
                "--overwrite to delete them, or another --name"
            )
        clear(folder)
    sweep(folder, folder / "maps", folder / "overlays")
    write_json(about, identity)


def describe_sequences(request: Request, jobs: list[Job], world: int) -> None:
    """Names the sequences where they matter.

    Raises:
        DataError: none has enough frames to confirm a target.
    """
    pictures = sum(job.source.kind == "image" for job in jobs)
    if request.every > 1 and pictures:
        note(
            "every",
            f"--every {request.every} counts the frames of videos, TIFF pages and stacks; all "
            f"{pictures} pictures are taken",
        )
    if request.watch or not (request.confirm or request.limits != "each"):
        return
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.sequence] = counts.get(job.sequence, 0) + 1
    some = [f"{name} ({count} frames)" for name, count in list(counts.items())[:5]]
    print(f"sequences: {', '.join(some)}{f' … ({len(counts)})' if len(counts) > 5 else ''}")
    least = request.confirm.seen if request.confirm else 1
    if max(counts.values(), default=least) < least:
        raise DataError(
            f"--confirm {least}:{request.confirm.of}: found {max(counts.values())} frames in the "
            f"longest sequence, expected {least} or more: a folder in the order of its names, a video, "
            "a stack"
        )
    if request.limits != "each" and len(counts) < world:
        note(
            "idle",
            f"--limits {request.limits}: a sequence is done by one process; {world - len(counts)} of "
            f"{world} have nothing to do",
        )


def say(
    bar, request: Request, settings: DetectionSettings, work: Work, entry: dict, noted: set
) -> None:
    """How a frame's grey values were read, once a depth (and sequence, where it has limits of its own);
    what was found while watching."""
    dtype = work.frame.pixels.dtype
    kind = (dtype, work.job.sequence if request.limits != "each" else None)
    if kind not in noted:
        noted.add(kind)
        for (low, high), end in zip(filter(None, work.limits.values()), ("", " (dark targets)")):
            become = f"{low:g} to {high:g} become 0 to 255"
            bar.write(f"{work.job.name}: {dtype}, {become}{end}")
    chosen = settings.limits or tuple(settings.percentiles) != PERCENTILES or request.limits != "each"
    if dtype == np.uint8 and chosen:
        note(
            "8 bits",
            f"{work.job.name}: frames of 8 bits are used as they are; --range, --percentiles and "
            "--limits change nothing in them",
        )
    if request.watch:
        bar.write(f"{work.job.name}: {len(entry['targets'])} targets")
