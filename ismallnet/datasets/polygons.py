"""Masks of a data set from COCO and labelme files: NAME/masks/X.png, 255 on targets and 0 elsewhere.

Pixel (x, y) is the square from x to x+1 and y to y+1. It is target if its centre is in the outline; of
an outline that passes through centres the left and the top edge belong to it.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np
from skimage import draw

from ismallnet.cli import DataError, optional, progress, some
from ismallnet.datasets.checks import named
from ismallnet.datasets.find import BOXES, find_images
from ismallnet.datasets.lists import Index
from ismallnet.datasets.names import PARTS, has_images, kind_of, label_files, leads_inside, walk
from ismallnet.datasets.pairing import own_masks
from ismallnet.datasets.sample import AS_IT_LIES, DatasetFolder, ImageFile, Reading
from ismallnet.files import disguise, sweep, write_png
from ismallnet.images.picture import decode, image_shape

POINTS = {"polygon": range(1, 10**9), "rectangle": range(2, 3), "circle": range(2, 3)}  # of a shape
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
EDGE = 1e-7  # px, by which outlines are moved, so that the left and the top edge alone belong to them


@dataclass
class Shape:
    """One outlined or encoded area.

    Args:
        kind: "polygon", "rectangle", "circle" or "counts".
        points: (n, 2) x, y in px: a polygon's corners, two opposite ones of a rectangle, a circle's
            centre and a point of its outline.
        counts: COCO's run lengths, {"size": [H, W], "counts": …}.
        box: x, y, width, height that the file states for run lengths.
    """

    kind: str
    points: np.ndarray
    counts: dict = field(default_factory=dict)
    box: object = None


@dataclass
class Picture:
    """What a file says of one picture: the names that it may have in the data set, the likeliest first,
    and its size (H, W)."""

    names: tuple[str, ...]
    size: tuple[int, int] | None
    source: str  # file and entry, for errors
    folder: Path  # of the file
    shapes: list[Shape] = field(default_factory=list)


@dataclass
class Annotations:
    """The pictures of one file or of many, and what was read in them."""

    pictures: list[Picture] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    categories: Counter = field(default_factory=Counter)

    @property
    def shapes(self) -> list[Shape]:
        return [shape for picture in self.pictures for shape in picture.shapes]


# --- reading -------------------------------------------------------------------------------------


def read_annotations(path: Path) -> Annotations:
    """The outlines in a COCO or labelme file, or in all .json files of a folder.

    Raises:
        DataError: not there, not such files, or without any outline. Single entries that cannot be used
            are in `problems`.
    """
    if not path.exists():
        raise DataError(f"--from-annotations {path}: not there; expected a .json file, or their folder")
    files = [f for folder in walk(path) for f in sorted(folder.glob("*.json"))] or [path]
    files = [f for f in files if f.name != "maps.json" and f.name[0] != "."]
    if not files or files[0].suffix.lower() != ".json":
        content = label_files(path) or disguise(path) or "no .json"
        raise DataError(f"{path}: found {content}; expected COCO's or labelme's. {BOXES}")
    annotations = Annotations()
    for file in files:
        read_file(file, annotations)
    if not annotations.problems and not annotations.shapes:
        raise DataError(f"{path}: found no annotation in it; with it all masks would be empty")
    points = np.concatenate([np.zeros((0, 2)), *(shape.points for shape in annotations.shapes)])
    if len(points) and np.abs(points).max() <= 1:
        raise DataError(f"{path}: all points lie between 0 and 1, as fractions do; expected pixels")
    return annotations


def read_file(path: Path, annotations: Annotations) -> None:
    """Adds what a file holds.

    Raises:
        DataError: neither COCO nor labelme.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file ({disguise(path) or error})") from None
    content = content if isinstance(content, dict) else {}
    lists = {key for key, value in content.items() if isinstance(value, list)}
    if {"images", "annotations"} <= lists:
        read_coco(content, path, annotations)
    elif "shapes" in lists:
        read_labelme(content, path, annotations)
    else:
        raise DataError(
            f"{path}: found neither images and annotations (COCO) nor shapes (labelme) in it; leave it "
            "out, or name one file"
        )


def read_coco(content: dict, path: Path, annotations: Annotations) -> None:
    pictures: dict[object, Picture] = {}
    for k, image in enumerate(content["images"]):
        try:
            number, size = image["id"], size_of(image.get("height"), image.get("width"))
            if number in pictures:
                raise ValueError(f"the id {number} is there twice")
            source = f"{path}, image {number}"
            pictures[number] = Picture((str(image["file_name"]),), size, source, path.parent)
        except MALFORMED as error:
            annotations.problems.append(f"{path}, images[{k}]: {reason(error)}")
    annotations.pictures += pictures.values()
    for k, entry in enumerate(content["annotations"]):
        try:
            picture = pictures[entry["image_id"]]
            picture.shapes += coco_shapes(entry.get("segmentation"), picture, entry.get("bbox"))
            annotations.categories[str(entry.get("category_id"))] += 1
        except MALFORMED as error:
            annotations.problems.append(f"{path}, annotations[{k}]: {reason(error)}")


def coco_shapes(segmentation: object, picture: Picture, box: object) -> list[Shape]:
    """The shapes of a COCO segmentation: polygons [[x, y, x, y, …], …], or run lengths.

    Raises:
        ValueError and others: a box alone, malformed, or of another size than the picture's.
    """
    if segmentation in (None, [], {}, [[]]):
        raise ValueError(f"a box, without an outline. {BOXES}")
    if isinstance(segmentation, list):
        return [Shape("polygon", points_of(np.reshape(part, (-1, 2)))) for part in segmentation]
    height, width = size = tuple(int(side) for side in segmentation["size"])
    counts = segmentation["counts"]
    if not isinstance(counts, str) and (min(counts, default=0) < 0 or sum(counts) != height * width):
        raise ValueError(f"run lengths of {sum(counts)} pixels, expected {height * width}")
    if picture.size not in (None, size):
        raise ValueError(f"run lengths of {width}x{height} pixels in an image of another size")
    picture.size = size
    counts = {"size": [height, width], "counts": counts}
    return [Shape("counts", np.zeros((0, 2)), counts, box)]


def read_labelme(content: dict, path: Path, annotations: Annotations) -> None:
    """labelme's imageData, the picture once more, is not read."""
    name = PureWindowsPath(str(content.get("imagePath") or "")).name
    picture = Picture(tuple(filter(None, (name, path.stem))), None, str(path), path.parent)
    annotations.pictures.append(picture)
    for k, entry in enumerate(content["shapes"]):
        try:
            picture.size = size_of(content.get("imageHeight"), content.get("imageWidth"))
            kind, points = entry.get("shape_type") or "polygon", points_of(entry["points"])
            if len(points) not in POINTS.get(kind, ()):
                raise ValueError(f"a {kind} of {len(points)} points; expected {', '.join(POINTS)}")
            picture.shapes.append(Shape(kind, points))
            annotations.categories[str(entry.get("label"))] += 1
        except MALFORMED as error:
            annotations.problems.append(f"{path}, shapes[{k}]: {reason(error)}")


def points_of(points: object) -> np.ndarray:
    """Points as (n, 2) floats.

    Raises:
        ValueError: they are not.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"found points of shape {points.shape}, expected x, y each")
    if not (np.abs(points) <= 1e6).all():
        raise ValueError(f"a point at {points[~(np.abs(points) <= 1e6).all(axis=1)][0].tolist()}")
    return points


def size_of(height: object, width: object) -> tuple[int, int] | None:
    """(H, W) as a file states them, also as text; None where it does not."""
    return (int(height), int(width)) if height and width else None


def reason(error: Exception) -> str:
    return f"found no {error}" if isinstance(error, KeyError) else str(error)


# --- drawing -------------------------------------------------------------------------------------


@dataclass
class Drawing:
    """How outlines become pixels, and what happened on the way."""

    outline_pixels: bool = False  # points are pixels' numbers, and the outline belongs to the target
    tiny: int = 0  # outlines that hold no pixel's centre

    def mask(self, picture: Picture | None, size: tuple[int, int]) -> np.ndarray:
        """All shapes of a picture, HxW uint8, 0 or 255. Sizes are compared before anything is made.

        Raises:
            DataError: the file states another size, or a shape cannot be drawn in the image.
        """
        if picture and picture.size not in (None, size):
            (height, width), (h, w) = size, picture.size
            raise DataError(
                f"{picture.source}: annotated at {w}x{h} (width x height), its image is "
                f"{width}x{height}; expected the same. If they are swapped, one has lost its EXIF "
                "orientation"
            )
        mask = np.zeros(size, np.uint8)
        for k, shape in enumerate(picture.shapes if picture else ()):
            try:
                mask[run_lengths(shape) if shape.counts else self.covered(shape, size)] = 255
            except MALFORMED as error:
                raise DataError(f"{picture.source}: outline {k}: {error}") from error
        return mask

    def covered(self, shape: Shape, size: tuple[int, int]) -> tuple:
        """The rows and columns of a shape's pixels; of one that holds no pixel's centre the pixel that
        its middle lies in.

        Raises:
            ValueError: it is not in the image, or no area.
        """
        if shape.kind == "polygon" and len(shape.points) < 3 and not self.outline_pixels:
            raise ValueError(
                f"a polygon of {len(shape.points)} points, expected 3 or more. If points are pixels' "
                "numbers (OpenCV's findContours), type --outline-pixels"
            )
        pixels = self.outlined(shape, size)
        if len(pixels[0]):
            return pixels
        self.tiny += 1
        points = shape.points[:1] if shape.kind == "circle" else shape.points
        column, row = np.floor((points.min(axis=0) + points.max(axis=0)) / 2).astype(int)
        if not (0 <= row < size[0] and 0 <= column < size[1]):
            raise ValueError(f"from {shape.points[0].tolist()} on, it is not in the image")
        return row, column

    def outlined(self, shape: Shape, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The rows and columns of the pixels whose centres are in a polygon, a rectangle or a "
        "circle."""
        x, y = (shape.points - 0.5 - EDGE).T
        if shape.kind == "circle":
            return draw.disk((y[0], x[0]), np.hypot(x[1] - x[0], y[1] - y[0]), shape=size)
        if shape.kind == "rectangle":
            x, y = x[[0, 1, 1, 0]], y[[0, 0, 1, 1]]
        if not self.outline_pixels:
            return draw.polygon(y, x, shape=size)
        corners = np.floor(np.stack([x, y], axis=1) + 1 + 2 * EDGE).astype(np.int32)
        return np.nonzero(cv2.fillPoly(np.zeros(size, np.uint8), [corners], 1))


def run_lengths(shape: Shape) -> np.ndarray:
    """The pixels of COCO's run lengths, HxW bool.

    Raises:
        ValueError: damaged; or they do not fill the box that the file states, as where they were
            counted along the rows.
    """
    coco = optional("pycocotools.mask", "run lengths of COCO files", "pycocotools")
    counts = shape.counts["counts"]
    encoded = shape.counts | {"counts": counts.encode()} if isinstance(counts, str) else None
    pixels = (
        np.asarray(coco.decode(encoded or coco.frPyObjects(shape.counts, *shape.counts["size"]))) > 0
    )
    rows, columns = np.nonzero(pixels)
    if not len(rows):
        raise ValueError("its run lengths cover no pixel")
    if isinstance(shape.box, list) and len(shape.box) == 4:
        box = [int(n) for n in (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)]
        if np.abs(np.subtract(box, shape.box)).max() > 1.5:
            raise ValueError(
                f"its run lengths fill the box {box}, its bbox is {shape.box}. COCO's go down the "
                "columns: encode it again, with pycocotools.mask.encode(numpy.asfortranarray(mask))"
            )
    return pixels


# --- which image a picture is ----------------------------------------------------------------------


def matched(
    annotations: Annotations, images: list[ImageFile], root: Path
) -> tuple[dict[Path, Picture], list[str]]:
    """The picture of each image that has one, and the names of pictures without an image. Pictures that
    could be several images are added to the problems.

    Raises:
        DataError: none fits.
    """
    index, chosen, absent = Index(images, root), {}, []
    for picture in annotations.pictures:
        candidates = [image.path for image in candidates_for(picture, index)]
        candidates += [chosen[path].source for path in candidates if path in chosen]
        if len(candidates) > 1:
            several = " and ".join(str(candidate) for candidate in candidates[:3])
            annotations.problems.append(
                f"{picture.source}: {picture.names[0]!r} could be {several}; write the one that is "
                "meant, with its folder, in its file_name or imagePath"
            )
        elif candidates:
            chosen[candidates[0]] = picture
        else:
            absent.append(picture.names[0])
    if annotations.pictures and len(absent) == len(annotations.pictures):
        raise DataError(f"{root}: has none of the {len(absent)} annotated pictures: {some(absent)}")
    return chosen, absent


def candidates_for(picture: Picture, index: Index) -> list[ImageFile]:
    """The images that a picture may be: of its whole name, else of its file's name. Annotations in a
    folder with images are of these images only, and a split folder in a name must be the image's."""
    images: dict[Path, ImageFile] = {}
    for name in picture.names:
        *folders, file = name.replace("\\", "/").split("/")
        kinds = {kind_of(folder) for folder in folders if folder.lower() in PARTS}
        for image in index.named(name) or index.named(file):
            if not kinds or not image.part or kind_of(image.part) in kinds:
                images[image.path] = image
    if picture.folder != index.root and has_images(picture.folder):
        return [image for image in images.values() if image.path.is_relative_to(picture.folder)]
    return list(images.values())


# --- all of it -----------------------------------------------------------------------------------


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
        outline_pixels: as in `Drawing`.
        overwrite: replace masks that are there.

    Returns:
        Lines that say what was read and written.

    Raises:
        DataError: names everything that cannot be used; or masks are there.
    """
    data, images, _ = find_images(name, data_root, split, reading)
    source = next((p for p in (Path(path), data.root / path) if p.exists()), Path(path))
    annotations = read_annotations(source)
    pictures, absent = matched(annotations, images, data.root)
    drawing, files, old = Drawing(outline_pixels), {}, []
    for image in progress(images, f"{data.name} annotations", len(images)):
        try:
            mask = drawing.mask(pictures.get(image.path), image_shape(image.path))
            file = mask_path(image, data)
            if (other := files.setdefault(file, image)) is not image:
                raise DataError(
                    f"{other.path} and {image.path}: their masks would be the same file, {file}; "
                    "rename one of the images, or give each split folder masks of its own"
                )
            old += [file.name] if file.exists() and not is_there(file, mask) else []
        except DataError as error:
            annotations.problems.append(str(error))
    if problems := annotations.problems:
        head = f"{source}: {len(problems)} annotations or images cannot be used; no mask was written:"
        raise DataError("\n  ".join([head, *named(problems)]))
    if old and not overwrite:
        raise DataError(
            f"{next(iter(files)).parent}: {len(old)} other masks are there: {some(old)}; to replace "
            "them, type --overwrite"
        )
    notes = notes_on(annotations, pictures, images, absent, drawing)
    return [*notes, write_masks(files, pictures, outline_pixels)]


def mask_path(image: ImageFile, data: DatasetFolder) -> Path:
    """Where an image's mask is, or is to be.

    Raises:
        DataError: a mask in another format is there, or masks lie among the images.
    """
    folder = (image.masks or own_masks(image, data.root)) / image.subfolder
    path = image.mask or folder / f"{image.stem}{data.reading.mask_suffix}.png"
    if path.suffix.lower() != ".png":
        raise DataError(f"{path}: a mask that is not PNG is there; move it away")
    if path.parent == image.path.parent:
        raise DataError(f"{folder}: masks lie beside the images there; move them to masks/")
    if not data.reading.follow_links and not leads_inside(path, data.root):
        raise DataError(f"{path}: a link that leads out of the data set; --follow-links allows it")
    return path


def is_there(path: Path, mask: np.ndarray) -> bool:
    """Whether a file is this very mask."""
    try:
        pixels = decode(path)
    except (DataError, OSError):
        return False
    return pixels.dtype == mask.dtype and np.array_equal(pixels, mask)


def notes_on(
    annotations: Annotations,
    pictures: dict[Path, Picture],
    images: list[ImageFile],
    absent: list[str],
    drawing: Drawing,
) -> list[str]:
    """What was read, and what a person should know of it."""
    kinds = Counter(shape.kind for shape in annotations.shapes)
    counts = some([f"{name} ({count})" for name, count in sorted(annotations.categories.items())])
    rule = "pixels whose centres are in an outline are target (a pixel is the square from x to x+1)"
    if drawing.outline_pixels:
        rule = "points are pixels' numbers; outlines and what they enclose are target"
    polygons = [shape.points for shape in annotations.shapes if shape.kind == "polygon"]
    whole = bool(polygons) and all((points == np.floor(points)).all() for points in polygons)
    empty = [image.name for image in images if image.path not in pictures]
    notes = (
        (drawing.tiny, "outlines hold no pixel's centre: each is its middle pixel"),
        (kinds["rectangle"], "rectangles are target as a whole; around targets, draw polygons instead"),
        (len(absent), f"annotated pictures are not in the data set: {some(absent)}"),
        (len(empty), f"images are not annotated, so their masks are empty: {some(empty)}"),
        (
            len(polygons) * (whole and not drawing.outline_pixels),
            "polygons have whole numbers alone. If they are pixels' numbers (OpenCV's "
            "findContours), the masks lack their right and lower edges: type --outline-pixels "
            "--overwrite",
        ),
    )
    head = f"{len(annotations.pictures)} pictures, {annotations.categories.total()} annotations"
    lines = [f"{head}; all are target, of any category: {counts}", f"  {rule}"]
    return lines + [f"  note: {count} {text}" for count, text in notes if count]


def write_masks(files: dict[Path, ImageFile], pictures: dict[Path, Picture], outlines: bool) -> str:
    """Writes the masks that are not there yet; says how many."""
    folders = sorted({str(file.parent) for file in files})
    sweep(*map(Path, folders))
    written, drawing = 0, Drawing(outlines)
    for file, image in files.items():
        mask = drawing.mask(pictures.get(image.path), image_shape(image.path))
        if not is_there(file, mask):
            write_png(file, mask)
            written += 1
    return f"{written} masks written, {len(files) - written} kept: {some(folders)}"
