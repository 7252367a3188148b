"""Data sets as people have them on disk: the layouts, the lists, the files that belong together.

A data set is the folder DATA_ROOT/NAME in any of the layouts in use (docs/DATASETS.md); nothing
has to be renamed. `dataset.py` is the door to this file.
"""

import functools
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError
from ismallnet.files import atomic_write
from ismallnet.lists import (
    EXTENSIONS,
    LIST_FOLDERS,
    MASK_ENDINGS,
    Index,
    find_lists,
    leads_inside,
    listed,
    shown,
)
from ismallnet.masks import TARGET, MaskRule, survey

IMAGE_FOLDERS = ("images", "image", "imges", "IRSTD1k_Img", "mixed")
IMAGE_SUBFOLDERS = ("targets", "backgrounds", "mixed")  # of open-sirst-v2
MASK_FOLDERS = ("masks", "mask", "IRSTD1k_Label", "annotations/masks")
PARTS = ("train", "trainval", "test")
SPLIT_SEED = 0  # of the 50:50 split that is made where a data set has no list


@dataclass(frozen=True)
class Sample:
    """One image of a list. `mask` is None for backgrounds without a mask file: all zeros."""

    name: str  # of its maps and predictions, without extension; may hold a folder: "train/0001"
    image: Path
    mask: Path | None
    rule: MaskRule | None = None  # of its data set's masks


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

    def samples(self, split: str) -> list[Sample]:
        """The samples of "train" or "test".

        Raises:
            DataError: the data set has no such list, or it is empty.
        """
        if split not in self.lists:
            raise DataError(
                f"{self.root}: found no {split} list (layout: {self.layout}); expected "
                f"{split}.txt, or another folder of lists: --split FOLDER"
            )
        if not self.lists[split] and not self.problems[split]:
            raise DataError(
                f"{self.root}: the {split} list is empty (layout: {self.layout}); expected one "
                "image name a line, or another folder of lists: --split FOLDER"
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


def find_dataset(
    name: str,
    data_root: str | os.PathLike = "data",
    split: list[str] | None = None,
    mask_threshold: int = TARGET,
) -> DatasetFolder:
    """Finds the layout and the lists of a data set, and what the values of its masks mean.

    Args:
        name: the folder below data_root.
        split: None for the list that wins, or [folder], or [train file, test file].
        mask_threshold: mask values from here up are target.

    Raises:
        DataError: no such data set, no images in it, no such split, or masks that are inverted. Single
            bad entries are not raised here: they are in `problems`, so that one error can name them
            all.
    """
    name = name.rstrip("/")
    root = dataset_root(name, Path(data_root))
    lists = find_lists(root, name, split)
    layout, images = list_images(root, without_lists=lists is None)
    assign_masks(images, root)
    name_images(images)
    data = DatasetFolder(name, root, layout)
    apply_lists(data, images, lists)
    if lists and split is None and lists.get("test", root).stem.startswith("val"):
        data.notes.append(f"no test list found: {shown(lists['test'], root)} serves as the test list")
    read_masks(data, mask_threshold)
    return data


def dataset_root(name: str, data_root: Path) -> Path:
    root = data_root / name
    if len(Path(name).parts) != 1 or name in ("", ".", "..") or not root.is_dir():
        have = sorted(p.name for p in data_root.glob("*") if p.is_dir())
        guess = f"Did you mean --dataset {Path(name).name}? " if Path(name).name in have else ""
        raise DataError(
            f"{root}: no such data set; in {data_root}/ there is: {', '.join(have) or 'nothing'}. "
            f"{guess}Put the folder there, name another root with --data-root, or make the synthetic "
            "set: python synthetic.py"
        )
    return root


@dataclass
class ImageFile:
    """An image on disk, before it is known whether it can be used."""

    path: Path
    part: str  # train, trainval, test in split folders; else empty
    subfolder: str  # of the image folder: one of IMAGE_SUBFOLDERS, or empty
    mask: Path | None = None
    name: str = ""

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def folder(self) -> str:
        return "/".join(filter(None, (self.part, self.subfolder)))


def list_images(root: Path, without_lists: bool) -> tuple[str, list[ImageFile]]:
    """How the images lie in a data set, in words, and the images.

    Args:
        without_lists: the folders are the lists; trainval/ is taken before train/.
    """
    if plain := image_folder(root):
        return f"images in {plain.relative_to(root)}/", images_in(plain)
    parts = {part: folder for part in PARTS if (folder := image_folder(root / part))}
    if not parts:
        expected = ", ".join(f"{folder}/" for folder in IMAGE_FOLDERS)
        raise DataError(f"{root}: found no images; expected {', '.join(EXTENSIONS)} in {expected}")
    if "trainval" in parts and without_lists:
        parts.pop("train", None)
    groups = {part: images_in(folder, part) for part, folder in parts.items()}
    if "trainval" in groups and "train" in groups:  # whose images are mostly there once more
        both = {image.stem for image in groups["trainval"]}
        groups["train"] = [image for image in groups["train"] if image.stem not in both]
    layout = "split folders " + ", ".join(f"{part}/" for part in parts)
    return layout, [image for group in groups.values() for image in group]


def images_in(folder: Path, part: str = "") -> list[ImageFile]:
    """The images of one image folder and its subfolders."""
    return [
        ImageFile(path, part, subfolder)
        for subfolder in ("", *IMAGE_SUBFOLDERS)
        for path in image_files(folder / subfolder)
    ]


def assign_masks(images: list[ImageFile], root: Path) -> None:
    """Gives each image its mask, X.png or else X_pixels0.png, X_mask.png, …: that in the mask
    folder's subfolder of the same name, then that right in the mask folder."""

    @functools.cache
    def mask_files(part: str, subfolder: str) -> dict[str, Path]:
        folder = mask_folder(root / part)
        places = [folder / subfolder, folder] if subfolder else [folder]
        files: dict[str, Path] = {}
        for path in (path for place in places for path in image_files(place)):
            files.setdefault(path.stem, path)  # the first wins
        return files

    for image in images:
        files = mask_files(image.part, image.subfolder)
        endings = ("", *MASK_ENDINGS)
        image.mask = next((m for e in endings if (m := files.get(f"{image.stem}{e}"))), None)
    uses = Counter(image.mask for image in images)
    for image in images:
        if image.subfolder == "backgrounds" and uses[image.mask] > 1:
            image.mask = None  # it is that of the target image of the same name


def name_images(images: list[ImageFile]) -> None:
    """Names each image by its stem; where stems repeat, by its folder and stem."""
    repeated = max(Counter(image.stem for image in images).values()) > 1
    for image in images:
        image.name = f"{image.folder}/{image.stem}" if repeated and image.folder else image.stem


def apply_lists(data: DatasetFolder, images: list[ImageFile], lists: dict[str, Path] | None) -> None:
    """Fills in the data set's lists and problems: from the list files, from the split folders, or
    from a new 50:50 split."""
    chosen: dict[str, list[ImageFile]] = {}
    if lists is None and any(image.part for image in images):
        named: dict[str, dict[str, ImageFile]] = {}
        for image in images:
            entries = named.setdefault("test" if image.part == "test" else "train", {})
            entries.setdefault(image.name, image)  # the first wins
        chosen = {part: [*entries.values()] for part, entries in named.items()}
    else:
        lists = lists or make_split(data, images)
        data.layout += f", lists {' and '.join(shown(path, data.root) for path in lists.values())}"
        index = Index(images, data.root)
        for part, path in lists.items():
            chosen[part], data.problems[part], notes = listed(path, index, data.root, part)
            data.notes += notes
    for part, entries in chosen.items():
        problems = data.problems.setdefault(part, [])
        samples = [checked(image, data.root, problems) for image in entries]
        data.lists[part] = [sample for sample in samples if sample is not None]
    names = [{s.name for s in samples} for samples in data.lists.values()]
    if len(names) == 2 and (both := names[0] & names[1]):
        data.notes.append(f"warning: {len(both)} images are in the training and the test list")


def read_masks(data: DatasetFolder, threshold: int) -> None:
    """Decides what the masks' values mean, and counts the lists' target pixels.

    Raises:
        DataError: all masks of a list are inverted.
    """
    everything = [sample for samples in data.lists.values() for sample in samples]
    report = survey(list(dict.fromkeys(s.mask for s in everything if s.mask)), threshold)
    data.notes += report.notes
    for part, samples in data.lists.items():
        masks = [sample.mask for sample in samples if sample.mask in report.targets]
        if masks and report.inverted.issuperset(masks):
            raise DataError(
                f"{data.root}: in all masks of the {part} list more than half of the pixels are "
                f"target: they are inverted. Invert {masks[0].parent}; targets must be white"
            )
        data.targets[part] = sum(report.targets[mask] for mask in masks)
        data.lists[part] = [replace(sample, rule=report.rule) for sample in samples]


def image_files(folder: Path) -> list[Path]:
    """The image files right in a folder, sorted by name, preferred extension first."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = [e for e in entries if e.name.lower().endswith(EXTENSIONS) and e.name[0] != "."]
        plain = [e.is_file(follow_symlinks=False) or os.path.isfile(e.path) for e in found]
    files = [Path(entry.path) for entry, is_file in zip(found, plain) if is_file]
    return sorted(files, key=lambda p: (p.stem, EXTENSIONS.index(p.suffix.lower()), p.name))


def image_folder(root: Path) -> Path | None:
    return next((root / name for name in IMAGE_FOLDERS if holds_images(root / name)), None)


def mask_folder(root: Path) -> Path:
    folders = [root / name for name in MASK_FOLDERS]
    return next((f for f in folders if holds_images(f)), folders[0])


def holds_images(folder: Path) -> bool:
    return any(image_files(f) for f in (folder, *(folder / s for s in IMAGE_SUBFOLDERS)))


def make_split(data: DatasetFolder, images: list[ImageFile]) -> dict[str, Path]:
    """A seeded 50:50 split, written to 50_50/ and announced; never where there are lists already,
    which it would outrank from then on."""
    found = [p for f in LIST_FOLDERS for p in (data.root / f).glob("*.txt")]
    if strays := sorted(shown(p, data.root) for p in found if p.stem.startswith(PARTS)):
        raise DataError(
            f"{data.root}: cannot tell which of {', '.join(strays)} are its lists; name them: --split "
            "TRAIN.txt TEST.txt"
        )
    names = sorted({image.name for image in images})
    order = np.random.default_rng(SPLIT_SEED).permutation(len(names))
    half = len(names) // 2
    if not leads_inside(data.root / "50_50", data.root):
        raise DataError(f"{data.root / '50_50'}: a link that leads out of the data set")
    lists = {}
    for part, chosen in (("train", order[:half]), ("test", order[half:])):
        lists[part] = data.root / "50_50" / f"{part}.txt"
        try:
            with atomic_write(lists[part]) as file:
                file.write("".join(f"{names[i]}\n" for i in sorted(chosen)).encode())
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "a file name is not UTF-8"
            raise DataError(
                f"{data.root}: has no list of training and test images, and a 50:50 split cannot be "
                f"written there ({reason}); name your lists: --split TRAIN.txt TEST.txt"
            ) from error
    data.notes.append(
        f"no list found: made a 50:50 split (seed {SPLIT_SEED}) in {data.root / '50_50'}: "
        f"{half} training and {len(names) - half} test images"
    )
    return lists


def checked(image: ImageFile, root: Path, problems: list[str]) -> Sample | None:
    """The sample, or None and a problem: a link that leads outside, or no mask."""
    for path in filter(None, (image.path, image.mask)):
        if not leads_inside(path, root):
            problems.append(f"{path}: a link that leads out of the data set")
            return None
    if image.mask is None and "backgrounds" not in image.path.relative_to(root).parts[:-1]:
        problems.append(f"{image.path}: found no mask for it ({image.stem}.png or …_pixels0.png)")
        return None
    return Sample(image.name, image.path, image.mask)
