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
from ismallnet.datasets.sample import AS_IT_LIES, DatasetFolder, ImageFile, Reading
from ismallnet.files import atomic_write, disguise, sweep
from ismallnet.images.picture import image_shape

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
EDGE = 1e-7  # px, by which outlines are moved, so that the left and the top edge alone belong to them

Shape = np.ndarray | dict  # the corners of a polygon, (n, 2) x, y in px; or COCO's run lengths


class Picture(NamedTuple):
    """What a file says of one picture: the names that it may have in the data set, its size (H, W) and
    its shapes."""

    names: tuple[str, ...]
    size: tuple[int, int] | None
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
    files = [f for folder in walk(path) for f in sorted(folder.glob("*.json"))] or [path]
    files = [f for f in files if f.name != "maps.json" and f.name[0] != "."]
    if not files or files[0].suffix.lower() != ".json":
        raise DataError(f"{path}: found no .json; expected COCO's or labelme's. {BOXES}")
    pictures = [picture for file in files for picture in read_file(file)]
    shapes = [shape for picture in pictures for shape in picture.shapes]
    if not shapes:
        raise DataError(f"{path}: found no annotation in it; with it all masks would be empty")
    outlines = [shape for shape in shapes if isinstance(shape, np.ndarray)]
    if outlines and np.abs(np.concatenate(outlines)).max() <= 1:
        raise DataError(f"{path}: all points lie between 0 and 1, as fractions do; expected pixels")
    return pictures


def read_file(path: Path) -> list[Picture]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file ({disguise(path) or error})") from None
    keys = content.keys() if isinstance(content, dict) else ()
    if {"images", "annotations"} <= set(keys):
        return read_coco(content, path)
    if "shapes" in keys:
        return [read_labelme(content, path)]
    raise DataError(
        f"{path}: found neither images and annotations (COCO) nor shapes (labelme); leave it out, or "
        "name one file"
    )


@contextlib.contextmanager
def reading_entry(place: str) -> Iterator[None]:
    """What libraries raise on a malformed entry becomes an error that names it."""
    try:
        yield
    except MALFORMED as error:
        raise DataError(f"{place}: {'found no ' * isinstance(error, KeyError)}{error}") from error


def read_coco(content: dict, path: Path) -> list[Picture]:
    pictures: dict[object, Picture] = {}
    for k, image in enumerate(content["images"]):
        with reading_entry(f"{path}, images[{k}]"):
            number, size = image["id"], size_of(image.get("height"), image.get("width"))
            if number in pictures:
                raise ValueError(f"the id {number} is there twice")
            pictures[number] = Picture((str(image["file_name"]),), size, f"{path}, image {number}", [])
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
    return [points_of(np.reshape(part, (-1, 2))) for part in segmentation]


def read_labelme(content: dict, path: Path) -> Picture:
    """labelme's imageData, the picture once more, is not read."""
    name = PureWindowsPath(str(content.get("imagePath") or "")).name
    with reading_entry(str(path)):
        size = size_of(content.get("imageHeight"), content.get("imageWidth"))
    shapes = []
    for k, entry in enumerate(content["shapes"]):
        with reading_entry(f"{path}, shapes[{k}]"):
            if (kind := entry.get("shape_type") or "polygon") != "polygon":
                raise ValueError(f"a {kind}, expected a polygon")
            shapes.append(points_of(entry["points"]))
    return Picture(tuple(filter(None, (name, path.stem))), size, str(path), shapes)


def points_of(points: object) -> np.ndarray:
    """Points as (n, 2) floats."""
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"found points of shape {points.shape}, expected x, y each")
    if not (np.abs(points) <= 1e6).all():
        raise ValueError("points are not numbers, or beyond 1,000,000 px")
    return points


def size_of(height: object, width: object) -> tuple[int, int] | None:
    """(H, W) as a file states them, also as text; None where it does not."""
    return (int(height), int(width)) if height and width else None


# --- drawing -------------------------------------------------------------------------------------


def mask_of(picture: Picture | None, size: tuple[int, int], outline_pixels: bool = False) -> np.ndarray:
    """All shapes of a picture, HxW uint8, 0 or 255. Sizes are compared before anything is made.

    Args:
        size: of its image, (H, W).
        outline_pixels: points are pixels' numbers, and the outline belongs to the target.
    """
    if picture and picture.size not in (None, size):
        (height, width), (h, w) = size, picture.size
        raise DataError(
            f"{picture.source}: annotated at {w}x{h} (width x height), its image is {width}x{height}; "
            "expected the same. If they are swapped, one has lost its EXIF orientation"
        )
    mask = np.zeros(size, np.uint8)
    for k, shape in enumerate(picture.shapes if picture else ()):
        with reading_entry(f"{picture.source}: outline {k}"):
            coded = isinstance(shape, dict)
            mask[run_lengths(shape, size) if coded else outlined(shape, size, outline_pixels)] = 255
    return mask


def outlined(corners: np.ndarray, size: tuple[int, int], outline_pixels: bool) -> np.ndarray:
    """The pixels whose centres are in a polygon, HxW bool; of one that holds none the pixel that its
    middle lies in."""
    if outline_pixels:
        whole = np.floor(corners + EDGE).astype(np.int32)
        mask = cv2.fillPoly(np.zeros(size, np.uint8), [whole], 1) > 0
    elif len(corners) < 3:
        raise ValueError(
            f"a polygon of {len(corners)} points, expected 3 or more. If points are pixels' numbers "
            "(OpenCV's findContours), type --outline-pixels"
        )
    else:
        mask = polygon2mask(size, corners[:, ::-1] - 0.5 - EDGE)
    if not mask.any():
        column, row = np.floor((corners.min(axis=0) + corners.max(axis=0)) / 2).astype(int)
        if not (0 <= row < size[0] and 0 <= column < size[1]):
            raise ValueError(f"from {corners[0].tolist()} on, it is not in the image")
        mask[row, column] = True
    return mask


def run_lengths(coded: dict, size: tuple[int, int]) -> np.ndarray:
    """The pixels of COCO's run lengths, {"size": [H, W], "counts": …}, down the columns, HxW bool."""
    counts = coded["counts"]
    if tuple(coded["size"]) != size:
        raise ValueError(f"run lengths of {coded['size']} pixels (height, width), of another size")
    coco = optional("pycocotools.mask", "run lengths of COCO files")
    if isinstance(counts, str):
        coded = {"size": list(size), "counts": counts.encode()}
    elif min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        raise ValueError(f"run lengths of {sum(counts)} pixels, expected {size[0] * size[1]}")
    else:
        coded = coco.frPyObjects({"size": list(size), "counts": counts}, *size)
    pixels = np.asarray(coco.decode(coded)) > 0
    if not pixels.any():
        raise ValueError("its run lengths cover no pixel")
    return pixels


# --- the masks of a data set ---------------------------------------------------------------------


def matched(
    pictures: list[Picture], images: list[ImageFile], root: Path
) -> tuple[dict[Path, Picture], list[str]]:
    """The picture of each image that has one, and the names of pictures without an image; refuses one
    that could be several images, or the second of an image."""
    index, chosen, absent = Index(images, root), {}, []
    for picture in pictures:
        named = [index.named(n) or index.named(re.split(r"[\\/]", n)[-1]) for n in picture.names]
        paths = dict.fromkeys(image.path for images in named for image in images)
        candidates = [*paths, *(chosen[path].source for path in paths if path in chosen)]
        if len(candidates) > 1:
            several = " and ".join(str(candidate) for candidate in candidates[:3])
            raise DataError(
                f"{picture.source}: {picture.names[0]!r} could be {several}; write the one that is "
                "meant, with its folder, in its file_name or imagePath"
            )
        if candidates:
            chosen[candidates[0]] = picture
        else:
            absent.append(picture.names[0])
    return chosen, absent


def draw_masks(
    name: str,
    data_root: str,
    path: str,
    split: list[str] | None = None,
    reading: Reading = AS_IT_LIES,
    outline_pixels: bool = False,
    overwrite: bool = False,
) -> list[str]:
    """Writes the masks of a data set's images from annotations: all of them, or none.

    Args:
        name, data_root, split, reading: as `find_dataset` takes them.
        path: of a .json file or their folder, from the current folder or in the data set.
        outline_pixels: as in `mask_of`.

    Returns:
        Lines that say what was read and written.

    Raises:
        DataError: something cannot be used; or other masks are there, without `overwrite`.
    """
    data, images, _ = find_images(name, data_root, split, reading)
    source = next((p for p in (Path(path), data.root / path) if p.exists()), Path(path))
    pictures = read_annotations(source)
    of_image, absent = matched(pictures, images, data.root)
    if len(absent) == len(pictures):
        raise DataError(
            f"{data.root}: has none of the {len(absent)} annotated pictures: {some(absent)}"
        )
    masks = masks_of(data, images, of_image, outline_pixels)
    new = {f: png for f, png in masks.items() if not (f.is_file() and f.read_bytes() == png)}
    if not overwrite and (old := [file for file in new if file.exists()]):
        raise DataError(
            f"{old[0].parent}: {len(old)} other masks are there: {some([file.name for file in old])}; "
            "to replace them, type --overwrite"
        )
    sweep(*{file.parent for file in new})
    for file, png in new.items():
        with atomic_write(file) as out:
            out.write(png)
    empty = [image.name for image in images if image.path not in of_image]
    counts = f"{len(new)} masks written, {len(masks) - len(new)} kept"
    lines = [f"{counts}; outlines of all categories are target"]
    if absent:
        lines.append(f"note: {len(absent)} annotated pictures are not in the data set: {some(absent)}")
    if empty:
        lines.append(f"note: {len(empty)} images have no annotation, so no target: {some(empty)}")
    return lines


def masks_of(
    data: DatasetFolder,
    images: list[ImageFile],
    of_image: dict[Path, Picture],
    outline_pixels: bool,
) -> dict[Path, bytes]:
    """The masks of all images, as PNG, by their paths."""
    masks: dict[Path, bytes] = {}
    for image in progress(images, f"{data.name} annotations", len(images)):
        file = mask_path(image, data)
        if file in masks:
            raise DataError(
                f"{image.path}: its mask and another image's would be one file, {file}; move masks to "
                "a folder for each split folder, as masks/train"
            )
        mask = mask_of(of_image.get(image.path), image_shape(image.path), outline_pixels)
        masks[file] = cv2.imencode(".png", mask)[1].tobytes()
    return masks


def mask_path(image: ImageFile, data: DatasetFolder) -> Path:
    """Where an image's mask is, or is to be: a PNG in the data set."""
    folder = image.masks / image.subfolder if image.masks else data.root / "masks" / image.folder
    path = image.mask or folder / f"{image.stem}{data.reading.mask_suffix}.png"
    if path.suffix.lower() != ".png":
        raise DataError(f"{path}: a mask that is not PNG is there; move it away")
    if not data.reading.follow_links and not leads_inside(path, data.root):
        raise DataError(f"{path}: a link that leads out of the data set; --follow-links allows it")
    return path
