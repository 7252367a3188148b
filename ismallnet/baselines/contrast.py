"""Local contrast: a cell of pixels against the eight cells of equal size around it.

HxW float32 grey values in [0, 255], window in px (three cells side by side) -> HxW float32 scores.
"""

from collections.abc import Callable

import cv2
import numpy as np

# The eight neighbours of a cell as (row, column), opposite ones four apart.
NEIGHBOURS = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
STRONGEST = 9  # pixels of a cell that TLLCM takes its mean of


def around(values: np.ndarray, cell: int) -> list[np.ndarray]:
    """The values of the eight neighbouring cells of each pixel's cell, each HxW."""
    height, width = values.shape
    padded = cv2.copyMakeBorder(values, *[cell] * 4, cv2.BORDER_REFLECT)
    corners = [(cell * y, cell * x) for y, x in NEIGHBOURS]
    return [padded[y : y + height, x : x + width] for y, x in corners]


def largest_scale(measure: Callable[[np.ndarray, int], np.ndarray]) -> Callable:
    """A method that takes, at each pixel, the largest value of a measure over cells of 3, 5, 7, …
    up to a third of the window."""

    def score(image: np.ndarray, window: int) -> np.ndarray:
        return np.max([measure(image, cell) for cell in range(3, window // 3 + 1, 2)], axis=0)

    return score


@largest_scale
def lcm(image: np.ndarray, cell: int) -> np.ndarray:
    """Local contrast measure (Chen et al., TGRS 2014): brightest pixel of a cell, squared, over the
    brightest mean of the eight cells around it."""
    peak = cv2.dilate(image, np.ones((cell, cell), np.uint8))
    brightest = np.max(around(cv2.blur(image, (cell, cell)), cell), axis=0)
    return peak**2 / np.maximum(brightest, 1)


@largest_scale
def mpcm(image: np.ndarray, cell: int) -> np.ndarray:
    """Multiscale patch-based contrast measure (Wei et al., Pattern Recognition 2016): the cell's mean
    less that of each neighbour; of opposite neighbours the product of both differences, and of the
    four products the smallest. Bright targets alone: two negative differences count as none."""
    mean = cv2.blur(image, (cell, cell))
    above = [np.maximum(mean - other, 0) for other in around(mean, cell)]
    return np.min([above[k] * above[k + 4] for k in range(4)], axis=0)


def tllcm(image: np.ndarray, window: int) -> np.ndarray:
    """Tri-layer local contrast measure (Han et al., GRSL 2020): the core, Gaussian weights over 3x3
    pixels, against the neighbouring cells, each the mean of its brightest pixels; ratio to the
    brightest of them times the difference from it. What lies between core and neighbours is the
    reserve layer, which belongs to neither.

    Written from the paper's description: its number of pixels in the mean, 9 here, may differ.
    """
    cell = window // 3
    core = cv2.GaussianBlur(image, (3, 3), 0)  # weights 1, 2, 1 over 4
    radius = cell // 2
    padded = cv2.copyMakeBorder(image, *[radius] * 4, cv2.BORDER_REFLECT)
    pixels = np.lib.stride_tricks.sliding_window_view(padded, (cell, cell))
    pixels = pixels.reshape(*image.shape, cell * cell)
    bright = np.partition(pixels, -STRONGEST, axis=-1)[..., -STRONGEST:].mean(axis=-1)
    background = np.maximum(np.max(around(bright, cell), axis=0), 1)
    return core / background * np.maximum(core - background, 0)
