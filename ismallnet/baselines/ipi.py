"""The infrared patch-image model: patches of a background resemble each other, and targets are few
pixels.

HxW float32 grey values in [0, 255], side of the patches in px -> HxW float32 scores, the sparse part
where it is bright.
"""

import numpy as np

LEFT_OVER = 1e-6  # of what is left over, relative to the patches
STRIDE = 10  # px between patches
GROWTH = 1.5  # of the penalty, a step


def corners(shape: tuple[int, int], side: int) -> list[tuple[int, int]]:
    """(y, x) of patches at every STRIDE pixels, and at the far edges."""
    rows, columns = ([*range(0, n - side, min(STRIDE, side)), n - side] for n in shape)
    return [(y, x) for y in rows for x in columns]


def cut(image: np.ndarray, side: int) -> np.ndarray:
    """The image's patches, (side, side, N) float64; smaller where the image is."""
    side = min(side, *image.shape)
    patches = [image[y : y + side, x : x + side] for y, x in corners(image.shape, side)]
    return np.stack(patches, axis=-1).astype(np.float64)


def join(patches: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The image of a shape that `cut` makes such patches of: the median where they overlap, and 0
    where that is negative. HxW float32."""
    side, count = len(patches), np.zeros(shape, np.int64)
    layers = np.full(((side // STRIDE + 2) ** 2, *shape), np.nan)
    for (y, x), patch in zip(corners(shape, side), np.moveaxis(patches, -1, 0)):
        at = tuple(np.mgrid[y : y + side, x : x + side])
        layers[(count[at], *at)] = patch
        count[at] += 1
    return np.maximum(np.nanmedian(layers[: count.max()], axis=0), 0).astype(np.float32)


def shrink(matrix: np.ndarray, less: float) -> np.ndarray:
    """The matrix with singular values that are smaller by `less`, none below 0: the proximal operator
    of the nuclear norm. By the smaller Gram matrix."""
    if matrix.shape[0] < matrix.shape[1]:
        return shrink(matrix.T, less).T
    squares, vectors = np.linalg.eigh(matrix.T @ matrix)
    values = np.sqrt(np.maximum(squares, 0))
    kept = values > less
    values, vectors = values[kept], vectors[:, kept]
    return (matrix @ (vectors * ((values - less) / values))) @ vectors.T


def sparse_part(matrix: np.ndarray) -> np.ndarray:
    """The sparse part of a matrix that is the sum of a low-rank and a sparse one of weight 1/sqrt(its
    longer side): by inexact augmented Lagrange multipliers (Lin et al., 2010)."""
    weight, largest = 1 / np.sqrt(max(matrix.shape)), np.linalg.norm(matrix, 2)
    multiplier = matrix / max(largest, np.abs(matrix).max() / weight, 1e-9)
    penalty, sparse = 1.25 / max(largest, 1e-9), np.zeros_like(matrix)
    for _ in range(100):
        background = shrink(matrix - sparse + multiplier / penalty, 1 / penalty)
        rest = matrix - background + multiplier / penalty
        sparse = np.sign(rest) * np.maximum(np.abs(rest) - weight / penalty, 0)
        gap = matrix - background - sparse
        multiplier = multiplier + penalty * gap
        penalty *= GROWTH
        if np.linalg.norm(gap) <= LEFT_OVER * np.linalg.norm(matrix):
            break
    return sparse


def ipi(image: np.ndarray, window: int) -> np.ndarray:
    """Infrared patch-image model (Gao et al., TIP 2013): the matrix whose columns are the patches is a
    low-rank background and sparse targets. Not solved as in the paper, by accelerated proximal
    gradient."""
    patches = cut(image, window)
    sparse = sparse_part(patches.reshape(-1, patches.shape[2]))
    return join(sparse.reshape(patches.shape), image.shape)
