"""Polygons, rectangles, circles and run lengths of annotation files -> the pixels they cover.

Pixel (x, y) is the square from x to x+1 and y to y+1, as in COCO and labelme. A shape covers the pixels
whose centres (x + 0.5, y + 0.5) lie in it; of its outline the left and the top edge belong to it.
"""

from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
    """One outlined or encoded area.

    Args:
        kind: "polygon", "rectangle", "circle" or "counts".
        points: (n, 2) x, y in px: a polygon's corners, two opposite ones of a rectangle, a circle's
            centre and a point of its outline; of "counts" empty.
        counts: run lengths down the columns, of background first.
    """

    kind: str
    points: np.ndarray
    counts: tuple[int, ...] = ()


def covered(shape: Shape, size: tuple[int, int], centres: bool = False) -> np.ndarray:
    """The pixels of a shape, HxW bool.

    Args:
        size: (H, W).
        centres: the points are pixels' numbers, as OpenCV's findContours gives them: pixels on the
            outline are covered too.
    """
    if shape.kind == "counts":
        values = np.arange(len(shape.counts)) % 2 == 1
        return np.repeat(values, shape.counts).reshape(size[::-1]).T
    if shape.kind == "circle":
        return circle(shape.points, size)
    corners = shape.points
    if shape.kind == "rectangle":
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    if centres:
        return polygon(corners + 0.5, size) | outline(corners, size)
    return polygon(corners, size)


def polygon(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie in a polygon (even-odd rule), HxW bool; (n, 2) x, y corners."""
    height, width = size
    pixels = np.zeros(size, bool)
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    first = max(int(np.ceil(corners[:, 1].min() - 0.5)), 0)
    last = min(int(np.ceil(corners[:, 1].max() - 0.5)), height)
    for row in range(first, last):
        y = row + 0.5
        crossed = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1))
        a, b, c, d = x0[crossed], y0[crossed], x1[crossed], y1[crossed]
        at = np.sort(a + (y - b) * (c - a) / (d - b))
        edges = np.clip(np.ceil(at - 0.5), 0, width).astype(int)
        for start, stop in zip(edges[::2], edges[1::2]):
            pixels[row, start:stop] ^= True
    return pixels


def circle(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie in a circle, HxW bool; its centre and a point of its outline."""
    (x, y), (right, bottom) = points
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 < (right - x) ** 2 + (bottom - y) ** 2


def outline(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels that the lines between pixels' numbers pass, ends included, HxW bool."""
    pixels = np.zeros(size, bool)
    for start, end in zip(corners, np.roll(corners, -1, axis=0)):
        steps = int(np.abs(end - start).max().round()) + 1
        line = np.floor(np.linspace(start, end, steps) + 0.5).astype(int)
        inside = ((line >= 0) & (line < size[::-1])).all(axis=1)
        pixels[line[inside, 1], line[inside, 0]] = True
    return pixels


def middle_pixel(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """For a shape that covers no pixel's centre: the pixel that its middle lies in, HxW bool; none
    where that is not in the image."""
    pixels = np.zeros(size, bool)
    points = shape.points[:1] if shape.kind == "circle" else shape.points
    column, row = np.floor((points.min(axis=0) + points.max(axis=0)) / 2).astype(int)
    if 0 <= row < size[0] and 0 <= column < size[1]:
        pixels[row, column] = True
    return pixels


def decode_counts(text: str) -> tuple[int, ...]:
    """COCO's compressed run lengths as numbers. Each is written in groups of five bits, the lowest
    first, as characters from "0" on; bit 6 says that another group follows, the highest bit of the last
    group is the sign; from the fourth on they are differences to the one two before.

    Raises:
        ValueError: not such a text.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise ValueError(f"found {character!r} in run lengths")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("run lengths end in the middle of a number")
    return tuple(counts)
