"""Random and damaged input: it works, or it is a DataError; never a crash, and nothing leads outside.

More of each: HYPOTHESIS_PROFILE=soak (thousands instead of tens).
"""

import itertools
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SOAK, make_set, picture, write
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.images.grey import GreyRange
from ismallnet.inference.predict import tile_weights
from utils import decouple

FIXED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
settings.register_profile(
    "quick", max_examples=40, deadline=None, derandomize=True, suppress_health_check=FIXED
)
settings.register_profile("soak", max_examples=3000, deadline=None, suppress_health_check=FIXED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

masks = arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24)))


# --- lists -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("fuzz")
    make_set(top / "data" / "tiny", names="abcd", train=2)
    write(top / "secret.png", picture())
    return top


ENTRIES = st.one_of(
    st.sampled_from(
        ["a", "b.png", "images/c", "./d", "../secret", "/etc/passwd", "\0", "C:\\x", "..\\..\\a"]
    ),
    st.text(max_size=12),
)


@given(st.lists(ENTRIES, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_any_list_names_images_of_the_data_set_or_problems(root, entries, newline):
    text = newline.join(entries).encode("utf-8", "surrogatepass")
    (root / "data/tiny/50_50/test.txt").write_bytes(text)
    try:
        data = find_dataset("tiny", root / "data")
    except DataError:
        return
    for sample in data.lists["test"]:
        assert sample.image.resolve().is_relative_to(root / "data/tiny")
        assert sample.mask.resolve().is_relative_to(root / "data/tiny")
        assert sample.name in "abcd"


# --- pictures --------------------------------------------------------------------------------------


def encoded(kind: str) -> bytes:
    pixels = picture(3, (24, 20))
    deep = pixels.astype(np.uint16) * 200
    forms = {"grey": pixels, "deep": deep, "colour16": np.dstack([deep] * 3)}
    forms["float"] = pixels.astype(np.float32)
    stem, suffix = kind.split(".")
    return cv2.imencode(f".{suffix}", forms[stem])[1].tobytes()


KINDS = ("grey.png", "deep.png", "colour16.png", "grey.tif", "deep.tif", "float.tif", "colour16.tif")


@settings(max_examples=10_000 if SOAK else 100)
@example("grey.tif", [], 2, False)  # less than a header
@example("deep.tif", [(2344, 0)], None, False)  # a page without pixels
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
    st.one_of(st.none(), st.integers(0, 3000)),
    st.booleans(),
)
def test_any_change_of_a_picture_is_read_or_refused(root, kind, changes, length, mend):
    raw = bytearray(encoded(kind))
    for at, value in changes:
        raw[at % len(raw)] = value
    raw = bytes(raw[:length])
    if mend and kind.endswith(".png"):  # right checksums, so that what is behind them is reached
        raw = with_checksums(raw)
    path = root / kind
    path.write_bytes(raw)
    try:
        pixels = GreyRange().read(Path(path))[0]
    except DataError as error:
        assert kind in str(error)
        return
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and np.isfinite(pixels).all()
    assert pixels.min() >= 0 and pixels.max() <= 255


def with_checksums(raw: bytes) -> bytes:
    out, at = raw[:8], 8
    while at + 12 <= len(raw):
        (size,) = struct.unpack(">I", raw[at : at + 4])
        if at + 12 + size > len(raw):
            break
        body = raw[at + 4 : at + 8 + size]
        out += raw[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return out + raw[at:]


# --- arithmetic ------------------------------------------------------------------------------------


@given(masks, st.sampled_from(["authors", "wei"]))
def test_decoupling_of_any_mask(mask, method):
    mask = mask.astype(np.uint8) * 255
    interior, boundary = decouple(mask, method)
    assert interior.shape == boundary.shape == mask.shape and interior.dtype == np.uint8
    assert (boundary[mask == 0] == 0).all()
    if method == "wei":
        assert np.array_equal(interior.astype(int) + boundary, mask)
    for flip in (np.fliplr, np.flipud, np.transpose):
        flipped = decouple(np.ascontiguousarray(flip(mask)), method)
        difference = np.abs(flip(interior).astype(int) - flipped[0])
        assert difference.max() <= (1 if method == "wei" else 2)  # 5x5 chamfer sums in another order


@given(st.integers(1, 5000), st.integers(32, 600), st.integers(0, 300))
def test_tiles_cover_every_pixel_with_weight_one(size, tile, overlap):
    assume(2 * overlap <= tile)
    total = np.zeros(size)
    tiles = tile_weights(size, tile, overlap)
    for (start, weights), (following, _) in itertools.pairwise(tiles):
        assert start < following <= start + len(weights) - overlap
    for start, weights in tiles:
        assert start >= 0 and len(weights) == min(tile, size) and (weights >= 0).all()
        total[start : start + len(weights)] += weights
    assert np.allclose(total, 1, atol=1e-5)
