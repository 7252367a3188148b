"""Which image of a data set a picture of annotation files is."""

import os
import shlex
import unicodedata
from pathlib import Path

from ismallnet.cli import DataError, some
from ismallnet.datasets.lists import KINDS, PARTS, Index, kind_of, without_extension
from ismallnet.datasets.names import has_images, inside, label_kind, shown
from ismallnet.datasets.pairing import ImageFile
from ismallnet.datasets.polygons import Annotations, Picture


def images_of(picture: Picture, index: Index, stated: set[str]) -> list[ImageFile]:
    """The images that a picture of the annotations may be: of its whole name, or without folders that
    the data set has not. Of several, those beside its annotations.

    Args:
        stated: the last folders of all pictures' names, without case.
    """
    images: list[ImageFile] = []
    for name in picture.names:
        parts = parts_of_name(name)
        for k in range(len(parts)):
            key = "/".join(parts[k:])
            keys = (key, without_extension(key))
            found = next((i for one in keys if (i := index.get(one))), [])
            found = found or next((i for one in keys if (i := index.folded.get(one.casefold()))), [])
            if found:
                break
        found = [image for image in found if not contradicts(parts, image, stated, index.root)]
        whole = k == 0 and len(parts) > 1
        images += [i for i in beside(picture.folder, found, whole) if i not in images]
    return images


def parts_of_name(name: str) -> list[str]:
    return unicodedata.normalize("NFC", name.replace("\\", "/")).split("/")


def contradicts(parts: list[str], image: ImageFile, stated: set[str], root: Path) -> bool:
    """Whether a picture's name, of folders and file, is of another folder than an image of that file
    name: of another split folder that is there, or of another sequence than that of the image, which
    the annotations name too."""
    own = image.path.parent.name.casefold()
    if len(parts) == 1 or parts[-2].casefold() == own:
        return False
    part = parts[-2].lower()
    if part in PARTS and image.part and kind_of(part) != kind_of(image.part):
        return inside(root, part) is not None
    return bool(image.subfolder) and own in stated


def beside(folder: Path, images: list[ImageFile], whole: bool) -> list[ImageFile]:
    """Those of the images that annotations in a folder are of: below it, or of the split folder that it
    is called after; all of them where there are none such.

    Args:
        whole: they were found by the whole name, with folders, that the annotations state.
    """
    here = os.path.join(os.path.abspath(folder), "")
    below = [image for image in images if os.path.abspath(image.path).startswith(here)]
    kind = kind_of(folder.name.lower())
    if below or kind not in KINDS:
        return below or images
    if images and not whole and has_images(folder):  # a split folder of its own, which is left out
        return []
    return [image for image in images if kind_of(image.part) == kind] or images


def matched(
    found: Annotations, images: list[ImageFile], root: Path
) -> tuple[dict[Path, Picture], list]:
    """The picture of each image that has one, and the names of pictures without an image.

    Raises:
        DataError: none fits, or one is not clear; all are named.
    """
    index, chosen, absent = Index(images, root), {}, []
    names = [parts_of_name(name) for picture in found.pictures for name in picture.names]
    stated = {parts[-2].casefold() for parts in names if len(parts) > 1}
    for picture in found.pictures:
        candidates = images_of(picture, index, stated)
        if len(candidates) > 1:
            several = " and ".join(shown(image.path, root) for image in candidates[:3])
            hint = "write the one that is meant in its file_name"
            if len(picture.names) > 1:  # labelme, whose folders do not count
                hint = "give each image a name of its own, and imagePath and the .json file the same"
            found.problems.append(f"{picture.source}: {picture.names[0]!r} could be {several}; {hint}")
        elif not candidates:
            absent.append(picture.names[0])
        elif (path := candidates[0].path) in chosen:
            found.problems.append(
                f"{picture.source}: {picture.names[0]!r} and {chosen[path].source} are both of {path}"
            )
        else:
            chosen[path] = picture
    if found.pictures and len(absent) == len(found.pictures):
        raise DataError(
            f"{root}: has none of the {len(absent)} annotated pictures: {some(absent)}"
            f"{index.nearest(absent[0])}"
        )
    return chosen, absent


def check_all_read(source: Path, images: set[Path], annotated: set[Path], root: Path) -> None:
    """
    Args:
        source: the annotations that were read.
        annotated: those of the images that it has.

    Raises:
        DataError: it has none of a folder's images, and another such file lies beside them, as in
            split folders.
    """
    unread = {path.parent for path in images - annotated} - {path.parent for path in annotated}
    files = [file for folder in sorted(unread) for file in sorted(folder.glob("*.json"))]
    other = next((file for file in files if label_kind(file)), None)
    if source.is_file() and other:
        raise DataError(
            f"{source}: has none of the images in {other.parent}, where {other.name} is; without it "
            f"their masks would be empty. Read both: --from-annotations {shlex.quote(str(root))}"
        )
