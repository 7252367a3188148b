"""Annotation files with outlines of targets: COCO (polygons, run lengths) and labelme."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np

from ismallnet.cli import DataError, some
from ismallnet.datasets.names import label_files, label_kind, walk
from ismallnet.datasets.pairing import BOXES
from ismallnet.datasets.shapes import Shape, covered, decode_counts
from ismallnet.files import disguise

LABELME_SHAPES = {"polygon": "polygon", "rectangle": "rectangle", "circle": "circle"}


@dataclass
class Picture:
    """What a file says of one picture.

    Args:
        names: what it may be called in the data set, the likeliest first.
        size: (H, W) that the file states.
        shapes: its targets.
        source: file and entry, for errors.
        folder: of the file.
    """

    names: tuple[str, ...]
    size: tuple[int, int] | None
    source: str
    folder: Path
    shapes: list[Shape] = field(default_factory=list)


@dataclass
class Annotations:
    """The pictures of one file or of many, and what was found in them."""

    pictures: list[Picture] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)  # annotations that are a box alone
    kinds: set[str] = field(default_factory=set)  # "COCO", "labelme"
    categories: Counter = field(default_factory=Counter)
    crowds: int = 0
    empty: list[str] = field(default_factory=list)  # run lengths that cover no pixel

    @property
    def shapes(self) -> Iterator[Shape]:
        return (shape for picture in self.pictures for shape in picture.shapes)

    def summary(self) -> str:
        """A line: what was read, and that all of it is target."""
        names = some([f"{name} ({count})" for name, count in sorted(self.categories.items())])
        crowds = f", {self.crowds} of them crowd regions" if self.crowds else ""
        return (
            f"{' and '.join(sorted(self.kinds))}, {len(self.pictures)} pictures, "
            f"{self.categories.total()} annotations{crowds}; all are target, of any category: {names}"
        )


def read_annotations(path: Path) -> Annotations:
    """The outlines in a COCO or labelme file, or in all .json files of a folder.

    Raises:
        DataError: not there, boxes alone, not such files, or without any outline. Single entries that
            cannot be used are in `problems`.
    """
    if not path.exists():
        raise DataError(f"--from-annotations {path}: not there; expected a .json file, or their folder")
    files = [path]
    if path.is_dir():
        files = [f for folder in walk(path) for f in sorted(folder.glob("*.json")) if f.name[0] != "."]
        files = [f for f in files if not (f.name == "maps.json" and (f.parent / "interior").is_dir())]
    kind = label_files(path) if path.is_dir() else label_kind(path)
    if not files or (path.is_file() and path.suffix.lower() != ".json"):
        found = f"found {kind}. {BOXES}" if kind else f"found {disguise(path) or 'no .json file'}"
        raise DataError(f"{path}: {found}; expected COCO's or labelme's .json")
    found = Annotations()
    for file in files:
        read_file(file, found)
    if found.boxes and not any(found.shapes):
        raise DataError(
            f"{path}: all {len(found.boxes)} annotations are boxes, without outlines. {BOXES}"
        )
    if found.boxes:
        found.problems.append(
            f"{path}: {len(found.boxes)} annotations are boxes, without outlines: {some(found.boxes)}"
        )
    if not found.problems and not any(found.shapes):
        raise DataError(f"{path}: found no annotation in it; with it all masks would be empty")
    return found


def read_file(path: Path, found: Annotations) -> None:
    """Adds what a file holds.

    Raises:
        DataError: neither COCO nor labelme.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file ({disguise(path) or error})") from None
    if not isinstance(content, dict):
        content = {}
    lists = [isinstance(content.get(key), list) for key in ("images", "annotations", "shapes")]
    if lists[0] and lists[1]:
        found.kinds.add("COCO")
        read_coco(content, path, found)
    elif lists[2]:
        found.kinds.add("labelme")
        read_labelme(content, path, found)
    else:
        raise DataError(
            f"{path}: found neither images and annotations (COCO) nor shapes (labelme) in it; leave it "
            "out, or name one file"
        )


# --- COCO ------------------------------------------------------------------------------------------


def read_coco(content: dict, path: Path, found: Annotations) -> None:
    pictures: dict = {}
    for k, image in enumerate(content["images"]):
        try:
            size = size_of(image.get("height"), image.get("width"))
            source = f"{path}, image {image['id']}"
            picture = Picture((str(image["file_name"]),), size, source, path.parent)
            if image["id"] in pictures:
                raise ValueError(f"the id {image['id']} is there twice")
            pictures[image["id"]] = picture
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            found.problems.append(f"{path}, images[{k}]: {reason(error)}")
    found.pictures += pictures.values()
    categories = names_of(content.get("categories"))
    for k, entry in enumerate(content["annotations"]):
        name = f"annotation {entry.get('id', k)}" if isinstance(entry, dict) else f"annotations[{k}]"
        try:
            if entry["image_id"] not in pictures:
                raise ValueError(f"its image {entry['image_id']} is not in the file")
            picture = pictures[entry["image_id"]]
            category = entry.get("category_id")
            found.categories[str(categories.get(category, category))] += 1
            found.crowds += bool(entry.get("iscrowd"))
            if entry.get("segmentation") in (None, [], {}, [[]]):
                found.boxes.append(name)
                continue
            shapes = segmentation(entry["segmentation"], picture)
            for shape in shapes:
                check_order(shape, picture.size, entry.get("bbox"))
                if shape.kind == "counts" and not sum(shape.counts[1::2]):
                    found.empty.append(name)
            picture.shapes += shapes
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            found.problems.append(f"{path}, {name}: {reason(error)}")


def names_of(categories: object) -> dict:
    """COCO's list of categories as {id: name}, of those that have both."""
    entries = categories if isinstance(categories, list) else []
    entries = [entry for entry in entries if isinstance(entry, dict)]
    return {e["id"]: e.get("name") for e in entries if isinstance(e.get("id"), int | str)}


def segmentation(found: list | dict, picture: Picture) -> list[Shape]:
    """The shapes of a COCO segmentation: polygons [[x, y, x, y, …], …], or run lengths."""
    if isinstance(found, list):
        if not all(isinstance(part, list) and len(part) % 2 == 0 for part in found):
            raise ValueError("expected polygons as lists x, y, x, y, …")
        return [Shape("polygon", points_of(np.reshape(part, (-1, 2)))) for part in found]
    counts = found["counts"]
    if isinstance(counts, str):
        counts = decode_counts(counts)
    height, width = found["size"]
    if not all(isinstance(n, int) and n >= 0 for n in (*counts, height, width)):
        raise ValueError("run lengths below 0, or no whole numbers")
    if sum(counts) != height * width:
        raise ValueError(f"run lengths of {sum(counts)} pixels, expected {height * width}")
    if picture.size not in (None, (height, width)):
        raise ValueError(f"run lengths of {width}x{height} pixels in an image of another size")
    picture.size = (height, width)
    return [Shape("counts", np.zeros((0, 2)), tuple(counts))]


def check_order(shape: Shape, size: tuple[int, int] | None, box: object) -> None:
    """
    Args:
        size: (H, W).
        box: COCO's x, y, width, height; anything else says nothing.

    Raises:
        ValueError: run lengths give one area in their box only if they are counted along the rows.
    """
    if shape.kind != "counts":
        return
    down = covered(shape, size)
    along = down.T.reshape(size)
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(n, (int, float)) for n in box)

    def fits(pixels: np.ndarray) -> bool:
        (y, x), box_is = np.nonzero(pixels), np.array(box)
        found = np.array((x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1))
        return bool(np.abs(found - box_is).max() <= 1.5)

    pieces = [cv2.connectedComponents(pixels.astype(np.uint8))[0] - 1 for pixels in (down, along)]
    if not pieces[0] or (numbers and fits(down)):
        return
    if (numbers and fits(along)) or pieces[0] > 2 * pieces[1]:
        raise ValueError(
            "its run lengths are counted along the rows, COCO's go down the columns; encode it again, "
            "with pycocotools.mask.encode(numpy.asfortranarray(mask))"
        )


# --- labelme ---------------------------------------------------------------------------------------


def read_labelme(content: dict, path: Path, found: Annotations) -> None:
    """labelme's imageData, the picture once more, is not read."""
    named = PureWindowsPath(str(content.get("imagePath") or "")).name
    size = (content.get("imageHeight"), content.get("imageWidth"))
    try:
        size = size_of(*size)
    except (TypeError, ValueError):
        found.problems.append(f"{path}: imageHeight, imageWidth {size}, expected whole numbers")
        size = None
    picture = Picture(tuple(filter(None, (named, path.stem))), size, str(path), path.parent)
    found.pictures.append(picture)
    for k, entry in enumerate(content["shapes"]):
        try:
            kind = entry.get("shape_type") or "polygon"
            if kind not in LABELME_SHAPES:
                expected = ", ".join(LABELME_SHAPES)
                raise ValueError(f"found a {kind}, expected {expected}")
            points = points_of(np.array(entry["points"]))
            if kind != "polygon" and len(points) != 2:
                raise ValueError(f"a {kind} of {len(points)} points, expected 2")
            picture.shapes.append(Shape(LABELME_SHAPES[kind], points))
            found.categories[str(entry.get("label"))] += 1
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            found.problems.append(f"{path}, shapes[{k}]: {reason(error)}")


def points_of(points: np.ndarray) -> np.ndarray:
    """Points as (n, 2) floats.

    Raises:
        ValueError: they are not.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"found points of shape {points.shape}, expected x, y each")
    if not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise ValueError(f"a point at {points[~(np.abs(points) <= 1e6).all(axis=1)][0].tolist()}")
    return points


def size_of(height: object, width: object) -> tuple[int, int] | None:
    """(H, W) as a file states them, also as text; None where it does not.

    Raises:
        TypeError, ValueError: they are no whole numbers.
    """
    return (int(height), int(width)) if height and width else None


def reason(error: Exception) -> str:
    return f"found no {error}" if isinstance(error, KeyError) else str(error)


def whole_numbers(found: Annotations) -> bool:
    """Whether all points of polygons are whole numbers, as those that count pixels are."""
    points = [shape.points for shape in found.shapes if shape.kind == "polygon"]
    return bool(points) and all((p == np.floor(p)).all() for p in points)


def fractions(found: Annotations) -> bool:
    """Whether all points lie between 0 and 1, as fractions of the picture's size do."""
    points = [shape.points for shape in found.shapes if len(shape.points)]
    return bool(points) and max((np.abs(p).max() for p in points), default=math.inf) <= 1
