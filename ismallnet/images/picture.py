"""One image file: its pixels at their own depth, and its size."""

import contextlib
import io
import os
import re
import struct
import tokenize
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ismallnet.cli import DataError, note
from ismallnet.files import disguise
from ismallnet.images.arrays import as_frames
from ismallnet.images.scientific import DICOM, FITS, read_dicom, read_fits
from ismallnet.images.tiff import (
    ERRORS,
    NODATA,
    ORIENTATION,
    oriented,
    pages_of_tiff,
    pictures_behind,
    read_behind,
    read_tiff,
    without_nodata,
    without_orientation,
)

# What Pillow and NumPy raise on damaged files.
READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, TypeError, AttributeError, LookupError)
READ_ERRORS += (ArithmeticError, MemoryError, RuntimeError, struct.error, tokenize.TokenError)
READ_ERRORS += (Image.DecompressionBombError,)
SUBFILE, WIDTH, HEIGHT, PHOTOMETRIC, DESCRIPTION = 254, 256, 257, 262, 270  # tags of TIFF
BITS, COMPRESSION, BANDS, PLANES, SAMPLES = 258, 259, 277, 284, 339
STRIPS, TILES = 273, 324


def open_picture(path: Path) -> Image.Image:
    """A file as Pillow opens it, for `decode_page`; a context manager."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large ones, odd EXIF: read all the same
        return Image.open(path)


def unreadable(path: Path, error: Exception) -> DataError:
    what = disguise(path)
    if not what and zipfile.is_zipfile(path):
        what = "a zip archive; unpack it first"
    return DataError(f"{path}: not a readable image ({what or error})")


def full_pages(picture: Image.Image) -> list[int]:
    """The numbers of an open file's pictures; not of the thumbnails, overviews and masks of TIFFs, and
    of smaller pictures behind a JPEG (MPO)."""
    pages = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if getattr(picture, "n_frames", 1) == 1:
            return [0]
        size = picture.size
        for page in range(picture.n_frames):
            picture.seek(page)
            kind = getattr(picture, "tag_v2", {}).get(SUBFILE, 0)
            if not kind & 0b101 and (picture.format != "MPO" or picture.size == size):
                pages.append(page)
        picture.seek(0)
    return pages or [0]


def stack_behind(picture: Image.Image, path: Path) -> int:
    """How many pictures the only page of an open TIFF stands for; 1 for other files."""
    tags = getattr(picture, "tag_v2", {})
    text = str(tags.get(DESCRIPTION, "")) if tags.get(BANDS, 1) == 1 else ""
    if pictures_behind(text, (picture.height, picture.width)) > 1:
        with contextlib.suppress(*ERRORS):  # what it says may be true of another file, before a change
            return len(read_behind(path))
    return 1


def decode(path: Path) -> np.ndarray:
    """An image file as HxW or HxWxC, at its own depth; palettes expanded, EXIF orientation applied.

    Raises:
        DataError: not an image, truncated or damaged; or of several pictures.
    """
    suffix = path.suffix.lower()
    if suffix in (*FITS, *DICOM):
        frames = decode_scientific(path)
        if len(frames) > 1:
            raise several(path, len(frames))
        return frames[0]
    try:
        with open_picture(path) as picture:
            if picture.format == "FITS":  # Pillow's reader ignores BZERO, BSCALE and the sign
                raise DataError(f"{path}: a FITS file; rename it to {path.stem}.fits")
            pages = full_pages(picture)
            if (count := max(len(pages), stack_behind(picture, path))) > 1:
                raise several(path, count)
            return decode_page(picture, path, pages[0])
    except READ_ERRORS as error:
        if suffix in (".tif", ".tiff") and not disguise(path):
            if (count := len(pages_of_tiff(path))) > 1:
                raise several(path, count) from error
            return decode_tiff(path, error)
        raise unreadable(path, error) from error


def several(path: Path, count: int) -> DataError:
    return DataError(
        f"{path}: found {count} pictures in it, expected one; save each as a file of its own"
    )


def decode_scientific(path: Path) -> np.ndarray:
    """The frames of a FITS or DICOM file, (N, H, W) or (N, H, W, 3)."""
    try:
        read = read_fits if path.suffix.lower() in FITS else read_dicom
        return as_frames(read(path), path)
    except ERRORS as error:
        raise unreadable(path, error) from error


def decode_tiff(path: Path, reason: Exception, page: int = 0, turned: bool = True) -> np.ndarray:
    """A TIFF page that Pillow refuses; not `turned` by its orientation: as it lies in the file."""
    try:
        pixels, turn = read_tiff(path, page)
        return oriented(pixels, turn) if turned else pixels
    except ERRORS as error:
        if "imagecodecs" in str(error):
            reason = OSError("its compression needs one more package; type pip install imagecodecs")
        raise unreadable(path, reason) from reason


def decode_page(
    picture: Image.Image, path: Path, page: int = 0, raw: bytes | None = None
) -> np.ndarray:
    """`decode` of one page of an open file.

    Args:
        raw: the file's bytes where they are not those on disk: a TIFF without its orientation.

    Raises:
        DataError: the page is truncated or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if page != picture.tell():  # a seek to where it is loses what Pillow knows of a PNG
                picture.seek(page)
            tags = dict(getattr(picture, "tag_v2", {}))
            rawmode = str(picture.tile[0][3]) if picture.tile else ""
            colours = tags.get(PHOTOMETRIC) == 2 and tags.get(PLANES) == 2
            if colours and max(tags.get(BITS, (8,))) > 8:
                raise DataError(
                    f"{path}: found {tags.get(BANDS, 3)} planes of more than 8 bits, as colours. "
                    "Are they frames or colours? Save frames as pages (tifffile: "
                    "photometric='minisblack'), or colours together (planarconfig='contig')"
                )
            if colours:
                note(
                    "planes",
                    f"{path}: {tags.get(BANDS, 3)} planes are read as the colours of one picture. If "
                    "they are frames, save them as pages (tifffile: photometric='minisblack')",
                )
            if raw is None and (is_sparse(tags) or turned_twice(picture)):
                return decode_tiff(path, OSError("damaged"), page)
            turn = tags.get(ORIENTATION, 1)
            if turn != 1:  # Pillow turns TIFFs itself, and some versions the wrong way
                raw = without_orientation(path.read_bytes(), page)
                with Image.open(io.BytesIO(raw)) as copy:
                    return oriented(decode_page(copy, path, page, raw), turn)
            picture.load()
            turn = picture.getexif().get(ORIENTATION, 1)
        pixels = pixels_of(picture, raw, path, page, rawmode)
    except READ_ERRORS as error:
        if "raw mode" in str(error):  # planes of bands that Pillow has no name for
            return decode_tiff(path, error, page, turned=raw is None)
        raise unreadable(path, error) from error
    if picture.format == "JPEG" and any(data[:5] == b"FLIR\0" for _, data in picture.applist):
        note(
            "FLIR",
            f"{path}: also holds the camera's raw data, which is not used; for temperatures export "
            "16-bit TIFF or CSV with FLIR's software, or with the package flyr",
        )
    if tags.get(PHOTOMETRIC) == 0 and pixels.dtype == np.uint16:  # white is zero; 8 bits Pillow turns
        pixels = np.iinfo(np.uint16).max - pixels
    if pixels.dtype == np.int32 and tags.get(BITS) and tags.get(SAMPLES, (1,)) == (1,):
        pixels = pixels.view(np.uint32)  # Pillow has no unsigned ones
    if pixels.dtype == np.uint8 and tags.get(SAMPLES) == (2,) and tags.get(BITS) == (8,):
        pixels = pixels.view(np.int8)
    if NODATA in tags:
        pixels = without_nodata(pixels, str(tags[NODATA]))
    return oriented(pixels, turn)


def is_sparse(tags: dict) -> bool:
    """Whether strips or tiles of a TIFF are left out, as GDAL does with empty ones: their place is 0,
    where Pillow would read the file's header."""
    places = [tags.get(tag) for tag in (STRIPS, TILES)]
    return any(0 in values for values in places if isinstance(values, tuple))


def turned_twice(picture: Image.Image) -> bool:
    """Whether Pillow would exchange the bytes of a page though its decoder has done so: compressed
    signed integers and floats, the high byte first."""
    tags = getattr(picture, "tag_v2", {})
    order, kind = getattr(tags, "prefix", b"II"), tags.get(SAMPLES, (1,))[0]
    packed = tags.get(COMPRESSION, 1) != 1
    return order == b"MM" and packed and kind in (2, 3) and max(tags.get(BITS, (1,))) > 8


def pixels_of(
    picture: Image.Image, raw: bytes | None, path: Path, page: int, rawmode: str
) -> np.ndarray:
    """The pixels of a loaded page, alpha left out. Of PNM and JPEG 2000 Pillow scales more than 8 bits
    to 16, or cuts them to 8; OpenCV does not."""
    deep = ";16" in rawmode and "BGR;16" not in rawmode  # that one is 5, 6 and 5 bits
    if deep and picture.mode in ("RGB", "RGBA", "LA"):  # Pillow keeps only 8 of the bits
        data = np.fromfile(path, np.uint8) if raw is None else np.frombuffer(raw, np.uint8)
        flags = cv2.IMREAD_UNCHANGED
        if page:
            pixels = (*cv2.imdecodemulti(data, flags, range=(page, page + 1))[1], None)[0]
        else:
            pixels = cv2.imdecode(data, flags)
        if pixels is None:
            raise OSError("damaged")
        return cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2RGB)
    largest = re.search(r"'RGB', (\d+)\)$", rawmode) if picture.format == "PPM" else None
    if picture.format == "PPM" and (picture.mode == "I" or (largest and int(largest[1]) > 255)):
        data = np.append(np.fromfile(path, np.uint8), np.uint8(10))  # OpenCV wants a line's end
        if (pixels := cv2.imdecode(data, cv2.IMREAD_UNCHANGED)) is None:
            raise OSError("it ends early")
        return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    if picture.format == "JPEG2000" and picture.mode in ("I;16", "RGB"):  # 9 to 15 bits are scaled too
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is not None and pixels.dtype == np.uint16:
            return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    if picture.mode in ("1", "LA", "La"):
        picture = picture.convert("L")
    elif picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")
    elif picture.mode not in ("L", "RGB", "RGBA", "I", "F") and "I;16" not in picture.mode:
        picture = picture.convert("RGB")
    pixels = np.array(picture)
    if pixels.ndim == 3:
        pixels = pixels[..., :3]
    return pixels.astype(np.uint16) if pixels.dtype.kind == "u" and pixels.itemsize == 2 else pixels


def orientation(picture: Image.Image, path: Path) -> int:
    """The EXIF or XMP orientation of an open file; of PNGs without loading them for it."""
    if picture.format == "PNG":
        raw = path.read_bytes()
        if not any(sign in raw for sign in (b"eXIf", b"Raw profile type exif", b"com.adobe.xmp")):
            return 1
    tags = getattr(picture, "tag_v2", {})
    return tags.get(ORIENTATION) or picture.getexif().get(ORIENTATION, 1)


def image_shape(path: str | os.PathLike) -> tuple[int, int]:
    """(H, W) of an image file, from its header alone."""
    path = Path(path)
    if path.suffix.lower() in (*FITS, *DICOM):
        return decode(path).shape[:2]
    try:
        with open_picture(path) as picture:
            pages = full_pages(picture)
            if pages[0]:
                picture.seek(pages[0])
            tags = getattr(picture, "tag_v2", {})
            width, height = tags.get(WIDTH, picture.width), tags.get(HEIGHT, picture.height)
            turned = orientation(picture, path) >= 5
            return (width, height) if turned else (height, width)
    except READ_ERRORS as error:
        if path.suffix.lower() in (".tif", ".tiff") and not disguise(path):
            return decode_tiff(path, error).shape[:2]
        raise unreadable(path, error) from error
