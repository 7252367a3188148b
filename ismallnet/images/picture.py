"""One image file: its pixels at their own depth, and its size."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ismallnet.cli import DataError
from ismallnet.files import reading
from ismallnet.images.arrays import as_frames
from ismallnet.images.scientific import FITS, read_fits
from ismallnet.images.tiff import ORIENTATION, is_tiff, most_pixels, open_tiff, oriented

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "PPM", "JPEG2000", "TIFF")
TURNED_PNG = (b"eXIf", b"Raw profile type exif", b"com.adobe.xmp")


def open_picture(path: Path, raw: bytes | None = None) -> Image.Image:
    """A file, or what was read of it, as Pillow opens it; a context manager."""
    Image.init()  # all formats of FORMATS
    Image.MAX_IMAGE_PIXELS = most_pixels() // 2  # Pillow refuses more than twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large ones, odd EXIF: read all the same
        return Image.open(path if raw is None else io.BytesIO(raw), formats=FORMATS)


@contextlib.contextmanager
def open_pictures(path: Path, raw: bytes | None = None) -> Iterator[Sequence[np.ndarray]]:
    """The pictures in an image file, which stays open; each HxW or HxWx3 at its own depth, as it is
    seen. A damaged one is a DataError of its own.

    Args:
        raw: what is in the file, where that was read already.

    Raises:
        DataError: not an image.
    """
    with contextlib.ExitStack() as stack:
        with reading(path):
            if path.suffix.lower() in FITS:
                pictures = as_frames(read_fits(path), path)
            elif is_tiff(path, raw):
                pictures = stack.enter_context(open_tiff(path, raw))
            else:
                pictures = Pictures(path, stack.enter_context(open_picture(path, raw)))
        yield pictures


def decode(path: Path, raw: bytes | None = None) -> np.ndarray:
    """An image file, or what was read of it, as HxW or HxWx3 at its own depth; palettes expanded,
    alpha left out, EXIF orientation applied.

    Raises:
        DataError: not an image, truncated or damaged; or of several pictures.
    """
    with open_pictures(path, raw) as pictures:
        if (count := len(pictures)) > 1:
            raise DataError(f"{path}: found {count} pictures in it, expected one; save each by itself")
        return pictures[0]


def image_shape(path: str | os.PathLike) -> tuple[int, int]:
    """(H, W) of an image file, as it is seen; of PNG, JPEG and BMP from the header alone."""
    with open_pictures(Path(path)) as pictures:
        return pictures.shape if isinstance(pictures, Pictures) else pictures[0].shape[:2]


class Pictures:
    """A sequence of the pictures in a file that Pillow has opened; those behind a JPEG (MPO), previews
    or a second view, do not count."""

    def __init__(self, path: Path, picture: Image.Image):
        self.path, self.picture = path, picture
        self.count = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: int) -> np.ndarray:
        with reading(self.path), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if k != self.picture.tell():  # a seek to where it is loses what Pillow knows
                self.picture.seek(k)
            pixels = pixels_of(self.picture, self.path)
            turn = self.picture.getexif().get(ORIENTATION, 1)
            return np.ascontiguousarray(pixels) if turn == 1 else oriented(pixels, turn)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the first picture. A PNG is decoded for its orientation only where it has one."""
        asked = self.picture.format != "PNG" or any(s in self.path.read_bytes() for s in TURNED_PNG)
        turned = asked and self.picture.getexif().get(ORIENTATION, 1) >= 5
        return self.picture.size if turned else self.picture.size[::-1]


def pixels_of(picture: Image.Image, path: Path) -> np.ndarray:
    """The pixels of an open picture, HxW or HxWx3, alpha left out."""
    args = picture.tile[0][3] if picture.tile else ""  # of its decoder
    picture.load()
    if is_cut(picture, args):
        return read_by_opencv(path)
    if picture.mode in ("1", "LA", "La"):
        picture = picture.convert("L")
    elif picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")
    elif picture.mode not in ("L", "RGB", "RGBA", "I", "F") and "I;16" not in picture.mode:
        picture = picture.convert("RGB")
    pixels = np.array(picture)
    return pixels[..., :3] if pixels.ndim == 3 else pixels


def is_cut(picture: Image.Image, args: str | tuple) -> bool:
    """Whether Pillow cuts more than 8 bits to 8, or scales them to 16; OpenCV does not."""
    if picture.format == "PNG":
        return ";16" in args and picture.mode in ("RGB", "RGBA", "LA")
    if picture.format == "PPM":  # whose last argument is the largest value
        return picture.mode == "I" or (isinstance(args, tuple) and args[-1] > 255)
    return picture.format == "JPEG2000" and picture.mode in ("I;16", "RGB")


def read_by_opencv(path: Path) -> np.ndarray:
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise OSError("damaged, or it ends early")
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2RGB)
