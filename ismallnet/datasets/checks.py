"""What is said of a data set: entries that cannot be used, test images that are seen in training, masks
that lie beside their targets."""

import hashlib
from collections.abc import Sequence

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


def target_components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    labels, boxes, centres = target_components(target)
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
    other_side = "Mirrored crops lie to the other side; --mirror auto leaves them out. "
    return (
        f"note: {name}: the masks lie beside their targets, on average {' and '.join(where)} (of "
        f"{len(found)} targets). {other_side if mirror == 'all' else ''}Crops: --mirror {mirror}"
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
    lines += problems[:MOST_NAMED]
    if (more := len(problems) - MOST_NAMED) > 0:
        lines.append(f"… and {more} more, not named here")
    return "\n  ".join([*lines, "Fix or remove them, then type the same command again"])


# --- test images that are seen in training --------------------------------------------------------


def digests_of_equal_sizes(train: list[Sample], test: list[Sample]) -> tuple[dict, dict]:
    """The digests of those image files of two lists that may be copies: of a size that both have."""
    sizes = {sample: sample.image.stat().st_size for sample in (*train, *test)}
    shared = {sizes[s] for s in train} & {sizes[s] for s in test} - {0}
    chosen = ([s for s in samples if sizes[s] in shared] for samples in (train, test))
    return tuple(
        {s: hashlib.sha256(s.image.read_bytes()).hexdigest() for s in samples} for samples in chosen
    )


def copies_note(train: dict[Sample, str], test: dict[Sample, str]) -> str:
    """A warning of test images that are copies of training images, byte by byte; empty where none is.

    Args:
        train, test: digests of the samples' image files.
    """
    first = {digest: sample for sample, digest in reversed(train.items())}
    pairs = [(s.image, first[digest].image) for s, digest in test.items() if digest in first]
    if not (names := [f"{image} = {other}" for image, other in pairs if image != other]):
        return ""
    return (
        f"warning: {len(names)} test images are copies of training images: {some(names, 3)}. The "
        "metrics are too good: take them out of one of the lists"
    )


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
