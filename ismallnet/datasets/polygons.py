"""Masks of a data set from COCO and labelme files: NAME/masks/X.png, 255 on targets and 0 elsewhere.

Pixel (x, y) is the square from x to x+1 and y to y+1. It is target if its centre is in the outline; of
an outline that passes through centres the left and the top edge belong to it.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import cv2
import numpy as np
from skimage.draw import polygon2mask

from ismallnet.cli import DataError, optional, progress, some
from ismallnet.datasets.find import BOXES, find_images
from ismallnet.datasets.lists import Index
from ismallnet.datasets.pairing import leads_inside, walk
from ismallnet.datasets.sample import DatasetFolder, ImageFile, Reading
from ismallnet.files import atomic_write, disguise
from ismallnet.images.picture import image_shape

EDGE = 1e-7  # px, by which outlines are moved, so that the left and the top edge alone belong to them

Shape = np.ndarray | dict  # the corners of a polygon, (n, 2) x, y in px; or COCO's run lengths


class Picture(NamedTuple):
    """What a file says of one picture: its name, its size (H, W) and its shapes."""

    name: str
    size: tuple[int, int]
    source: str  # file and entry, for errors
    shapes: list[Shape]


# --- reading -------------------------------------------------------------------------------------


def read_annotations(path: Path) -> list[Picture]:
    """The pictures in a COCO or labelme file, or in all .json files of a folder.

    Raises:
        DataError: not there, not such files, without any outline, or an entry that cannot be used.
    """
    if not path.exists():
        raise DataError(f"--from-annotations {path}: not there; expected a .json file, or their folder")
    files = [f for folder in walk(path) for f in sorted(folder.glob("[!.]*.json"))] or [path]
    pictures = [picture for file in files if file.name != "maps.json" for picture in read_file(file)]
    if not any(picture.shapes for picture in pictures):
        raise DataError(f"{path}: found no annotation in it; with it all masks would be empty")
    return pictures


def read_file(path: Path) -> list[Picture]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        content = disguise(path) or error
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        return read_coco(content, path)
    if isinstance(content, dict) and "shapes" in content:
        return [read_labelme(content, path)]
    why = f" ({content})" if isinstance(content, str | Exception) else ""
    raise DataError(
        f"{path}: found no JSON of COCO (images and annotations) or labelme (shapes){why}; leave it "
        f"out, or name one file. {BOXES}"
    )


@contextlib.contextmanager
def reading_entry(place: str) -> Iterator[None]:
    """What libraries raise on a malformed entry becomes an error that names it."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise DataError(f"{place}: {'found no ' * isinstance(error, KeyError)}{error}") from error


def read_coco(content: dict, path: Path) -> list[Picture]:
    pictures: dict[object, Picture] = {}
    for k, image in enumerate(content["images"]):
        with reading_entry(f"{path}, images[{k}]"):
            number, size = image["id"], (int(image["height"]), int(image["width"]))
            if number in pictures:
                raise ValueError(f"the id {number} is there twice")
            pictures[number] = Picture(str(image["file_name"]), size, f"{path}, image {number}", [])
    for k, entry in enumerate(content["annotations"]):
        with reading_entry(f"{path}, annotations[{k}]"):
            pictures[entry["image_id"]].shapes.extend(coco_shapes(entry.get("segmentation")))
    return list(pictures.values())


def coco_shapes(segmentation: object) -> list[Shape]:
    """The shapes of a COCO segmentation: polygons [[x, y, x, y, …], …], or run lengths."""
    if segmentation in (None, [], {}, [[]]):
        raise ValueError(f"a box, without an outline. {BOXES}")
    if isinstance(segmentation, dict):
        return [segmentation]
    return [polygon(np.reshape(part, (-1, 2))) for part in segmentation]


def read_labelme(content: dict, path: Path) -> Picture:
    """labelme's imageData, the picture once more, is not read."""
    with reading_entry(str(path)):
        name = PureWindowsPath(content["imagePath"]).name
        size = int(content["imageHeight"]), int(content["imageWidth"])
    shapes = []
    for k, entry in enumerate(content["shapes"]):
        with reading_entry(f"{path}, shapes[{k}]"):
            if (kind := entry.get("shape_type") or "polygon") != "polygon":
                raise ValueError(f"a {kind}, expected a polygon")
            shapes.append(polygon(entry["points"]))
    return Picture(name, size, str(path), shapes)


def polygon(points: object) -> np.ndarray:
    """Its corners as (n, 2) floats; fractions of the image, as YOLO has them, are refused."""
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise ValueError(f"found points of shape {points.shape}, expected x, y of 3 or more")
    if not (np.abs(points) <= 1e6).all() or points.max() <= 1:
        raise ValueError(f"found points from {points.min():g} to {points.max():g}, expected pixels")
    return points


# --- drawing -------------------------------------------------------------------------------------


def mask_of(picture: Picture | None, size: tuple[int, int]) -> np.ndarray:
    """All shapes of a picture, HxW uint8, 0 or 255. Sizes are compared before anything is made.

    Args:
        size: of its image, (H, W).
    """
    if picture and picture.size != size:
        (height, width), (h, w) = size, picture.size
        raise DataError(
            f"{picture.source}: annotated at {w}x{h} (width x height), its image is {width}x{height}; "
            "expected the same. If they are swapped, one has lost its EXIF orientation"
        )
    mask = np.zeros(size, np.uint8)
    for k, shape in enumerate(picture.shapes if picture else ()):
        with reading_entry(f"{picture.source}: outline {k}"):
            mask[run_lengths(shape, size) if isinstance(shape, dict) else outlined(shape, size)] = 255
    return mask


def outlined(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres are in a polygon, HxW bool; of one that holds none the pixel that its
    middle lies in."""
    mask = polygon2mask(size, corners[:, ::-1] - 0.5 - EDGE)
    if not mask.any():
        column, row = np.floor((corners.min(axis=0) + corners.max(axis=0)) / 2).astype(int)
        if not (0 <= row < size[0] and 0 <= column < size[1]):
            raise ValueError(f"from {corners[0].tolist()} on, it is not in the image")
        mask[row, column] = True
    return mask


def run_lengths(coded: dict, size: tuple[int, int]) -> np.ndarray:
    """The pixels of COCO's run lengths, {"size": [H, W], "counts": …}, down the columns, HxW bool."""
    counts, shape = coded["counts"], list(size)
    total = shape[0] * shape[1] if isinstance(counts, str) else sum(counts)
    if list(coded["size"]) != shape or total != shape[0] * shape[1]:
        raise ValueError(f"run lengths of {total} pixels, {coded['size']}, expected {shape}")
    coco = optional("pycocotools.mask", "run lengths of COCO files")
    if isinstance(counts, str):
        coded = {"size": shape, "counts": counts.encode()}
    else:
        coded = coco.frPyObjects({"size": shape, "counts": counts}, *size)
    return np.asarray(coco.decode(coded)) > 0


# --- the masks of a data set ---------------------------------------------------------------------


def matched(
    pictures: list[Picture], images: list[ImageFile], root: Path
) -> tuple[dict[Path, Picture], list[str]]:
    """The picture of each image that has one, and the names of pictures without an image; refuses one
    that could be several images, or the second of an image."""
    index, chosen, absent = Index(images, root), {}, []
    for picture in pictures:
        named = index.named(picture.name) or index.named(re.split(r"[\\/]", picture.name)[-1])
        paths = [image.path for image in named]
        several = [*paths, *(chosen[path].source for path in paths if path in chosen)]
        if len(several) > 1:
            raise DataError(
                f"{picture.source}: {picture.name!r} could be {some([str(s) for s in several], 3)}; "
                "write the one that is meant, with its folder, in its file_name or imagePath"
            )
        if paths:
            chosen[paths[0]] = picture
        else:
            absent.append(picture.name)
    return chosen, absent


def draw_masks(
    name: str, data_root: str, path: str, split: list[str] | None, reading: Reading, overwrite: bool
) -> list[str]:
    """Writes the masks of a data set's images from annotations: all of them, or none.

    Args:
        name, data_root, split, reading: as `find_dataset` takes them.
        path: of a .json file or their folder, from the current folder or in the data set.

    Returns:
        Lines that say what was read and written.

    Raises:
        DataError: something cannot be used; or masks are there, without `overwrite`.
    """
    data, images, _ = find_images(name, data_root, split, reading)
    source = next((p for p in (Path(path), data.root / path) if p.exists()), Path(path))
    pictures = read_annotations(source)
    of_image, absent = matched(pictures, images, data.root)
    if len(absent) == len(pictures):
        raise DataError(f"{data.root}: has none of the {len(absent)} annotated images: {some(absent)}")
    files = mask_paths(data, images)
    old = [image.mask or f for f, image in zip(files, images) if image.mask or f.exists()]
    if old and not overwrite:
        raise DataError(
            f"{old[0].parent}: {len(old)} masks are there: {some([file.name for file in old])}; to "
            "replace them, type --overwrite; to keep them, leave --from-annotations out"
        )
    pngs = []
    for image in progress(images, f"{data.name} annotations", len(images)):
        mask = mask_of(of_image.get(image.path), image_shape(image.path))
        pngs.append(cv2.imencode(".png", mask)[1])
    for file, png in zip(files, pngs):
        with atomic_write(file) as out:
            out.write(png)
    empty = [image.name for image in images if image.path not in of_image]
    lines = [f"{len(pngs)} masks written; outlines of all categories are target"]
    if absent:
        lines.append(f"note: {len(absent)} annotated pictures are not in the data set: {some(absent)}")
    if empty:
        lines.append(f"note: {len(empty)} images have no annotation, so no target: {some(empty)}")
    return lines


def mask_paths(data: DatasetFolder, images: list[ImageFile]) -> list[Path]:
    """Where the masks of images are to be: a PNG each, in the data set's mask folder."""
    paths: dict[Path, None] = {}
    for image in images:
        folder = image.masks / image.subfolder if image.masks else data.root / "masks" / image.folder
        path = folder / f"{image.stem}{data.reading.mask_suffix}.png"
        if path in paths:
            raise DataError(
                f"{image.path}: its mask and another image's would be one file, {path}; move masks to "
                "a folder for each split folder, as masks/train"
            )
        if not data.reading.follow_links and not leads_inside(path, data.root):
            raise DataError(f"{path}: a link that leads out of the data set; --follow-links allows it")
        paths[path] = None
    return list(paths)
