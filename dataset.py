"""Images, masks and label maps of a data set, read and checked.

`find_dataset` (layouts.py) finds what is on disk, `Frames` reads a list of it, `TrainingSet`
(augmentation.py) cuts training samples from it.
"""

import argparse
import json
import os
import struct
import tokenize
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cli import DataError, progress, read_ahead
from layouts import DatasetFolder, Sample, find_dataset, leads_inside

MASK_THRESHOLD = 128
ASPECT_TOLERANCE = 0.02  # between a mask and its image
MAPS = ("interior", "boundary")


# --- reading -------------------------------------------------------------------------------------

# What Pillow and NumPy raise on damaged files.
READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, TypeError, AttributeError, LookupError)
READ_ERRORS += (ArithmeticError, MemoryError, RuntimeError, struct.error, tokenize.TokenError)
READ_ERRORS += (Image.DecompressionBombError,)


def decode(path: Path, page: int = 0) -> np.ndarray:
    """An image file as HxW or HxWxC, at its own depth; palettes expanded, whole or not at all.

    Args:
        page: of a TIFF with several.

    Raises:
        DataError: not an image, truncated or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large ones, odd EXIF: read all the same
            picture = Image.open(path)
            if page:
                picture.seek(page)
            rawmode = str(picture.tile[0][3]) if picture.tile else ""
            picture.load()
        deep = ";16" in rawmode and "BGR;16" not in rawmode  # that one is 5, 6 and 5 bits
        if deep and picture.mode in ("RGB", "RGBA", "LA"):  # Pillow keeps only 8 of the bits
            if page:
                pixels = (*cv2.imreadmulti(str(path), page, 1, flags=cv2.IMREAD_UNCHANGED)[1], None)[0]
            else:
                pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
            if pixels is None:
                raise OSError("damaged")
            return cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2RGB)
        if picture.mode in ("1", "LA", "La"):
            picture = picture.convert("L")
        elif picture.mode in ("P", "PA"):
            picture = picture.convert("RGBA")
        elif picture.mode not in ("L", "RGB", "RGBA", "I", "F") and "I;16" not in picture.mode:
            picture = picture.convert("RGB")
        pixels = np.asarray(picture)
    except READ_ERRORS as error:
        raise DataError(f"{path}: not a readable image ({error})") from error
    if pixels.ndim == 3:
        pixels = pixels[..., :3]  # alpha is ignored
    return pixels.astype(np.uint16) if pixels.dtype.kind == "u" and pixels.itemsize == 2 else pixels


def read_image(path: str | os.PathLike, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """An image in 0-255 units.

    Args:
        path: 8- or 16-bit PNG, BMP, JPEG or TIFF; grey, RGB, RGBA (alpha ignored) or palette.
        value_range: (min, max) that become 0 and 255 where the file has more than 8 bits; the
            image's own minimum and maximum by default.

    Returns:
        HxWx3: uint8 for 8-bit files, float32 for others; grey repeated.

    Raises:
        DataError: not an image, truncated or damaged.
    """
    pixels = decode(Path(path))
    return to_units(pixels, value_range or value_limits(pixels))


def value_limits(
    pixels: np.ndarray, percentiles: tuple[float, float] = (0, 100)
) -> tuple[float, float] | None:
    """The values that become 0 and 255: percentiles of the image's own finite ones; None for 8 bits,
    which stay as they are."""
    if pixels.dtype == np.uint8:
        return None
    if pixels.dtype.kind == "f":
        pixels = pixels[np.isfinite(pixels)]
    if not pixels.size:
        return 0.0, 0.0
    if tuple(percentiles) == (0, 100):
        return float(pixels.min()), float(pixels.max())
    low, high = np.percentile(pixels, percentiles)
    return float(low), float(high)


def to_units(pixels: np.ndarray, limits: tuple[float, float] | None) -> np.ndarray:
    """HxW or HxWx3 pixels of any depth -> HxWx3 in 0-255 units, grey repeated: 8 bits as they are,
    others as float32 with `limits` as 0 and 255. A pixel without a number becomes the median."""
    if pixels.dtype != np.uint8:
        low, high = map(float, limits)
        pixels = pixels.astype(np.float32 if pixels.dtype.itemsize <= 4 else np.float64)
        if not np.isfinite(pixels).all():
            finite = pixels[np.isfinite(pixels)]
            middle = np.median(finite) if finite.size else low
            pixels = np.nan_to_num(pixels, nan=middle, posinf=high, neginf=low)
        pixels = ((pixels - low) * (255 / max(high - low, 1e-12))).clip(0, 255)
        pixels = pixels.astype(np.float32, copy=False)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def read_mask_values(path: str | os.PathLike, shape: tuple[int, int] | None = None) -> np.ndarray:
    """A mask file's grey values, HxW uint8: colours by their largest channel, 0/1 as 0/255.

    Args:
        shape: the image's (H, W); a mask of another size is brought to it by nearest neighbour.

    Raises:
        DataError: unreadable, or its aspect ratio is more than 2 % off the image's.
    """
    pixels = decode(Path(path))
    if pixels.ndim == 3:
        pixels = pixels.max(axis=2)
    if shape is not None and pixels.shape != shape:  # before anything is made of the values
        (h, w), (height, width) = pixels.shape, shape
        aspect = (w * height) / (h * width)
        if max(aspect, 1 / aspect) > 1 + ASPECT_TOLERANCE:
            raise DataError(
                f"{path}: the mask is {w}x{h}, its image {width}x{height} (width x height): expected "
                f"the same size, or the same shape within {ASPECT_TOLERANCE:.0%}"
            )
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST)
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels).clip(0, 65535)
    if pixels.max() <= 1:
        pixels = (pixels * 255).astype(np.uint8)
    elif pixels.dtype.kind == "f" and pixels.max() <= 255:
        pixels = pixels.astype(np.uint8)
    elif pixels.dtype != np.uint8:  # 16 bits: 65535 becomes 255, and no target pixel becomes 0
        pixels = np.maximum(pixels.clip(0, 65535) // 257, pixels > 0).astype(np.uint8)
    return pixels


def read_mask(sample: Sample, shape: tuple[int, int], threshold: int = MASK_THRESHOLD) -> np.ndarray:
    """The ground truth of a sample at its image's size (H, W): HxW uint8, 0 or 255."""
    if sample.mask is None:
        return np.zeros(shape, np.uint8)
    return np.where(read_mask_values(sample.mask, shape) >= threshold, 255, 0).astype(np.uint8)


def is_resized(sample: Sample, shape: tuple[int, int]) -> bool:
    """Whether a sample's mask file has another size than its image."""
    return sample.mask is not None and image_shape(sample.mask) != shape


def resized_note(names: list[str]) -> str:
    """What a run says, once, of the masks that it resized."""
    which = f" ({', '.join(names[:5])}{' …' if len(names) > 5 else ''})" if names else ""
    return f"{len(names)} masks resized to their images{which}"


def image_shape(path: str | os.PathLike) -> tuple[int, int]:
    """(H, W) of an image file, from its header alone."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except READ_ERRORS as error:
        raise DataError(f"{path}: not a readable image ({error})") from error


def maps_folder(data: DatasetFolder, maps_root: str | os.PathLike | None) -> Path:
    """Where interior/X.png and boundary/X.png of a data set are."""
    return Path(maps_root) / data.name if maps_root else data.root


def read_maps(folder: Path, sample: Sample, shape: tuple[int, int]) -> list[np.ndarray]:
    """[interior, boundary] of a sample as `utils.py` wrote them, each HxW uint8."""
    maps = []
    for kind in MAPS:
        path = folder / kind / f"{sample.name}.png"
        if not leads_inside(path, folder):
            raise DataError(f"{path}: a link that leads out of {folder}; type python utils.py")
        pixels = decode(path)
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise DataError(
                f"{path}: found {pixels.shape}, expected {shape}; type python utils.py --force"
            )
        maps.append(pixels)
    return maps


UNFINISHED = "unfinished.json"  # in a folder of maps while test.py is at work there


def check_finished(maps: Path) -> None:
    """
    Raises:
        DataError: test.py was interrupted, so that the maps may be of two networks.
    """
    if (maps / UNFINISHED).exists() and not (maps / "about.json").exists():
        raise DataError(
            f"{maps}: test.py was interrupted there, or is still at work; some maps may be of an "
            "earlier call. Type its command again"
        )


def read_about(maps: Path) -> dict:
    """What test.py says of a folder of maps, less the images' names; nothing of another program's."""
    try:
        about = json.loads((maps / "about.json").read_text())
        return {key: value for key, value in about.items() if key != "images"}
    except (OSError, ValueError, AttributeError):
        return {}


def read_map(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A probability map, HxW uint8.

    Raises:
        DataError: missing, unreadable, not 8-bit grey, or of another size than its image.
    """
    if not path.exists():
        raise DataError(f"{path}: missing")
    pixels = decode(path)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise DataError(f"{path}: found {pixels.dtype} {pixels.shape}, expected an 8-bit grey PNG")
    if pixels.shape != shape:
        (h, w), (height, width) = pixels.shape, shape
        raise DataError(f"{path}: found {w}x{h} (width x height), expected {width}x{height}")
    return pixels


class Frames:
    """The frames of a list, each read and checked once; kept in memory when they fit.

    `frames[i]` is (image, planes): HxWx3 in 0-255 units, and HxWxP uint8: the mask alone, or
    (interior, boundary, mask) after `add_maps`.

    Args:
        data, split: the data set and "train" or "test".
        threshold: mask values from here up are target.
        value_range: as in `read_image`.
        memory: bytes that may be kept; an eighth of the machine's by default.

    Raises:
        DataError: names every entry and file of the list that cannot be used.
    """

    def __init__(
        self,
        data: DatasetFolder,
        split: str,
        threshold: int = MASK_THRESHOLD,
        value_range: tuple[float, float] | None = None,
        memory: float | None = None,
    ):
        self.samples = data.samples(split)
        self.threshold, self.value_range = threshold, value_range
        self.maps: Path | None = None
        memory = memory_budget() if memory is None else memory
        problems = list(data.problems[split])
        self.cache: list[tuple[np.ndarray, np.ndarray]] | None = []
        self.shapes: list[tuple[int, int]] = []  # (H, W) of each frame
        self.centres: list[np.ndarray] = []  # of each frame's targets, (n, 2) y, x
        read = read_ahead(self._try, self.samples)
        for result in progress(read, f"{data.name} {split}", len(self.samples)):
            if isinstance(result, DataError):
                problems.append(str(result))
                continue
            image, planes = result
            _, _, _, centres = cv2.connectedComponentsWithStats(planes[..., -1].copy())
            self.centres.append(centres[1:, ::-1])
            self.shapes.append(image.shape[:2])
            memory -= image.nbytes + planes.nbytes
            if memory < 0:
                self.cache = None
            elif self.cache is not None:
                self.cache.append(result)
        if problems:
            raise DataError(complaint(data, split, problems))
        pairs = zip(self.samples, self.shapes)
        if resized := [sample.name for sample, shape in pairs if is_resized(sample, shape)]:
            print(f"{data.name} {split}: {resized_note(resized)}")

    def _try(self, sample: Sample) -> tuple[np.ndarray, np.ndarray] | DataError:
        try:
            return self.read(sample)
        except DataError as error:
            return error

    def read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        image = read_image(sample.image, self.value_range)
        shape = image.shape[:2]
        planes = read_maps(self.maps, sample, shape) if self.maps else []
        return image, np.dstack([*planes, read_mask(sample, shape, self.threshold)])

    def add_maps(self, folder: Path) -> None:
        """Adds the label maps that `utils.py` wrote to a folder, for training.

        Raises:
            DataError: one is missing or spoilt.
        """
        self.maps = folder
        for i, sample in enumerate(self.samples if self.cache is not None else []):
            image, mask = self.cache[i]
            self.cache[i] = image, np.dstack([*read_maps(folder, sample, self.shapes[i]), mask])

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self.read(self.samples[i]) if self.cache is None else self.cache[i]


def read_lists(
    data: list[DatasetFolder], args: argparse.Namespace
) -> tuple[list[Frames], list[Frames]]:
    """The frames of all training and all test lists; one error names everything unusable in them."""
    lists, problems = [], []
    for split in ("train", "test"):
        for one in data:
            try:
                lists.append(Frames(one, split, args.mask_threshold, args.range))
            except DataError as error:
                problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return lists[: len(data)], lists[len(data) :]


def complaint(data: DatasetFolder, split: str, problems: list[str]) -> str:
    head = f"{data.root}: {len(problems)} of the {split} list's entries or files cannot be used:"
    return "\n  ".join([head, *problems, "Mend or remove them, then type the same command again"])


def memory_budget() -> float:
    """Bytes that one list may take in memory: an eighth of the machine's, shared by its processes."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 8 / processes
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return 2 * 2**30


def mean_and_std(lists: list[Frames]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation over all pixels, in 0-255 units."""
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for frames in lists:
        for i in range(len(frames)):
            pixels = frames[i][0].reshape(-1, 3).astype(np.float64)
            count, total = count + len(pixels), total + pixels.sum(0)
            squares += np.square(pixels).sum(0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return tuple(mean), tuple(np.maximum(std, 1.0))  # a constant set keeps its units


# --- what the command lines share ----------------------------------------------------------------


def add_data_arguments(
    parser: argparse.ArgumentParser, images: bool = True, maps: bool = False, required: bool = True
) -> None:
    """The arguments of all stages that name a data set, of those that read its images, and of those
    that read or write its label maps, under the same names everywhere."""
    add = parser.add_argument
    name = {"nargs": "+", "required": required, "metavar": "NAME", "type": lambda s: s.rstrip("/")}
    add("--dataset", **name, help="folders below --data-root")
    add("--data-root", default="data", metavar="DIR", help="where the data sets are")
    add(
        "--split",
        nargs="+",
        metavar="LIST",
        help="a data set's folder of lists (idx_427), or its training and test list files; "
        "default: the paper's 50:50 lists where there are any (README)",
    )
    add(
        "--mask-threshold",
        type=int,
        default=MASK_THRESHOLD,
        metavar="GREY",
        help="mask values from here up are target, 1-255",
    )
    if images:
        add(
            "--range",
            nargs=2,
            type=float,
            metavar=("MIN", "MAX"),
            help="values that become 0 and 255 in images of more than 8 bits; default: each one's own",
        )
    if maps:
        add("--maps-root", metavar="DIR", help="label maps in DIR/NAME, not in the data set's folder")


def open_datasets(args: argparse.Namespace) -> list[DatasetFolder]:
    """The data sets that a command line names; what was found is printed once."""
    if args.split and len(args.split) > 2:
        raise DataError("--split: expected a folder, or a training and a test list")
    if not 1 <= args.mask_threshold <= 255:
        raise DataError(f"--mask-threshold: found {args.mask_threshold}, expected 1 to 255")
    low, high = getattr(args, "range", None) or (0, 1)
    if not low < high:
        raise DataError(f"--range: found {low:g} {high:g}, expected MIN < MAX")
    found = []
    for name in dict.fromkeys(args.dataset):
        data = find_dataset(name, args.data_root, args.split)
        lists = ", ".join(f"{len(samples)} {part}" for part, samples in data.lists.items())
        print(f"{data.root}: {data.layout}; {lists}", *data.notes, sep="\n  ")
        found.append(data)
    return found
