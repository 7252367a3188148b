"""Training samples: crops of images and their label maps, augmented alike."""

import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F

from ismallnet.cli import DataError, note
from ismallnet.datasets.masks import TARGET
from ismallnet.datasets.sample import Item
from ismallnet.distributed import Processes, loader_worker

PLANES = (3, 1, 1, 1)  # of an Item: the image, the mask, the interior and boundary maps
SHARED = Path("/dev/shm")  # where loader processes hand over their batches; Docker gives 64 MB
PREFETCH = 4  # batches that each loader process makes ahead
SPOT = 13  # px, side of the top-hat's square: clutter is smaller
FROM_TARGETS = 8  # px between clutter and targets, at least
SPOTS = 10  # an image, at most
MIRRORS = ("all", "diagonal", "none")
AUTHORS_SIDES = (224, 256, 288, 320, 352)  # one of them per batch, in the authors' recipe


@dataclass(eq=False)
class TrainingSet:
    """An endless sequence of augmented training samples, for torch's DataLoader.

    Sample p is a pure function of (seed, p): its image is the p-th of shuffled epochs laid end to
    end, its augmentation has a random generator of its own. So the order and the samples do not
    depend on workers, processes, or where a run was interrupted.
    """

    lists: list[Sequence[Item]]  # `dataset.Frames` with label maps, of each data set
    batch_size: int  # of all processes together
    seed: int
    augment: str = "crop"  # random and target-centred crops; "authors": whole images, resized
    crop: int = 256  # side of the crops, px
    target_share: float = 0.5  # of the crops: those that hold a target for certain
    scale_jitter: float = 1.25  # largest factor, up or down, by which half of the crops are rescaled
    brightness: float = 0.1  # largest relative change
    contrast: float = 0.1
    last_crop: int | None = None  # side of the crops from position `last_from` on; None: as `crop`
    last_from: float = math.inf
    balance: bool = False  # each data set gives as many samples as any other, not as it has images
    clutter_share: float = 0.0  # of the other crops: those that are placed on clutter, see `clutter`
    sensor_share: float = 0.0  # of the crops: those that look as another sensor's
    mirrors: Sequence[str] = ()  # how crops are mirrored, one of MIRRORS a data set; default: all "all"

    def __post_init__(self):
        lists, mirrors = self.lists, self.mirrors or ["all"] * len(self.lists)
        self.last_crop = self.last_crop or self.crop
        self.frames = [(frames, i) for frames in lists for i in range(len(frames))]
        self.mirror = [m for frames, m in zip(lists, mirrors) for _ in range(len(frames))]
        ends = np.cumsum([len(frames) for frames in lists])[:-1] if self.balance else []
        self.groups = np.split(np.arange(len(self.frames)), ends)  # that share the samples
        self._clutter: dict[int, np.ndarray] = {}  # by image
        self._orders: dict[int, tuple[int, np.ndarray]] = {}  # by group: an epoch, and its images

    def __len__(self) -> int:
        return len(self.frames)

    def index(self, position: int) -> int:
        """Which image stands at a position of the sequence."""
        group, position = self.turn(position)
        images = self.groups[group]
        epoch, place = divmod(position, len(images))
        if self._orders.get(group, (-1,))[0] != epoch:
            rng = np.random.default_rng((self.seed, 0, epoch) + ((group,) if group else ()))
            self._orders[group] = epoch, rng.permutation(images)
        return int(self._orders[group][1][place])

    def turn(self, position: int) -> tuple[int, int]:
        """The group whose turn it is, and the position in its own sequence. In as many samples as there
        are groups each has one turn, in random order, so that several processes see all of them."""
        count = len(self.groups)
        if count == 1:
            return 0, position
        turns, place = divmod(position, count)
        order = np.random.default_rng((self.seed, 3, turns)).permutation(count)
        return int(order[place]), turns

    def name(self, position: int) -> str:
        frames, i = self.frames[self.index(position)]
        return frames.samples[i].name

    def __getitem__(self, position: int) -> Item:
        """A training sample, SxS: float tensors."""
        rng = np.random.default_rng((self.seed, 1, position))
        index = self.index(position)
        frames, i = self.frames[index]
        item = frames[i]
        if self.augment == "authors":
            planes = self.whole(np.dstack(item), position, self.mirror[index], rng)
        else:
            planes = self.cut(item, frames.centres[i], position, index, rng)
        image, *maps = planes.split(PLANES)
        return Item(image.contiguous(), *((m / 255).contiguous() for m in maps))

    def whole(self, planes: np.ndarray, position: int, mirror: str, rng: np.random.Generator) -> Tensor:
        """The authors' sample: nearly all of an image, at the size that its batch has."""
        step = position // self.batch_size
        side = int(np.random.default_rng((self.seed, 2, step)).choice(AUTHORS_SIDES))
        x = torch.from_numpy(authors_crop(planes, rng)).permute(2, 0, 1).float()
        x = F.resize(x, [side, side], antialias=False)
        return mirrored(x, mirror, [rng.random() < 0.5])

    def cut(
        self, item: Item, targets: np.ndarray, position: int, index: int, rng: np.random.Generator
    ) -> Tensor:
        """A crop on a target, on clutter or anywhere: rescaled, mirrored, its grey values changed."""
        side = self.crop if position < self.last_from else self.last_crop
        factor = self.scale_jitter ** rng.uniform(-1, 1) if rng.random() < 0.5 else 1.0
        centre = None
        if len(targets) and rng.random() < self.target_share:
            centre = rng.choice(targets)
        elif self.clutter_share and rng.random() < self.clutter_share:
            if index not in self._clutter:
                self._clutter[index] = clutter(item)
            if len(self._clutter[index]):
                centre = rng.choice(self._clutter[index])
        crop = random_crop(np.dstack(item), round(side / factor), centre, rng)
        x = torch.from_numpy(crop).permute(2, 0, 1).float()
        resized = x.shape[-1] != side
        x = F.resize(x, [side, side], antialias=True) if resized else x
        x = mirrored(x, self.mirror[index], [rng.random() < 0.5 for _ in range(3)])
        image, mask, *maps = x.split(PLANES)
        mask = (mask >= TARGET) * 255.0 if resized else mask
        image = F.adjust_brightness(image / 255, 1 + self.brightness * rng.uniform(-1, 1))
        image = F.adjust_contrast(image, 1 + self.contrast * rng.uniform(-1, 1)) * 255
        if self.sensor_share and rng.random() < self.sensor_share:
            image = as_of_another_sensor(image, rng)
        return torch.cat([image, mask, *maps])


def mirrored(planes: Tensor, mirror: str, chosen: list[bool]) -> Tensor:
    """CxHxW planes, mirrored left-right, up-down and at the diagonal, where it is chosen, and where
    `mirror`, one of MIRRORS, allows it."""
    allowed = {"all": (True,) * 3, "diagonal": (False, False, True), "none": ()}[mirror]
    flips = (F.horizontal_flip, F.vertical_flip, lambda x: x.transpose(1, 2))
    for flip, *wanted in zip(flips, chosen, allowed):
        planes = flip(planes) if all(wanted) else planes
    return planes


def as_of_another_sensor(image: Tensor, rng: np.random.Generator) -> Tensor:
    """A grey crop as another sensor might show it: each by chance blur, another gamma, gain and offset,
    noise, stripes along one axis, and JPEG's artefacts.

    Args:
        image: 3xSxS float32, 0-255, grey repeated.
    """
    x = image[0].numpy() / 255
    if rng.random() < 0.3:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.0))
    if rng.random() < 0.5:
        x = x ** np.float32(np.exp(rng.uniform(-0.7, 0.7)))
    if rng.random() < 0.5:
        gain, mean = np.float32(np.exp(rng.uniform(-0.7, 0.7))), x.mean()
        x = mean + (x - mean) * gain + np.float32(rng.uniform(-0.15, 0.15))
    if rng.random() < 0.5:
        x = x + noise(x.shape, 0.03, rng)
    if rng.random() < 0.2:
        x = x + noise((len(x), 1) if rng.random() < 0.5 else (1, len(x)), 0.02, rng)
    x = (x.clip(0, 1) * 255).round()
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 96))]
        coded = cv2.imencode(".jpg", x.astype(np.uint8), quality)[1]
        x = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE).astype(np.float32)
    return torch.from_numpy(x).expand(3, -1, -1)


def noise(shape: tuple[int, ...], most: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, float32, of a random standard deviation up to `most`."""
    return rng.standard_normal(shape, np.float32) * np.float32(rng.uniform(0, 1) ** 2 * most)


def clutter(item: Item) -> np.ndarray:
    """Bright spots of an image that are no targets: the centres (n, 2) y, x of the highest peaks of its
    white top-hat, n <= SPOTS, the highest first."""
    near = np.ones((2 * FROM_TARGETS + 1,) * 2, np.uint8)
    square = np.ones((SPOT, SPOT), np.uint8)
    grey = cv2.GaussianBlur(item.image.mean(axis=-1, dtype=np.float32), (0, 0), 1)
    height = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, square)
    height[cv2.dilate((item.mask > 0).astype(np.uint8), near) > 0] = 0
    peaks = np.argwhere((height > 0) & (height == cv2.dilate(height, square)))
    return peaks[np.argsort(-height[tuple(peaks.T)], kind="stable")[:SPOTS]]


def random_crop(
    planes: np.ndarray, side: int, centre: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """A side x side crop of HxWxC planes, reflected at the borders where they are smaller; with a
    centre (y, x) it lies in the crop's inner half or, near a border, as near to it as can be."""
    corner = []
    for axis in range(2):
        room = planes.shape[axis] - side
        if centre is None:
            start = rng.integers(0, max(room, 0) + 1)
        else:
            start = round(centre[axis] - rng.uniform(0.25, 0.75) * side)
        corner.append(min(max(int(start), 0), max(room, 0)))
    cut = planes[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
    missing = [side - cut.shape[0], side - cut.shape[1]]
    if any(missing):
        cut = np.pad(cut, [(m // 2, m - m // 2) for m in missing] + [(0, 0)], mode="reflect")
    return np.ascontiguousarray(cut)


def authors_crop(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The authors' crop: up to 1/8 of either side is cut away, at random ends."""
    window = []
    for size in planes.shape[:2]:
        cut = rng.integers(0, max(size // 8, 1))
        start = rng.integers(0, cut + 1)
        window.append(slice(start, size - cut + start))
    return np.ascontiguousarray(planes[tuple(window)])


def batches(samples: TrainingSet, steps: range, processes: Processes, workers: int) -> Iterable[Item]:
    """This process's share of the samples of each step.

    Raises:
        DataError: a sample cannot be read.
    """
    size, rank, world = samples.batch_size, processes.rank, processes.world
    sides = AUTHORS_SIDES if samples.augment == "authors" else (samples.crop, samples.last_crop)
    needed = PREFETCH * workers * world * -(-size // world) * sum(PLANES) * 4 * max(sides) ** 2
    if workers and SHARED.exists() and needed > shutil.disk_usage(SHARED).free:
        note("shared", f"too little room in {SHARED}: --workers 0 (Docker: --shm-size 2g)")
        workers = 0
    forks = workers and sys.platform == "linux"
    options = {"prefetch_factor": PREFETCH, "persistent_workers": True} if workers else {}
    loader = DataLoader(
        samples,
        batch_sampler=[range(s * size + rank, (s + 1) * size, world) for s in steps],
        num_workers=workers,
        pin_memory=processes.device.type == "cuda",
        worker_init_fn=loader_worker,
        multiprocessing_context="fork" if forks else None,  # the frames are shared, not copied
        **options,
    )
    try:
        yield from loader
    except DataError as error:  # of a worker, with its traceback
        raise DataError(str(error).strip().split("DataError: ")[-1]) from None
    finally:  # the error holds the loader, whose processes Python would wait for in the end
        if workers:
            loader._iterator._shutdown_workers()
