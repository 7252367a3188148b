"""Filters: what stands out from a background that a neighbourhood of each pixel gives.

HxW float32 grey values in [0, 255], window in px -> HxW float32 scores.
"""

import cv2
import numpy as np


def tophat(image: np.ndarray, window: int) -> np.ndarray:
    """White top-hat: what is brighter than its surroundings and smaller than the window."""
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (window, window))
    return cv2.morphologyEx(image, cv2.MORPH_TOPHAT, element)


def maxmedian(image: np.ndarray, window: int) -> np.ndarray:
    """Max-median filter (Deshpande et al., SPIE 1999): the image above its background, which is the
    largest of the medians along the four directions through a pixel, over an odd window."""
    radius = window // 2
    padded = cv2.copyMakeBorder(image, *[radius] * 4, cv2.BORDER_REFLECT)
    height, width = image.shape
    medians = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        steps = range(-radius, radius + 1)
        starts = [(radius + dy * step, radius + dx * step) for step in steps]
        line = np.stack([padded[y : y + height, x : x + width] for y, x in starts], axis=-1)
        medians.append(np.partition(line, radius, axis=-1)[..., radius])
    return np.maximum(image - np.max(medians, axis=0), 0)
