"""TIFFs, by tifffile: scientific, large and odd ones, with what their tags say."""

import contextlib
import io
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from tifffile import PHOTOMETRIC, TiffFile, TiffPage

from ismallnet.cli import DataError
from ismallnet.files import reading
from ismallnet.parallel import memory_limit

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION, NODATA = 274, 42113  # tags of TIFF and EXIF, and GDAL's
NO_PICTURE = 1 | 4  # NewSubfileType: a thumbnail or overview, a mask
PIXEL_BYTES = 16  # of memory, while an image becomes three channels of float32


def most_pixels() -> int:
    """How many pixels an image may have to fit in memory; a damaged header may promise any number."""
    return int(memory_limit() / PIXEL_BYTES)


def is_tiff(path: Path, raw: bytes | None = None) -> bool:
    if raw is not None:
        return raw[:4] in SIGNATURES
    with open(path, "rb") as file:
        return file.read(4) in SIGNATURES


@contextlib.contextmanager
def open_tiff(path: Path, raw: bytes | None = None) -> Iterator["TiffPictures"]:
    """The pictures of a TIFF, which stays open; `raw` is what was read of it."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said in one error
    with TiffFile(path if raw is None else io.BytesIO(raw)) as file:
        yield TiffPictures(path, file)


class TiffPictures:
    """A sequence of the pictures in an open TIFF, without thumbnails, overviews and masks; each HxW or
    HxWx3 at its own depth, as it is seen. A damaged one is a DataError of its own."""

    def __init__(self, path: Path, file: TiffFile):
        self.path, self.file = path, file
        self.pages = [n for n, page in enumerate(file.pages) if not int(page.subfiletype) & NO_PICTURE]
        self.pages = self.pages or [0]
        if len(file.pages) == 1 and 0 < file.pages[0].size < file.series[0].size:
            raise DataError(
                f"{path}: its only page stands for a stack, {file.series[0].shape}; save each picture "
                "as a page (ImageJ: Image Sequence, or tifffile without truncate)"
            )

    def __len__(self) -> int:
        return len(self.pages)

    def __getitem__(self, k: int) -> np.ndarray:
        with reading(self.path):
            return read_page(self.path, self.file.pages[self.pages[k]])


def read_page(path: Path, page: TiffPage) -> np.ndarray:
    check_bands(path, page)
    check_size(page)
    pixels = stored_pixels(path, page)
    if page.samplesperpixel > 1:
        pixels = pixels[..., :3] if page.samplesperpixel > 2 else pixels[..., 0]
    if page.photometric == PHOTOMETRIC.PALETTE:
        pixels = (np.moveaxis(page.colormap[:, pixels], 0, -1) >> 8).astype(np.uint8)
    elif page.bitspersample < 8:
        pixels = pixels.astype(np.uint8) * np.uint8(255 // (2**page.bitspersample - 1))
    if page.photometric == PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u":
        pixels = ~pixels
    if (nodata := page.tags.get(NODATA)) is not None:
        pixels = without_nodata(pixels, str(nodata.value))
    return oriented(pixels, turn_of(page))


def check_bands(path: Path, page: TiffPage) -> None:
    """Refuses what is neither grey, with alpha or without, nor a palette, nor red, green and blue, one
    beside the other: planes may be frames or colours."""
    bands, together = page.samplesperpixel, page.planarconfig == tifffile.PLANARCONFIG.CONTIG
    alpha = bands == 2 and together and page.extrasamples[:1] in ((1,), (2,))
    grey = page.photometric <= PHOTOMETRIC.PALETTE and (bands == 1 or alpha)
    colours = page.photometric == PHOTOMETRIC.RGB and bands in (3, 4) and together
    if not (grey or colours):
        kind = f"{getattr(page.photometric, 'name', page.photometric)}{'' if together else ', planes'}"
        raise DataError(
            f"{path}: found {bands} bands of {kind}, expected 1 (grey) or 3 of RGB together; save "
            "frames as pages (tifffile: photometric='minisblack'), or one band, with GDAL: "
            f"gdal_translate -b 1 {path.name} one.tif"
        )


def check_size(page: TiffPage) -> None:
    """Refuses more pixels than memory allows, a depth, and strips and tiles that are not there."""
    places = list(zip(page.dataoffsets, page.databytecounts))
    if not 0 < page.size <= page.samplesperpixel * most_pixels() or page.imagedepth > 1:
        raise ValueError(f"found {page.shape} pixels")
    end = max((start + size for start, size in places), default=math.inf)
    if end > page.parent.filehandle.size or any(start and not size for start, size in places):
        raise ValueError("cut off, or without the lengths of its strips; copy or save it again")


def stored_pixels(path: Path, page: TiffPage) -> np.ndarray:
    """A page as it lies in the file: by tifffile, and of a plain page by Pillow where tifffile
    lacks the codec, as for LZW, which OpenCV writes."""
    try:
        return page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
    with Image.open(path) as picture:
        picture.seek(page.index)
        pixels = np.asarray(picture)
    plain = turn_of(page) == 1 and page.photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB)
    plain &= page.dtype.kind == "u" or page.parent.byteorder == "<"
    if not plain or 0 in page.dataoffsets or (pixels.dtype, pixels.size) != (page.dtype, page.size):
        raise DataError(f"{path}: its compression needs one more package; type pip install imagecodecs")
    return pixels


def turn_of(page: TiffPage) -> int:
    """The orientation of a page, 1 to 8."""
    tag = page.tags.get(ORIENTATION)
    return 1 if tag is None else int(tag.value)


def oriented(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Stored pixels as EXIF orientation 1 to 8 says they are to be seen."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def without_nodata(pixels: np.ndarray, text: str) -> np.ndarray:
    """Pixels of GDAL's nodata value as NaN, which no contrast counts."""
    with contextlib.suppress(ValueError):
        missing = pixels == float(text.strip("\0 "))
        return np.where(missing, np.nan, pixels).astype(np.float32) if missing.any() else pixels
    return pixels
