"""Random and damaged input: it works, or it is a DataError; never a crash, and nothing leads outside.

More of each: HYPOTHESIS_PROFILE=soak (thousands instead of tens).
"""

import itertools
import os
import struct
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import SOAK, make_set, picture, write
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.evaluation.protocols import evaluate
from ismallnet.images.grey import GreyRange
from ismallnet.images.picture import decode
from ismallnet.inference.predict import tile_weights
from net import pad_to_multiple
from utils import decouple

FIXED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
settings.register_profile(
    "quick", max_examples=40, deadline=None, derandomize=True, suppress_health_check=FIXED
)
settings.register_profile("soak", max_examples=3000, deadline=None, suppress_health_check=FIXED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

outcomes: Counter = Counter()  # of the pictures
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
    colour = np.dstack([deep] * 3)
    forms = {
        "grey.png": pixels,
        "deep.png": deep,
        "colour16.png": colour,
        "grey.tif": pixels,
        "deep.tif": deep,
        "float.tif": pixels.astype(np.float32),
        "colour16.tif": colour,
    }
    return cv2.imencode(Path(kind).suffix, forms[kind])[1].tobytes()


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
        outcomes["refused"] += 1
        return
    outcomes["read"] += 1
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


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_decompression_bomb_is_refused_by_its_header():
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
    Path("bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match=r"bomb\.png: not a readable image"):
        decode(Path("bomb.png"))


# --- arithmetic ------------------------------------------------------------------------------------


@given(masks, st.sampled_from(["authors", "paper"]))
def test_decoupling_of_any_mask(mask, method):
    mask = mask.astype(np.uint8) * 255
    interior, boundary = decouple(mask, method)
    assert interior.shape == boundary.shape == mask.shape and interior.dtype == np.uint8
    assert (boundary[mask == 0] == 0).all()
    if method == "paper":
        assert np.array_equal(interior.astype(int) + boundary, mask)
        assert np.array_equal(np.where(mask, interior, 0), interior)
    for flip in (np.fliplr, np.flipud, np.transpose):
        flipped = decouple(np.ascontiguousarray(flip(mask)), method)
        difference = np.abs(flip(interior).astype(int) - flipped[0])
        assert difference.max() <= (1 if method == "paper" else 2)  # 5x5 chamfer sums in another order


@given(st.lists(st.tuples(masks, st.integers(0, 2**32 - 1)), min_size=1, max_size=4))
def test_figures_against_an_independent_count(scenes):
    pairs, both, either, targets, found, pixels, false = [], 0, 0, 0, 0, 0, 0
    for mask, seed in scenes:
        pred = np.random.default_rng(seed).random(mask.shape) < 0.3
        pairs.append((pred.astype(np.uint8) * 255, mask.astype(np.uint8) * 255))
        both += int((pred & mask).sum())
        either += int((pred | mask).sum())
        pixels += mask.size
        matched, count, rest = matching(pred, mask)
        targets, found, false = targets + count, found + matched, false + rest
    figures = evaluate(pairs)
    assert figures["iou"] == (both / either if either else None) or figures["iou"] == 1.0
    assert figures["pd"] == (found / targets if targets else None)
    assert figures["fa"] == false / pixels


def matching(pred: np.ndarray, mask: np.ndarray) -> tuple[int, int, int]:
    """(matched, targets, false pixels) by scipy's labels and maximum-weight assignment."""
    from scipy.optimize import linear_sum_assignment

    eight = np.ones((3, 3))
    labels_g, count_g = ndimage.label(mask, eight)
    labels_p, count_p = ndimage.label(pred, eight)
    areas = np.bincount(labels_p.ravel(), minlength=count_p + 1)[1:]
    centres_g = np.array(ndimage.center_of_mass(mask, labels_g, range(1, count_g + 1))).reshape(-1, 2)
    centres_p = np.array(ndimage.center_of_mass(pred, labels_p, range(1, count_p + 1))).reshape(-1, 2)
    distance = np.linalg.norm(centres_g[:, None] - centres_p[None], axis=2)
    near = distance < 3 - 1e-9
    # Of two equal distances the larger prediction, as the protocol says: areas break ties below.
    worth = np.where(near, 1e6 - 1e3 * distance + 1e-3 * areas[None] / max(areas.sum(), 1), 0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    hits = [(r, c) for r, c in zip(rows, columns) if near[r, c]]
    assume(len({round(float(d), 6) for d in distance[near]}) == near.sum())  # ties are tested by hand
    return len(hits), count_g, int(areas.sum() - sum(areas[c] for _, c in hits))


@given(st.integers(1, 70), st.integers(1, 70))
def test_padding_keeps_the_image_and_repeats_what_is_in_it(height, width):
    x = torch.rand(1, 2, height, width)
    padded = pad_to_multiple(x)
    assert padded.shape[2] % 16 == padded.shape[3] % 16 == 0
    assert padded.shape[2] - height < 16 and padded.shape[3] - width < 16
    assert torch.equal(padded[..., :height, :width], x)
    assert torch.isin(padded, x).all()


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
