"""What the pixels of mask files mean: decided once for a data set, from all masks of its lists. Each
file is opened once."""

import contextlib
import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.datasets.sample import DatasetFolder, LoadedMask, MaskRule, Sample
from ismallnet.files import READ_ERRORS, read_json
from ismallnet.images.picture import decode, open_picture
from ismallnet.parallel import read_ahead

ASPECT_TOLERANCE = 0.02  # between a mask and its image
TARGET = 128  # grey values from here up are target, unless --mask-threshold says otherwise
SOFT = "are not binary"
FAINT = "hold values above 0, but no target (--mask-threshold 1: all above 0 is target)"
INVERTED = "are target in more than half of their pixels"


# --- one file ----------------------------------------------------------------------------------------


def load_mask(path: Path) -> LoadedMask:
    raw = path.read_bytes()
    pixels = mask_pixels(path, raw)
    digest, packed = hashlib.sha256(raw).hexdigest(), zlib.compress(pixels.tobytes(), 1)
    shape, dtype, values = pixels.shape, pixels.dtype.str, np.unique(pixels, return_counts=True)
    return LoadedMask(len(raw), zlib.crc32(raw), digest, shape, dtype, packed, *values)


def mask_pixels(path: Path, raw: bytes) -> np.ndarray:
    """A mask file's values at their own depth, HxW. Colours count by their largest channel; of a
    palette that is not grey every pixel that is not black is 255, of one that is black altogether the
    numbers count; alpha is the mask where the colours are constant, and alpha is not or is 0."""
    pixels = decode(path, raw)
    with contextlib.suppress(*READ_ERRORS), open_picture(path, raw) as picture:  # that Pillow reads
        special = picture.mode in ("P", "PA", "RGBA", "LA") and picture.size == pixels.shape[1::-1]
        if special and (meant := by_palette_or_alpha(picture, pixels)) is not None:
            return meant
    pixels = pixels.max(axis=2) if pixels.ndim == 3 else pixels
    return np.nan_to_num(pixels).clip(0, 65535) if pixels.dtype.kind in "fi" else pixels


def by_palette_or_alpha(picture, pixels: np.ndarray) -> np.ndarray | None:
    """A mask in the palette or alpha of an open picture; None where it is in its pixels."""
    if picture.mode == "P" and not pixels.any():
        return np.array(picture)
    rgba = np.array(picture.convert("RGBA"))
    colours, alpha = rgba[..., :3], rgba[..., 3]
    if (np.ptp(alpha) or not alpha.any()) and not np.ptp(colours.reshape(-1, 3), axis=0).any():
        return alpha
    if picture.mode in ("P", "PA") and (colours != colours[..., :1]).any():
        return np.where(colours.any(axis=2), 255, 0).astype(np.uint8)
    return None


# --- the masks of samples ----------------------------------------------------------------------------


def loaded_mask(sample: Sample) -> LoadedMask | None:
    """The mask file of a sample, read now if it was not; None where there is none."""
    return sample.loaded or (load_mask(sample.mask) if sample.mask else None)


def read_mask_values(sample: Sample, shape: tuple[int, int]) -> np.ndarray:
    """The grey values of a sample's mask, HxW uint8; all 0 without a mask file.

    Args:
        shape: the image's (H, W); a mask of another size is brought to it by nearest neighbour.

    Raises:
        DataError: unreadable, or its aspect ratio is more than 2 % off the image's.
    """
    file = loaded_mask(sample)
    if file is None:
        return np.zeros(shape, np.uint8)
    pixels = np.frombuffer(zlib.decompress(file.packed), file.dtype).reshape(file.shape)
    if file.shape != shape:  # before anything is made of the values
        check_aspect(sample.mask, file.shape, shape)
        if pixels.dtype not in (np.uint8, np.uint16, np.float32):
            pixels = pixels.astype(np.float32)
        pixels = cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_NEAREST)
    return grey_values(pixels, sample.rule or decide([np.unique(pixels)]))


def grey_values(pixels: np.ndarray, rule: MaskRule) -> np.ndarray:
    """A mask's values as they lie in the file, of any shape -> uint8 grey."""
    if rule.numbers:
        return np.where(pixels > 0, 255, 0).astype(np.uint8)
    if pixels.dtype == np.uint8:
        return pixels
    scaled = np.floor(pixels.astype(np.float64) * (255 / (rule.deep or 255)) + 1e-9)
    return np.maximum(scaled.clip(0, 255), pixels > 0).astype(np.uint8)  # no target becomes 0


def read_mask(sample: Sample, shape: tuple[int, int], threshold: int = TARGET) -> np.ndarray:
    """The ground truth of a sample at its image's size (H, W): HxW uint8, 0 or 255."""
    return np.where(read_mask_values(sample, shape) >= threshold, 255, 0).astype(np.uint8)


def is_resized(sample: Sample, shape: tuple[int, int]) -> bool:
    """Whether a sample's mask file has another size than its image."""
    return sample.mask is not None and loaded_mask(sample).shape != shape


def resized_note(names: list[str]) -> str:
    """What a run says, once, of the masks that it resized."""
    which = f" ({some(names)})" if names else ""
    return f"{len(names)} masks resized to their images{which}"


def check_aspect(path: Path, mask: tuple[int, int], shape: tuple[int, int]) -> None:
    """Refuses a mask whose shape, (H, W), is more than 2 % off its image's."""
    (h, w), (height, width) = mask, shape
    aspect = (w * height) / (h * width)
    if max(aspect, 1 / aspect) > 1 + ASPECT_TOLERANCE:
        raise DataError(
            f"{path}: the mask is {w}x{h}, its image {width}x{height} (width x height): expected the "
            f"same size, or the same shape within {ASPECT_TOLERANCE:.0%}. Where they are swapped, one "
            "has lost its EXIF orientation; save both upright"
        )


def masks_digest(samples: list[Sample]) -> str:
    """A digest of the names of samples and of their masks' contents, of which metrics are."""
    whole = hashlib.sha256()
    for sample in samples:
        crc = loaded_mask(sample).crc if sample.mask else 0
        whole.update(f"{sample.name} {crc}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


# --- the masks of a data set -------------------------------------------------------------------------


def decide(uniques: Iterable[np.ndarray], threshold: int = TARGET) -> MaskRule:
    """The rule of a set, from the different values of each of its masks."""
    uniques = [np.zeros(0), *uniques]
    deep = np.concatenate([values for values in uniques if values.dtype != np.uint8])
    largest = deep.max(initial=0)
    top = 65535.0 if largest > 255 else 1.0 if largest <= 1 and (deep % 1).any() else 255.0
    rule = MaskRule(deep=top if len(deep) else 0)
    largest_grey = max(grey_values(values, rule).max(initial=0) for values in uniques)
    reached = largest_grey >= min(threshold, TARGET)
    every = [f"{value:g}" for value in np.unique(np.concatenate(uniques))]
    text = " and ".join(every) if len(every) <= 2 else ", ".join(every)
    text = text if len(every) <= 6 else f"{', '.join(every[:3])} … {every[-1]}"
    return MaskRule(numbers=not reached, deep=rule.deep, values=text)


def load_masks(data: DatasetFolder, threshold: int, needed: tuple[str, ...]) -> None:
    """Reads the masks of the lists that are needed, decides what their values mean, and counts target
    pixels. Masks that cannot be read are left to whoever needs them, to name them all."""
    samples = [sample for entries in data.lists.values() for sample in entries]
    if data.reading.missing_masks == "empty":
        count = sum(sample.mask is None for sample in samples)
        data.notes.append(f"{count} images have no mask, so no targets")
    rule = recorded_rule(data, threshold)
    if rule:
        samples = [sample for kind in needed for sample in data.lists.get(kind, ())]
    paths = list(dict.fromkeys(sample.mask for sample in samples if sample.mask))
    files = {path: file for path, file in zip(paths, read_ahead(try_read, paths)) if file}
    rule = rule or decide((file.values for file in files.values()), threshold)
    doubts = {path: doubt(file, rule, threshold) for path, file in sorted(files.items())}
    if files:
        holds_targets = any((file.values > 0).any() for file in files.values())
        data.notes.append(f"mask values {rule.values}; {target_note(rule, threshold, holds_targets)}")
    for text in (SOFT, FAINT, INVERTED):
        if names := [path.name for path, said in doubts.items() if said == text]:
            data.notes.append(f"note: {len(names)} masks {text}: {some(names)}")
    for kind, entries in data.lists.items():
        read = [sample.mask for sample in entries if sample.mask in files]
        if read and all(doubts[path] == INVERTED for path in read):
            raise DataError(
                f"{data.root}: in all masks of the {kind} list more than half of the pixels are "
                "target: they are inverted, or their background has a colour. Change those in "
                f"{read[0].parent}: targets must be white, all else black"
            )
        data.targets[kind] = sum(target_pixels(files[path], rule, threshold) for path in read)
        data.lists[kind] = [replace(s, rule=rule, loaded=files.get(s.mask)) for s in entries]


def target_note(rule: MaskRule, threshold: int, holds_targets: bool) -> str:
    if not holds_targets:
        return "no mask holds a target"
    if rule.numbers:
        return "class or instance numbers: target above 0"
    return f"target from {threshold} up"


def try_read(path: Path) -> LoadedMask | None:
    try:
        return load_mask(path)
    except (DataError, OSError):
        return None


def modified(path: Path | None) -> int:
    return path.stat().st_mtime_ns if path else 0


def recorded_rule(data: DatasetFolder, threshold: int) -> MaskRule | None:
    """The rule by which stage 1 read these very masks, from maps.json; None where it does not know it,
    or where any of them was changed since, by size or time."""
    record = read_json(data.root / "maps.json")
    masks, samples = record.get("masks"), [s for entries in data.lists.values() for s in entries]
    if record.get("mask_threshold") != threshold or not isinstance(masks, dict):
        return None
    try:
        now = {s.name: [s.mask.stat().st_size if s.mask else 0, modified(s.mask)] for s in samples}
        if {name: [entry[0], entry[6]] for name, entry in masks.items()} == now:
            numbers, deep, values = record["masks_read"]
            return MaskRule(bool(numbers), float(deep), str(values))
    except (OSError, LookupError, TypeError, ValueError):
        pass
    return None


def target_pixels(file: LoadedMask, rule: MaskRule, threshold: int) -> int:
    return int(file.counts[grey_values(file.values, rule) >= threshold].sum())


def doubt(file: LoadedMask, rule: MaskRule, threshold: int) -> str:
    """What a person should know of a mask, or nothing."""
    target = target_pixels(file, rule, threshold)
    if 2 * target > file.counts.sum():
        return INVERTED
    if not target and (file.values > 0).any():
        return FAINT
    return "" if np.isin(grey_values(file.values, rule), (0, 255)).all() else SOFT
