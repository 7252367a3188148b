"""The nouns of data sets: what lies on disk, what is read of it, and what belongs together."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ismallnet.cli import DataError

MAPS = ("interior", "boundary")  # the folders of label maps, with maps.json beside them


class Item(NamedTuple):
    """An image and what belongs to it. Of `Frames` NumPy arrays: the image HxWx3 in 0-255 units, the
    others HxW uint8, the mask 0 or 255; interior and boundary are None without label maps. Of
    `TrainingSet` tensors: the image 3xHxW in 0-255 units, the others 1xHxW in [0, 1]."""

    image: np.ndarray
    mask: np.ndarray
    interior: np.ndarray | None = None
    boundary: np.ndarray | None = None


@dataclass(frozen=True)
class Reading:
    """What a command line says of how a data set lies on disk; folders are relative to it."""

    image_folder: str | None = None
    mask_folder: str | None = None
    image_suffix: str = ""  # images are X_1.png, say; X is their name
    mask_suffix: str = ""
    missing_masks: str = "error"  # or "empty": images without a mask have no targets
    follow_links: bool = False  # also those that lead out of the data set


AS_IT_LIES = Reading()


@dataclass(frozen=True)
class MaskRule:
    """How all masks of a data set are read: masks.py applies it (`grey_values`).

    Args:
        numbers: the values are class or instance numbers: any above 0 is target, 255.
        deep: the largest value that files of more than 8 bits may hold: 255, 65535, or 1 for floats;
            it becomes 255. 0 where there are no such files.
        values: all grey values of the set, for people.
    """

    numbers: bool = False
    deep: float = 0
    values: str = field(default="", compare=False)


@dataclass(frozen=True)
class LoadedMask:
    """A mask file as it was read, once: what every check, note and label map is made from.

    Args:
        size, crc, digest: of the file: its bytes, their CRC-32 and SHA-256.
        shape: (H, W).
        packed: the pixels at their own depth, `dtype`, compressed.
        values, counts: the different values, rising, and how many pixels have each.
    """

    size: int
    crc: int
    digest: str
    shape: tuple[int, int]
    dtype: str
    packed: bytes = field(repr=False)
    values: np.ndarray = field(repr=False, compare=False)
    counts: np.ndarray = field(repr=False, compare=False)


@dataclass(frozen=True)
class Sample:
    """One image of a list. `mask` is None for backgrounds without a mask file: all zeros."""

    name: str  # of its maps and predictions, without extension; may hold a folder: "train/0001"
    image: Path
    mask: Path | None
    rule: MaskRule | None = None  # of its data set's masks
    loaded: LoadedMask | None = field(default=None, compare=False)  # the mask, where it was read


@dataclass
class ImageFile:
    """An image on disk, before it is known whether it can be used."""

    path: Path
    part: str = ""  # train, trainval, test, val, … in split folders
    subfolder: str = ""  # of the image folder
    masks: Path | None = None  # the mask folder that belongs to its image folder
    suffix: str = ""  # of its file, not of its name
    mask: Path | None = None
    name: str = ""
    problem: str = ""  # why it has no mask that is its own

    @property
    def stem(self) -> str:
        return self.path.stem.removesuffix(self.suffix)

    @property
    def folder(self) -> str:
        """Its split folder and sub-folder, for names: train/seq1."""
        return "/".join(filter(None, (self.part, self.subfolder)))


@dataclass
class DatasetFolder:
    """A data set on disk. `problems` names, by list, what in it cannot be used."""

    name: str
    root: Path
    layout: str
    lists: dict[str, list[Sample]] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    targets: dict[str, int] = field(default_factory=dict)  # target pixels, by list
    reading: Reading = AS_IT_LIES

    def command(self, stage: str, flags: str = "") -> str:
        """The command of a stage for this data set, to which belong the flags that were typed here."""
        return f"python {stage}.py --dataset {shlex.quote(self.name)} {flags}".rstrip()

    def samples(self, split: str) -> list[Sample]:
        """The samples of "train" or "test".

        Raises:
            DataError: the data set has no such list, or it is empty.
        """
        if not self.lists.get(split) and not self.problems.get(split):
            raise DataError(
                f"{self.root}: found no {split} list, or it is empty (layout: {self.layout}); expected "
                f"{split}.txt with one image name a line, or another folder of lists: --split FOLDER"
            )
        return self.lists[split]

    def hold_out(self, every: int) -> None:
        """Takes every n-th sample out of the training list and puts them in the test list's place,
        to choose settings on; 0 leaves all as it is."""
        if every == 1:
            raise DataError("--hold-out: found 1, expected 0 (none), or 2 and more")
        if every:
            train = self.samples("train")
            if len(train) <= every // 2:
                raise DataError(f"--hold-out {every}: takes none of {len(train)} images; type fewer")
            self.lists["test"], self.problems["test"] = train[every // 2 :: every], []
            self.lists["train"] = [s for i, s in enumerate(train) if i % every != every // 2]
