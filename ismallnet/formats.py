"""Files that Pillow does not read, or reads wrongly: arrays, FITS, DICOM, scientific TIFFs; and files
that are not what their name says, recognised by their first bytes."""

import logging
import math
import re
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ismallnet.cli import DataError, note, optional
from ismallnet.csvfile import read_csv

FITS = (".fits", ".fit", ".fts")
DICOM = (".dcm", ".dicom")
LONGEST = 2.2  # frames' longer side in shorter ones, where an array may be read in two ways
ORIENTATION, NODATA = 274, 42113  # tags of TIFF and EXIF, and GDAL's
MOST_VALUES = 2**28  # in a TIFF page; a damaged header may promise any number
ARRAYS = (".npy", ".npz", ".mat", ".csv")
# What NumPy, SciPy and the optional packages raise on damaged files.
ERRORS = (OSError, ValueError, TypeError, LookupError, EOFError, AttributeError, ArithmeticError)
ERRORS += (RuntimeError, MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error, struct.error)
ERRORS += (tokenize.TokenError,)

# First bytes -> what the file is, and what to do.
DISGUISES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; type: git lfs pull"),
    (b"<!doctype html", "a web page, saved under this name; download the file itself"),
    (b"<html", "a web page, saved under this name; download the file itself"),
    (b"\x00\x05\x16\x07", "what macOS keeps beside a file, not the file itself; remove it"),
    (b"%pdf", "a PDF; save its pictures as PNG"),
    (b"rar!", "an archive; unpack it first"),
    (b"\x1f\x8b", "a compressed file; unpack it first"),
    (b"7z\xbc\xaf", "an archive; unpack it first"),
    (b"\x89hdf", "an HDF5 file, which is not read"),
    (b"fff\x00", "a FLIR sequence; export its frames as 16-bit TIFF or CSV with FLIR's software"),
)


def disguise(path: Path) -> str:
    """What a file really is where its name says something else, with what to do; "" if nothing is
    known of it."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return ""
    if not head:
        return "an empty file; copy or download it again"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((text for first, text in DISGUISES if start.startswith(first)), "")


def read_fits(path: Path) -> np.ndarray:
    """The first picture of a FITS file, (H, W) or (N, H, W), BZERO and BSCALE applied.

    FITS counts rows from the bottom, so the file's last row is the picture's first one; not where the
    keyword ROWORDER, which camera programs write, says TOP-DOWN.
    """
    fits = optional("astropy.io.fits", f"{path}: reading it")
    with fits.open(path) as units:
        for unit in units:
            if unit.data is not None and getattr(unit.data, "ndim", 0) >= 2:
                data = np.asarray(unit.data)
                if str(unit.header.get("ROWORDER", "")).strip().upper() != "TOP-DOWN":
                    data = np.flip(data, axis=-2)
                return data.astype(data.dtype.newbyteorder("="))
    raise DataError(f"{path}: found no picture in this FITS file")


def read_dicom(path: Path) -> np.ndarray:
    """The pixels of a DICOM file, with its slope and intercept; of those in which low values are white
    (MONOCHROME1) inverted."""
    dataset = optional("pydicom", f"{path}: reading it").dcmread(path)
    pixels = np.asarray(dataset.pixel_array)
    slope, intercept = (float(dataset.get(key, value)) for key, value in
                        (("RescaleSlope", 1), ("RescaleIntercept", 0)))  # fmt: skip
    pixels = pixels if (slope, intercept) == (1, 0) else pixels * slope + intercept
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    return pixels.max() - pixels + pixels.min() if inverted else pixels


def quiet_tifffile(path: Path):
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said in one error
    return optional("tifffile", f"{path}: reading it")


def pictures_behind(description: str, shape: tuple[int, int]) -> int:
    """How many pictures the only page of a TIFF stands for: ImageJ, and tifffile for large stacks,
    write the others behind the first, without a page of their own.

    Args:
        description: the page's tag 270.
        shape: (H, W) of the page.
    """
    if count := re.search(r"^ImageJ=.*?^images=(\d+)", description, re.DOTALL | re.MULTILINE):
        return int(count[1])
    found = re.match(r'{"shape": \[([\d, ]+)\]', description)
    sides = [int(side) for side in found[1].split(",")] if found else []
    return math.prod(sides[:-2]) if tuple(sides[-2:]) == shape else 1


def read_behind(path: Path) -> np.ndarray:
    """All pictures of a TIFF with `pictures_behind` its only page, (N, H, W), left on disk."""
    pixels = quiet_tifffile(path).memmap(path, mode="r")
    return pixels.reshape(-1, *pixels.shape[-2:])


def without_orientation(raw: bytes, page: int) -> bytes:
    """A TIFF's bytes with orientation 1 in a page: as its pixels lie in the file, whoever reads it.

    Raises:
        ValueError, struct.error: the page has no orientation, or is damaged.
    """
    order = "<" if raw[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", raw, 2)[0] == 43
    count, link, entry, start = ("Q", "Q", 20, 8) if big else ("H", "I", 12, 4)
    (at,) = struct.unpack_from(order + link, raw, start)
    for _ in range(page):
        (entries,) = struct.unpack_from(order + count, raw, at)
        (at,) = struct.unpack_from(
            order + link, raw, at + struct.calcsize(f"<{count}") + entries * entry
        )
    (entries,) = struct.unpack_from(order + count, raw, at)
    at += struct.calcsize(f"<{count}")
    found = bytearray(raw)
    for place in range(at, at + entries * entry, entry):
        tag, kind = struct.unpack_from(f"{order}HH", raw, place)
        if tag == ORIENTATION:
            struct.pack_into(order + ("I" if kind == 4 else "H"), found, place + entry // 2 + 2, 1)
    if found == raw:
        raise ValueError("orientation")
    return bytes(found)


def without_nodata(pixels: np.ndarray, text: str) -> np.ndarray:
    """Pixels of GDAL's nodata value as NaN, which no contrast counts."""
    try:
        missing = pixels == float(text.strip("\0 "))
    except ValueError:
        return pixels
    return np.where(missing, np.nan, pixels).astype(np.float32) if missing.any() else pixels


def read_tiff(path: Path, page: int = 0) -> tuple[np.ndarray, int]:
    """A TIFF page that Pillow cannot read, as it lies in the file, and its orientation: float16 and
    float64, several bands.

    Raises:
        DataError: unreadable, or of 2, or more than 4 bands.
    """
    tifffile = quiet_tifffile(path)
    with tifffile.TiffFile(path) as file:
        found = file.pages[page]
        if not 0 < found.size <= MOST_VALUES:
            raise ValueError(f"found {found.shape} pixels")
        pixels, bands = found.asarray(), found.samplesperpixel
        colours = found.photometric == tifffile.PHOTOMETRIC.RGB
        white_is_zero = found.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        nodata, turn = (found.tags.get(tag) for tag in (NODATA, ORIENTATION))
        turn = 1 if turn is None else int(turn.value)
    if pixels.size != found.size or pixels.ndim not in (2, 3) or pixels.dtype.kind not in "uif":
        raise ValueError(f"found {pixels.dtype} {pixels.shape}")  # a damaged header
    if bands > 1 and pixels.ndim == 3 and pixels.shape[0] == bands:  # one plane a band
        pixels = np.moveaxis(pixels, 0, -1)
    if bands == 1:
        pixels = pixels.reshape(pixels.shape[:2])
        if white_is_zero and pixels.dtype.kind == "u":
            pixels = ~pixels
        return (pixels if nodata is None else without_nodata(pixels, str(nodata.value))), turn
    if bands == 3 or (bands == 4 and colours):
        return pixels[..., :3], turn
    raise DataError(
        f"{path}: found {bands} bands, expected 1 (grey) or 3 (colours); save the band you need as a "
        f"file of its own, with GDAL: gdal_translate -b 1 {path.name} one.tif"
    )


# --- arrays ----------------------------------------------------------------------------------------


def read_array(path: Path) -> np.ndarray:
    """The numbers of a .npy, .npz, .mat or .csv file, as they are there; .npy is left on disk.

    Raises:
        DataError: unreadable, or several arrays of which any could be meant.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        if suffix == ".csv":
            return read_csv(path)
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return the_only({name: file[name] for name in file.files}, path)
        from scipy.io import loadmat

        return the_only(loadmat(path, appendmat=False), path)
    except ERRORS as error:
        if isinstance(error, NotImplementedError):  # MATLAB 7.3, which is HDF5
            error = "MATLAB 7.3; save it with -v7 there"
        why = disguise(path) or error
        raise DataError(f"{path}: not a readable {suffix[1:]} file ({why})") from None


def the_only(arrays: dict, path: Path) -> np.ndarray:
    """The one array among them that can be a picture."""
    pictures = {
        name: value
        for name, value in arrays.items()
        if isinstance(value, np.ndarray) and value.ndim >= 2 and value.dtype.kind in "uif"
        and sum(side > 1 for side in value.shape) > 1
    }  # fmt: skip
    if len(pictures) != 1:
        names = ", ".join(f"{name} {value.shape}" for name, value in pictures.items()) or "none"
        raise DataError(f"{path}: expected one picture in it, found {names}; save it as .npy")
    return next(iter(pictures.values()))


def frames_last(shape: tuple[int, ...], matlab: bool) -> bool:
    """Whether the last of an array's three sides counts frames, rather than the first.

    Args:
        matlab: the file is MATLAB's, whose programs put it last: so it is unless the frames would be
            more than 2.2 times as long as wide, and those of the other order not; or not square, and
            those of the other order are.
    """
    first, middle, last = shape
    if not matlab:  # NumPy's put it first
        return 2 * last < min(first, middle)
    here, there = (max(a, b) / min(a, b) for a, b in ((first, middle), (middle, last)))
    return not (here > LONGEST >= there or here > there == 1)


def as_frames(array: np.ndarray, path: Path) -> np.ndarray:
    """An array as frames, (N, H, W) or (N, H, W, 3).

    Args:
        array: (H, W), (H, W, 1), (H, W, 3), (N, H, W), (N, H, W, 1) or (N, H, W, 3); of MATLAB also
            (H, W, N).

    Raises:
        DataError: of another shape, empty, or not numbers.
    """
    shape = array.shape
    if path.suffix.lower() == ".csv" and shape[-1] < 8:
        raise DataError(
            f"{path}: found a table of {shape[-1]} columns, expected a frame: a row of pixels a line"
        )
    if array.dtype.kind not in "uif":
        raise DataError(f"{path}: found {array.dtype}, expected integers or floats")
    if array.ndim in (3, 4) and shape[-1] == 1:
        array = array[..., 0]
    matlab = path.suffix.lower() == ".mat"
    if array.ndim == 3 and shape[-1] > 4 and 0 not in shape:
        last = frames_last(shape, matlab)
        array = np.moveaxis(array, -1, 0) if last and matlab else array
        if last or matlab:
            count, height, width = array.shape
            other = "with another order of its axes: numpy.moveaxis(array, -1, 0)"
            note(
                f"order of {path}",
                f"{path}: {shape} is read as {count} frames of {width}x{height} (width x height). If "
                f"this is wrong, save it as .npy {'as it is' if last and matlab else other}",
            )
    colours = array.ndim == 3 and shape[-1] == 3 and (array != array[..., :1]).any()
    if colours or (array.ndim == 3 and shape[0] == 3):
        found = ("a picture in colours", "three frames", "-1, 0")
        read, other, axes = found if colours else ("3 frames", "one picture", "0, -1")
        note(
            f"three of {path}",
            f"{path}: {shape} is read as {read}. If it is {other}, save numpy.moveaxis(array, {axes}) "
            "as .npy",
        )
    if array.ndim == 2 or (array.ndim == 3 and shape[-1] == 3):
        array = array[None]
    wrong = array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != 3)
    if wrong or 0 in shape or (array.ndim == 3 and array.shape[2] in (2, 4)):  # bands, not columns
        raise DataError(
            f"{path}: found shape {shape}, expected (H, W), (N, H, W), or one of these with 1 or 3 "
            "values a pixel"
        )
    return array


def read_raw(path: Path, layout: "RawLayout") -> np.ndarray:
    """Frames of a file that holds nothing but their pixels, row by row, (N, H, W), left on disk.

    Raises:
        DataError: the file's size does not fit.
    """
    size, frame = path.stat().st_size, layout.width * layout.height * layout.dtype.itemsize
    if not size or size % frame:
        raise DataError(
            f"{path}: found {size} bytes, expected a multiple of {frame} "
            f"({layout.width}x{layout.height}, {layout.dtype}); type another --raw WIDTHxHEIGHT:TYPE"
        )
    shape = (size // frame, layout.height, layout.width)
    return np.memmap(path, layout.dtype, "r", shape=shape)


class RawLayout:
    """What --raw says of files without a header: 640x512:uint16, big-endian as >u2.

    Raises:
        DataError: not of that form.
    """

    def __init__(self, text: str):
        try:
            size, _, kind = text.partition(":")
            self.width, self.height = (int(part) for part in size.lower().split("x"))
            self.dtype = np.dtype(kind or "uint16")
            if min(self.width, self.height) < 1 or self.dtype.kind not in "uif":
                raise ValueError
        except (ValueError, TypeError):
            raise DataError(
                f"--raw {text}: expected WIDTHxHEIGHT:TYPE, as 640x512:uint16 or 640x512:>u2"
            ) from None
