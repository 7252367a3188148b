"""Masks of a data set from annotation files: NAME/masks/X.png, 255 on target pixels and 0 elsewhere."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError, progress, some
from ismallnet.datasets.annotated import check_all_read, matched
from ismallnet.datasets.find import find_images
from ismallnet.datasets.lists import MOST_NAMED
from ismallnet.datasets.names import leads_inside, shown
from ismallnet.datasets.pairing import ImageFile, own_masks, same_picture
from ismallnet.datasets.polygons import Annotations, Picture, fractions, read_annotations, whole_numbers
from ismallnet.datasets.sample import AS_IT_LIES, DatasetFolder, Reading
from ismallnet.datasets.shapes import covered, middle_pixel
from ismallnet.files import sweep, write_png
from ismallnet.images.picture import decode, image_shape


@dataclass
class Drawing:
    """How outlines become pixels, and what happened on the way.

    Args:
        outline_pixels: points are pixels' numbers, and the outline belongs to the target.
        tiny: outlines that hold no pixel's centre.
        beyond: outlines that reach beyond their image.
    """

    outline_pixels: bool = False
    tiny: int = 0
    beyond: int = 0
    counts: Counter = field(default_factory=Counter)  # of shapes, by kind

    def mask(self, picture: Picture | None, size: tuple[int, int]) -> np.ndarray:
        """All shapes of a picture, HxW uint8, 0 or 255.

        Raises:
            DataError: the file states another size, or a shape has no pixel in the image.
        """
        mask = np.zeros(size, np.uint8)
        if picture is None:
            return mask
        check_size(picture, size)
        for k, shape in enumerate(picture.shapes):
            if shape.kind == "polygon" and len(shape.points) < 3 and not self.outline_pixels:
                raise DataError(
                    f"{picture.source}: a polygon of {len(shape.points)} points, expected 3 or more. "
                    "If points are pixels' numbers (OpenCV's findContours), type --outline-pixels"
                )
            self.counts[shape.kind] += 1
            pixels = covered(shape, size, self.outline_pixels)
            if not pixels.any() and len(shape.points):
                pixels = middle_pixel(shape, size)
                self.tiny += 1
                if not pixels.any():
                    at = shape.points[0].tolist()
                    raise DataError(f"{picture.source}: outline {k}, from {at} on, is not in the image")
            if len(shape.points) and shape.kind != "circle":
                low, high = shape.points.min(axis=0), shape.points.max(axis=0)
                self.beyond += bool((low < -1).any() or (high > np.add(size[::-1], 1)).any())
            mask[pixels] = 255
        return mask

    def notes(self) -> list[str]:
        rule = "pixels whose centres are in an outline are target (a pixel is the square from x to x+1)"
        if self.outline_pixels:
            rule = "points are pixels' numbers; outlines and what they enclose are target"
        notes = [rule] if set(self.counts) - {"counts"} else []
        if self.tiny:
            notes.append(f"note: {self.tiny} outlines hold no pixel's centre: each is its middle pixel")
        if self.beyond:
            notes.append(f"note: {self.beyond} outlines reach beyond their image; they are cut there")
        if boxes := self.counts["rectangle"]:
            notes.append(
                f"note: {boxes} rectangles are target as a whole; if they are boxes around targets, "
                "draw polygons in their place"
            )
        return notes


def check_size(picture: Picture, size: tuple[int, int]) -> None:
    """
    Raises:
        DataError: the file states another size than the image's (H, W).
    """
    if picture.size in (None, size):
        return
    hint = ". Height and width are swapped: one has lost its EXIF orientation"
    (height, width), (h, w) = size, picture.size
    raise DataError(
        f"{picture.source}: annotated at {w}x{h} (width x height), its image is {width}x{height}; "
        f"expected the same{hint if (h, w) == (width, height) else ''}"
    )


def mask_file(image: ImageFile, data: DatasetFolder) -> Path:
    """Where an image's mask is, or is to be.

    Raises:
        DataError: a mask in another format is there, or masks lie among the images.
    """
    if image.mask:
        if image.mask.suffix.lower() != ".png":
            raise DataError(f"{image.mask}: a mask that is not PNG is there; move it away")
        return image.mask
    folder = image.masks or own_masks(image, data.root)
    path = folder / image.subfolder / f"{image.stem}{data.reading.mask_suffix}.png"
    if path.parent == image.path.parent:
        raise DataError(f"{path.parent}: masks lie beside the images there; move them to masks/")
    if not data.reading.follow_links and not leads_inside(path.parent, data.root):
        raise DataError(
            f"{path.parent}: a link that leads out of the data set; --follow-links allows it"
        )
    return path


def check_shared(image: ImageFile, first: ImageFile, equal: bool, file: Path, root: Path) -> None:
    """
    Args:
        equal: the two images have equal masks.

    Raises:
        DataError: two images would have one mask file, and are not one picture with one mask.
    """
    if equal and same_picture(image.path, first.path):
        return
    hint = "rename one of the images, or move one away"
    if own_masks(image, root) / image.subfolder != file.parent:
        hint = f"move {shown(file.parent, root)}/ away, then each split folder gets masks of its own"
    raise DataError(
        f"{first.path} and {image.path}: their masks would be the same file, {file}; {hint}"
    )


def is_there(path: Path, mask: np.ndarray) -> bool:
    """Whether a file is this very mask."""
    try:
        pixels = decode(path)
    except DataError:
        return False
    return pixels.shape == mask.shape and pixels.dtype == mask.dtype and bool((pixels == mask).all())


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
    found = read_annotations(source)
    if fractions(found):
        raise DataError(
            f"{source}: all points lie between 0 and 1, as fractions of the pictures' sizes; expected "
            "pixels"
        )
    pictures, absent = matched(found, images, data.root)
    check_all_read(source, {image.path for image in images}, set(pictures), data.root)
    drawing, files, old = Drawing(outline_pixels), {}, []
    firsts: dict[Path, ImageFile] = {}  # the first image of each mask file
    for image in progress(images, f"{data.name} annotations", len(images)):
        try:
            mask = drawing.mask(pictures.get(image.path), image_shape(image.path))
            file = mask_file(image, data)
            first = firsts.setdefault(file, image)
            if first is not image:
                other = Drawing(outline_pixels).mask(pictures.get(first.path), image_shape(first.path))
                check_shared(image, first, np.array_equal(mask, other), file, data.root)
        except DataError as error:
            found.problems.append(str(error))
            continue
        files[image.path] = file
        old += [file] if file.exists() and not is_there(file, mask) else []
    if found.problems:
        named = [*found.problems[:MOST_NAMED]]
        if more := len(found.problems) - len(named):
            named.append(f"… and {more} more")
        head = f"{source}: {len(found.problems)} annotations or images cannot be used; "
        raise DataError("\n  ".join([head + "no mask was written:", *named]))
    if old and not overwrite:
        raise DataError(
            f"{old[0].parent}: {len(old)} other masks are there: {some([p.name for p in old])}; to "
            "replace them, type --overwrite"
        )
    return [
        f"{source}: {found.summary()}",
        *(
            f"  {line}"
            for line in drawing.notes() + more_notes(found, pictures, images, absent, drawing)
        ),
        write_masks(images, pictures, files, outline_pixels),
    ]


def more_notes(
    found: Annotations,
    pictures: dict[Path, Picture],
    images: list[ImageFile],
    absent: list[str],
    drawing: Drawing,
) -> list[str]:
    notes = []
    if found.empty:
        notes.append(f"note: {len(found.empty)} annotations cover no pixel: {some(found.empty)}")
    if not drawing.outline_pixels and whole_numbers(found):
        notes.append(
            "note: all points are whole numbers. If they are pixels' numbers (OpenCV's findContours), "
            "the masks lack their right and lower edges: type --outline-pixels --overwrite"
        )
    if absent:
        notes.append(f"note: {len(absent)} annotated pictures are not in the data set: {some(absent)}")
    if empty := [i.name for i in images if i.path not in pictures]:
        notes.append(
            f"note: {len(empty)} images are not annotated, so their masks are empty: {some(empty)}"
        )
    return notes


def write_masks(
    images: list[ImageFile],
    pictures: dict[Path, Picture],
    files: dict[Path, Path],
    outline_pixels: bool,
) -> str:
    """Writes the masks that are not there yet; says how many."""
    sweep(*{file.parent for file in files.values()})
    written, drawing = 0, Drawing(outline_pixels)
    for image in images:
        mask = drawing.mask(pictures.get(image.path), image_shape(image.path))
        if not is_there(files[image.path], mask):
            write_png(files[image.path], mask)
            written += 1
    folders = some(sorted({str(file.parent) for file in files.values()}))
    return f"{written} masks written, {len(images) - written} kept: {folders}"
