"""Images, masks and label maps of a data set, read and checked.

`find_dataset` (layouts.py) finds what is on disk, `Frames` reads a list of it, `TrainingSet`
(augmentation.py) cuts training samples from it.
"""

import hashlib
from pathlib import Path

import cv2
import numpy as np

from ismallnet.cli import DataError, launch, progress, some
from ismallnet.datasets.checks import complaint, offsets
from ismallnet.datasets.masks import TARGET, is_resized, nearly, read_mask, resized_note
from ismallnet.datasets.sample import DatasetFolder, Item, Sample
from ismallnet.images.grey import GreyFacts, GreyRange, darker
from ismallnet.images.picture import image_shape
from ismallnet.labels import checksum, read_maps
from ismallnet.parallel import memory_limit, read_ahead

GREY = GreyRange()


class Frames:
    """The frames of a list, each read and checked once; kept in memory when they fit.

    `frames[i]` is an `Item`, with interior and boundary after `add_maps`.

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
        memory = memory_budget() if memory is None else memory
        problems = list(data.problems[split])
        self.cache: list[Item] | None = []
        self.shapes: list[tuple[int, int]] = []  # (H, W) of each frame
        self.centres: list[np.ndarray] = []  # of each frame's targets, (n, 2) y, x
        self.greys: list[GreyFacts] = []  # of the frames of more than 8 bits
        self.offsets: list[np.ndarray] = []  # of masks from their targets' light
        dark: list[bool] = []  # of the frames with targets: whether these are darker than around them
        read = read_ahead(self._try, self.samples)
        for result, facts, is_dark in progress(read, f"{data.name} {split}", len(self.samples)):
            if isinstance(result, DataError):
                problems.append(str(result))
                continue
            self.greys += [facts] if facts else []
            dark += [] if is_dark is None else [is_dark]
            _, _, _, centres = cv2.connectedComponentsWithStats(result.mask)
            self.centres.append(centres[1:, ::-1])
            self.offsets.append(offsets(result.image.mean(axis=-1, dtype=np.float32), result.mask))
            self.shapes.append(result.mask.shape)
            memory -= result.image.nbytes + result.mask.nbytes
            if memory < 0:
                self.cache = None
            elif self.cache is not None:
                self.cache.append(result)
        if problems:
            raise DataError(complaint(data, split, problems))
        pairs = zip(self.samples, self.shapes)
        if resized := [pair for pair in pairs if is_resized(*pair)]:
            print(f"{data.name} {split}: {resized_note([sample.name for sample, _ in resized])}")
            if close := [sample.name for sample, shape in resized if nearly(sample, shape)]:
                print(
                    f"note: {data.name} {split}: {len(close)} of these masks differ from their images "
                    f"by up to 4 rows or columns: {some(close)}. They are stretched, so that targets "
                    "move by up to as many pixels; if rows or columns were cut off, put them back"
                )
            if lost := self.lost_targets():
                print(f"note: {data.name} {split}: targets were lost in that: {some(lost)}")
        for line in grey.report(f"{data.name} {split}", self.greys, len(self.samples)):
            print(line)
        if 2 * sum(dark) > len(dark):
            other = "bright" if grey.dark else "dark"
            print(
                f"note: {data.name} {split}: the targets of {sum(dark)} of {len(dark)} images are "
                "darker than their surroundings, as they are read; networks look for bright ones: "
                f"--polarity {other} inverts the images"
            )

    def lost_targets(self) -> list[str]:
        """The images whose masks hold fewer targets at the image's size than in their files."""
        lost = []
        for sample, shape, centres in zip(self.samples, self.shapes, self.centres):
            if is_resized(sample, shape):
                mask = read_mask(sample, image_shape(sample.mask), self.threshold)
                if (count := cv2.connectedComponents(mask)[0] - 1) > len(centres):
                    lost.append(f"{sample.name} ({count} targets, {len(centres)} left)")
        return lost

    def _try(self, sample: Sample) -> tuple[Item | DataError, GreyFacts | None, bool | None]:
        try:
            item, facts = self.read(sample)
            return item, facts, darker(item.image, item.mask)
        except DataError as error:
            return error, None, None

    def read(self, sample: Sample, look: bool = True) -> tuple[Item, GreyFacts | None]:
        """A frame as it is on disk, and with `look` what is to be said of its grey values."""
        image, facts = self.grey.read(sample.image, sample.name, look)
        shape = image.shape[:2]
        maps = read_maps(self.maps, sample, shape, self.remake) if self.maps else []
        if maps and checksum(maps) != self.map_checksums[sample.name]:
            raise DataError(
                f"{self.maps}: the label maps of {sample.name} are not those that this run began with; "
                f"make them again as they were ({self.remake}), then continue with --resume. Another "
                "method's maps go elsewhere: --maps-root DIR"
            )
        return Item(image, read_mask(sample, shape, self.threshold), *maps), facts

    def add_maps(self, folder: Path) -> None:
        """Adds the label maps that `utils.py` wrote to a folder, for training. Those that do not fit in
        memory are read again for each sample, and must stay what they are now.

        Raises:
            DataError: one is missing or damaged.
        """
        self.maps = folder
        for i, (sample, shape) in enumerate(zip(self.samples, self.shapes)):
            maps = read_maps(folder, sample, shape, self.remake)
            if self.cache is None:
                self.map_checksums[sample.name] = checksum(maps)
            else:
                self.cache[i] = Item(self.cache[i].image, self.cache[i].mask, *maps)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> Item:
        return self.read(self.samples[i], look=False)[0] if self.cache is None else self.cache[i]


def read_lists(
    data: list[DatasetFolder],
    threshold: int = TARGET,
    grey: GreyRange = GREY,
) -> tuple[list[Frames], list[Frames]]:
    """The frames of all training and all test lists; one error names everything unusable in them."""
    lists, problems = [], []
    for split in ("train", "test"):
        for one in data:
            try:
                lists.append(Frames(one, split, threshold, grey))
            except DataError as error:
                problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return lists[: len(data)], lists[len(data) :]


def fingerprint(lists: list[Frames]) -> str:
    """A digest of the images and masks of lists: their names, and their files' sizes and contents."""
    samples = [sample for frames in lists for sample in frames.samples]
    whole = hashlib.sha256()
    for sample, contents in zip(samples, read_ahead(file_digests, samples)):
        whole.update(f"{sample.name} {contents}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def file_digests(sample: Sample) -> str:
    files = [path.read_bytes() if path else b"" for path in (sample.image, sample.mask)]
    return " ".join(f"{len(raw)} {hashlib.sha256(raw).hexdigest()}" for raw in files)


def memory_budget() -> float:
    """Bytes that one list may take in memory: an eighth of the machine's, shared by its processes."""
    return memory_limit() / 8 / launch().local_world


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
