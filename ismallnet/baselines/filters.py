"""Filters: what stands out from a background that a neighbourhood of each pixel gives.

HxW float32 grey values in [0, 255], window in px -> HxW float32 scores.
"""

import cv2
import numpy as np

# The eight neighbours of a cell as (row, column), opposite ones four apart.
NEIGHBOURS = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))


def tophat(image: np.ndarray, window: int) -> np.ndarray:
    """White top-hat: what is brighter than its surroundings and smaller than the window."""
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (window, window))
    return cv2.morphologyEx(image, cv2.MORPH_TOPHAT, element)


def moved(image: np.ndarray, margin: int, corners: list[tuple[int, int]]) -> list[np.ndarray]:
    """Cuts of the image with a reflected margin, px, each HxW; of each the (y, x) of its corner."""
    height, width = image.shape
    padded = cv2.copyMakeBorder(image, *[margin] * 4, cv2.BORDER_REFLECT)
    return [padded[y : y + height, x : x + width] for y, x in corners]


def maxmedian(image: np.ndarray, window: int) -> np.ndarray:
    """Max-median filter (Deshpande et al., SPIE 1999): the image above its background, which is the
    largest of the medians along the four directions through a pixel, over an odd window."""
    radius, medians = window // 2, []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        corners = [(radius + dy * k, radius + dx * k) for k in range(-radius, radius + 1)]
        line = np.stack(moved(image, radius, corners), axis=-1)
        medians.append(np.partition(line, radius, axis=-1)[..., radius])
    return np.maximum(image - np.max(medians, axis=0), 0)


def patch_contrast(image: np.ndarray, cell: int) -> np.ndarray:
    """A cell's mean less that of each neighbouring cell; of opposite neighbours the product of both
    differences, and of the four products the smallest. Negative differences count as none."""
    mean = cv2.blur(image, (cell, cell))
    corners = [(cell * y, cell * x) for y, x in NEIGHBOURS]
    above = [np.maximum(mean - other, 0) for other in moved(mean, cell, corners)]
    return np.min([above[k] * above[k + 4] for k in range(4)], axis=0)


def mpcm(image: np.ndarray, window: int) -> np.ndarray:
    """Multiscale patch-based contrast measure (Wei et al., Pattern Recognition 2016), of bright targets
    alone: at each pixel the largest over cells of 3, 5, 7, … px, up to a third of the window."""
    return np.max([patch_contrast(image, cell) for cell in range(3, window // 3 + 1, 2)], axis=0)
