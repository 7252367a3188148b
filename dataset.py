"""Images, masks and label maps of a data set, read and checked.

`find_dataset` (ismallnet/datasets/find.py) finds what is on disk, `Frames` reads a list of it,
`TrainingSet` (ismallnet/training/augmentation.py) cuts training samples from it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ismallnet.cli import DataError, launch, progress
from ismallnet.datasets.checks import complaint, offsets, target_components
from ismallnet.datasets.masks import TARGET, loaded_mask, read_mask
from ismallnet.datasets.sample import DatasetFolder, Item, Sample
from ismallnet.images.grey import GreyFacts, GreyRange, darker
from ismallnet.labels import check_maps, checksum, read_maps
from ismallnet.parallel import memory_limit, read_ahead

GREY = GreyRange()


class FrameFacts(NamedTuple):
    """What is known of a frame once it was read.

    Args:
        shape: (H, W).
        centres: of its targets, (n, 2) y, x.
        grey: facts of its grey values; None for 8 bits without any.
        offsets: of its masks from their targets' light, (n, 2) y, x in px.
        dark: whether its targets are darker than around them; None without targets.
        size, digest: of the image file: bytes, SHA-256.
    """

    shape: tuple[int, int]
    centres: np.ndarray
    grey: GreyFacts | None
    offsets: np.ndarray
    dark: bool | None
    size: int
    digest: str


class Frames:
    """The frames of a list, each read and checked once; kept in memory when they fit.

    `frames[i]` is an `Item`, with interior and boundary after `add_maps`; `frames.known[i]` its facts.

    Args:
        data, split: the data set and "train" or "test".
        threshold: mask values from here up are target.
        grey: which values become 0 and 255 in images of more than 8 bits; what they are is printed.
        memory: bytes that may be kept; an eighth of the machine's by default.

    Raises:
        DataError: names every entry and file of the list that cannot be used.
    """

    def __init__(
        self,
        data: DatasetFolder,
        split: str,
        threshold: int = TARGET,
        grey: GreyRange = GREY,
        memory: float | None = None,
    ):
        self.samples = data.samples(split)
        self.threshold, self.grey = threshold, grey
        self.remake = data.command("utils")  # the label maps
        self.maps: Path | None = None
        self.map_checksums: dict[str, int] = {}  # of the maps that are not kept in memory, by name
        self.cache: list[Item] | None = []
        self.known: list[FrameFacts] = []
        if memory is None:
            memory = memory_limit() / 8 / launch().local_world  # the machine's processes share it
        problems = list(data.problems[split])
        read = read_ahead(self._load, self.samples)
        for result in progress(read, f"{data.name} {split}", len(self.samples)):
            if isinstance(result, DataError):
                problems.append(str(result))
                continue
            item, known = result
            self.known.append(known)
            memory -= item.image.nbytes + item.mask.nbytes
            if memory < 0:
                self.cache = None
            elif self.cache is not None:
                self.cache.append(item)
        if problems:
            raise DataError(complaint(data, split, problems))
        self.shapes = [facts.shape for facts in self.known]
        self.centres = [facts.centres for facts in self.known]
        self.greys = [facts.grey for facts in self.known if facts.grey]
        self._say_greys(f"{data.name} {split}")

    def _say_greys(self, label: str) -> None:
        """Which grey values become 0 and 255, and whether targets are darker than around them."""
        for line in self.grey.report(label, self.greys, len(self.samples)):
            print(line)
        dark = [frame.dark for frame in self.known if frame.dark is not None]
        if 2 * sum(dark) > len(dark):
            other = "bright" if self.grey.dark else "dark"
            print(
                f"note: {label}: the targets of {sum(dark)} of {len(dark)} images are darker than "
                "their surroundings, as they are read; networks look for bright ones: --polarity "
                f"{other} inverts the images"
            )

    def _load(self, sample: Sample) -> tuple[Item, FrameFacts] | DataError:
        """A frame, whose image is opened here, once, and whose mask `find_dataset` has read, and what
        is known of it; or why it cannot be used."""
        try:
            raw = sample.image.read_bytes()
            image, grey = self.grey.read(sample.image, sample.name, raw=raw)
            mask = read_mask(sample, image.shape[:2], self.threshold)
        except DataError as error:
            return error
        except OSError as error:
            return DataError(f"{error.filename or sample.image}: {error.strerror}")
        _, _, centres = target_components(mask)
        moved = offsets(image.mean(axis=-1, dtype=np.float32), mask)
        file = len(raw), hashlib.sha256(raw).hexdigest()
        known = FrameFacts(mask.shape, centres, grey, moved, darker(image, mask), *file)
        return Item(image, mask), known

    def read(self, sample: Sample) -> Item:
        """A frame as it is on disk, for lists that do not fit in memory."""
        image, _ = self.grey.read(sample.image, sample.name, look=False)
        shape = image.shape[:2]
        maps = read_maps(self.maps, sample, shape, self.remake) if self.maps else []
        if maps and checksum(maps) != self.map_checksums[sample.name]:
            raise DataError(
                f"{self.maps}: the label maps of {sample.name} are not those that this run began with; "
                f"make them again as they were ({self.remake}), then continue with --resume. Another "
                "method's maps go elsewhere: --maps-root DIR"
            )
        return Item(image, read_mask(sample, shape, self.threshold), *maps)

    def add_maps(self, folder: Path, method: str | None = None) -> None:
        """Adds the label maps that `utils.py` wrote to a folder, for training. Those that do not fit in
        memory are read again for each sample, and must stay what they are now.

        Args:
            method: by which they were made.

        Raises:
            DataError: one is missing or damaged, or they are another method's or threshold's.
        """
        if method:
            check_maps(folder, method, self.threshold, self.remake)
        self.maps = folder
        for i, (sample, frame) in enumerate(zip(self.samples, self.known)):
            maps = read_maps(folder, sample, frame.shape, self.remake)
            if self.cache is None:
                self.map_checksums[sample.name] = checksum(maps)
            else:
                self.cache[i] = Item(self.cache[i].image, self.cache[i].mask, *maps)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> Item:
        return self.read(self.samples[i]) if self.cache is None else self.cache[i]


def read_lists(
    data: list[DatasetFolder], threshold: int, grey: GreyRange
) -> tuple[list[Frames], list[Frames]]:
    """The frames of all training and all test lists; one error names everything unusable in them."""
    lists, problems = [], []
    for kind in ("train", "test"):
        for folder in data:
            try:
                lists.append(Frames(folder, kind, threshold, grey))
            except DataError as error:
                problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return lists[: len(data)], lists[len(data) :]


def facts_of(lists: list[Frames]) -> Iterator[tuple[Sample, FrameFacts]]:
    """The samples of lists, each with what is known of its frame."""
    return ((s, facts) for frames in lists for s, facts in zip(frames.samples, frames.known))


def fingerprint(lists: list[Frames]) -> str:
    """A digest of the images and masks of lists: their names, and their files' sizes and contents."""
    whole, empty = hashlib.sha256(), hashlib.sha256().hexdigest()
    for sample, frame in facts_of(lists):
        mask = loaded_mask(sample)
        of_mask = f"{mask.size} {mask.digest}" if mask else f"0 {empty}"
        line = f"{sample.name} {frame.size} {frame.digest} {of_mask}\n"
        whole.update(line.encode(errors="surrogateescape"))
    return whole.hexdigest()


def mean_and_std(lists: list[Frames]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation over all pixels, in 0-255 units."""
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for frames in lists:
        for i in range(len(frames)):
            pixels = frames[i].image.reshape(-1, 3).astype(np.float64)
            count, total = count + len(pixels), total + pixels.sum(0)
            squares += np.square(pixels).sum(0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return tuple(mean), tuple(np.maximum(std, 1.0))  # a constant set keeps its units
