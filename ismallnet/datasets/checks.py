"""What is said of a data set: entries that cannot be used, test images that are seen in training, masks
that lie beside their targets."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ismallnet.cli import some
from ismallnet.datasets.sample import DatasetFolder, Sample
from ismallnet.images.picture import decode
from ismallnet.parallel import read_ahead

MOST_NAMED = 10  # entries in a report
SIDE = 32  # cells, of the pictures that are compared
TWIN = 0.995  # cosine from which on they are of the same scene

AREAS = range(4, 151)  # px, of the targets that are looked at
AROUND = 3  # px, beside a target that belong to its surroundings
MIN_OFFSET_PX = 0.1  # px, of the mean offset
STANDARD_ERRORS = 5.0  # of the mean, by which it differs from 0
SIDES = (("higher", "lower"), ("further left", "further right"))  # of negative and positive y, x


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 8-connected components of an HxW uint8 mask, as the metrics count them: labels, HxW, from 1;
    (n, 5) left, top, width, height, area; (n, 2) centres y, x."""
    _, labels, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return labels, stats[1:], centres[1:, ::-1]


def offsets(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How far the masks' centres lie from those of the targets' light, (n, 2) y, x in px, of targets
    that stand alone and inside of the image.

    The light is what is above the median of the surroundings, on the mask and up to 2 px beside it.

    Args:
        image: HxW, bright targets.
        mask: HxW, target above 0.
    """
    target = (mask > 0).astype(np.uint8)
    labels, boxes, centres = components(target)
    found = []
    for k, (left, top, width, height, area) in enumerate(boxes):
        rows = slice(top - AROUND, top + height + AROUND)
        columns = slice(left - AROUND, left + width + AROUND)
        inside = min(rows.start, columns.start) >= 0
        inside = inside and rows.stop <= mask.shape[0] and columns.stop <= mask.shape[1]
        if area not in AREAS or not inside or target[rows, columns].sum() != area:
            continue
        near = cv2.dilate((labels[rows, columns] == k + 1).astype(np.uint8), np.ones((5, 5))) > 0
        pixels = image[rows, columns].astype(np.float64)
        light = (pixels - np.median(pixels[~near])).clip(0) * near
        if light.sum() > 0:
            y, x = np.indices(light.shape)
            centre = np.array([(y * light).sum(), (x * light).sum()]) / light.sum()
            found.append(centres[k] - centre - (rows.start, columns.start))
    return np.reshape(found, (-1, 2))


def mirrors_for(found: np.ndarray) -> str:
    """How crops may be mirrored, one of `--mirror`, by the `offsets` of all images of a training list:
    masks that lie to one side of their targets lie to the other in mirrored crops. At the diagonal y
    and x change places, so equal offsets stay."""
    mean, aside = offset(found)
    if not aside.any():
        return "all"
    return "diagonal" if aside.all() and abs(mean[0] - mean[1]) <= MIN_OFFSET_PX else "none"


def offset_note(name: str, found: np.ndarray, mirror: str) -> str:
    """A note where the masks of a training list lie to one side of their targets, and what is done
    about it with `--mirror mirror`; empty where they do not."""
    mean, aside = offset(found)
    where = [f"{abs(m):.2f} px {w[int(m > 0)]}" for m, w, a in zip(mean, SIDES, aside) if a]
    if not where:
        return ""
    done = {
        "all": "Mirrored crops teach the other side too; --mirror auto leaves them out",
        "diagonal": "Crops are mirrored at the diagonal alone, which does not change that",
        "none": "Crops are not mirrored, which would turn it to the other side",
    }[mirror]
    return (
        f"note: {name}: the masks lie beside their targets, on average {' and '.join(where)} (of "
        f"{len(found)} targets). {done}"
    )


def offset(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of `offsets`, y and x in px, and whether each is more than chance, and not small."""
    if len(found) < 2:
        return np.zeros(2), np.zeros(2, bool)
    mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(len(found))
    return mean, (np.abs(mean) > MIN_OFFSET_PX) & (np.abs(mean) > STANDARD_ERRORS * error)


def complaint(data: DatasetFolder, split: str, problems: list[str]) -> str:
    """The message of all that cannot be used in a list; or in both, as "train and test"."""
    kinds = split.split(" and ")
    total = sum(len(data.lists[kind]) + len(data.problems[kind]) for kind in kinds)
    lines = [f"{data.root}: {len(problems)} of the {split} list's {total} entries cannot be used:"]
    lines += first_of(problems)
    if len(problems) > max(MOST_NAMED, total / 2):
        lines.append("More than half: is the download or the copy complete, and unpacked?")
    return "\n  ".join([*lines, "Fix or remove them, then type the same command again"])


def first_of(problems: list[str]) -> list[str]:
    """The first problems, and how many more there are."""
    more = len(problems) - MOST_NAMED
    return problems[:MOST_NAMED] + ([f"… and {more} more, not named here"] if more > 0 else [])


# --- test images that are seen in training --------------------------------------------------------


def same_files(train: list[Sample], test: list[Sample]) -> list[tuple[Sample, Sample]]:
    """Test images that are, byte by byte, copies of training images, each with one of these. Only files
    of equal size are opened."""
    sizes = {sample.image: sample.image.stat().st_size for sample in (*train, *test)}
    shared = {sizes[s.image] for s in train} & {sizes[s.image] for s in test} - {0}
    alike = [[s for s in samples if sizes[s.image] in shared] for samples in (train, test)]
    return copies(*({s: digest_of(s.image) for s in samples} for samples in alike))


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copies(train: dict[Sample, str], test: dict[Sample, str]) -> list[tuple[Sample, Sample]]:
    """Of samples with digests of their images the test samples that are copies of training samples."""
    first = {digest: sample for sample, digest in reversed(train.items())}
    pairs = [(sample, first[digest]) for sample, digest in test.items() if digest in first]
    return [(sample, other) for sample, other in pairs if sample.image != other.image]


def copies_note(data: DatasetFolder) -> list[str]:
    """A warning of test images that are copies of training images, or nothing."""
    pairs = same_files(data.lists.get("train", []), data.lists.get("test", []))
    names = [f"{sample.name} = {other.name}" for sample, other in pairs]
    head = f"warning: {len(pairs)} test images are copies of training images"
    return [f"{head}: {some(names)}"] if pairs else []


def near_twins(test: Sequence[Sample], train: Sequence[Sample]) -> dict[str, str]:
    """The test images that have a near twin in the training list, which a network has learned from:
    by name, the twin's. Near twins are 32x32 pictures, less their mean, of a cosine of TWIN or more."""
    if not test or not train:
        return {}
    likeness = thumbnails(test) @ thumbnails(train).T
    nearest = likeness.argmax(axis=1)
    return {s.name: train[k].name for s, k, row in zip(test, nearest, likeness) if row[k] >= TWIN}


def thumbnails(samples: Sequence[Sample]) -> np.ndarray:
    """Images as unit vectors, (images, 1024): their grey values in 32x32 cells, less their mean."""

    def thumbnail(sample: Sample) -> np.ndarray:
        pixels = np.nan_to_num(decode(sample.image).astype(np.float32))
        grey = pixels[..., :3].mean(axis=2) if pixels.ndim == 3 else pixels
        cells = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
        cells -= cells.mean()
        return cells / max(np.linalg.norm(cells), 1e-6)

    return np.stack(list(read_ahead(thumbnail, samples)))
