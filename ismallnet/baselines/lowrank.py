"""Low rank and sparse: patches of a background resemble each other, and targets are few pixels.

HxW float32 grey values in [0, 255], side of the patches in px -> HxW float32 scores, the sparse part
where it is bright. All are solved by alternating directions with a growing penalty; where a paper
leaves a value open, or solves it in another way, the function says so.
"""

from typing import NamedTuple

import numpy as np
from skimage.feature import structure_tensor, structure_tensor_eigenvalues

TOLERANCE = 1e-6  # of what is left over, relative to the patches


class Patches(NamedTuple):
    """Square patches of an image.

    Attributes:
        values: (side, side, N) float64.
        corners: of each, (y, x).
        shape: of the image, (height, width).
    """

    values: np.ndarray
    corners: list[tuple[int, int]]
    shape: tuple[int, int]

    @property
    def matrix(self) -> np.ndarray:
        """A patch a column: (side · side, N)."""
        return self.values.reshape(-1, len(self.corners))


def cut(image: np.ndarray, side: int, stride: int) -> Patches:
    """Patches at every `stride` pixels, and at the far edges."""
    height, width = image.shape
    side = min(side, height, width)
    stride = min(stride, side)
    corners = [
        (y, x)
        for y in [*range(0, height - side, stride), height - side]
        for x in [*range(0, width - side, stride), width - side]
    ]
    values = [image[y : y + side, x : x + side] for y, x in corners]
    return Patches(np.stack(values, axis=-1).astype(np.float64), corners, image.shape)


def join(patches: Patches, values: np.ndarray) -> np.ndarray:
    """An image of values like the patches': the median where they overlap, and 0 where that is
    negative. HxW float32."""
    side = patches.values.shape[0]
    values = values.reshape(side, side, -1)
    count = np.zeros(patches.shape, np.int64)
    for y, x in patches.corners:
        count[y : y + side, x : x + side] += 1
    layers = np.full((count.max(), *patches.shape), np.inf)
    count[:] = 0
    for (y, x), patch in zip(patches.corners, np.moveaxis(values, -1, 0)):
        at = tuple(np.mgrid[y : y + side, x : x + side])
        layers[(count[at], *at)] = patch
        count[at] += 1
    layers.sort(axis=0)  # layers that a pixel does not have sort last
    middle = [np.take_along_axis(layers, n[None], axis=0) for n in ((count - 1) // 2, count // 2)]
    return np.maximum(np.mean(middle, axis=0)[0], 0).astype(np.float32)


def shrink(values: np.ndarray, threshold: np.ndarray | float) -> np.ndarray:
    """Each value moved towards 0 by the threshold."""
    return np.sign(values) * np.maximum(np.abs(values) - threshold, 0)


def singular(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Singular values, their vectors on the shorter side, and whether that side is the rows; by the
    smaller Gram matrix."""
    rows = matrix.shape[0] < matrix.shape[1]
    values, vectors = np.linalg.eigh(matrix @ matrix.T if rows else matrix.T @ matrix)
    return np.sqrt(np.maximum(values, 0)), vectors, rows


def with_singular(matrix: np.ndarray, parts: tuple, wanted: np.ndarray) -> np.ndarray:
    """The matrix with other singular values; `parts` as `singular` gives them."""
    values, vectors, rows = parts
    kept = wanted > 0
    vectors = vectors[:, kept]
    scaled = vectors * (wanted[kept] / values[kept])
    return vectors @ (scaled.T @ matrix) if rows else (matrix @ scaled) @ vectors.T


def shrink_rank(matrix: np.ndarray, threshold: float) -> np.ndarray:
    """Singular values less `threshold`."""
    parts = singular(matrix)
    return with_singular(matrix, parts, np.maximum(parts[0] - threshold, 0))


def edges_and_corners(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The larger and the smaller eigenvalue of the structure tensor, each HxW."""
    larger, smaller = structure_tensor_eigenvalues(structure_tensor(image, sigma=2, order="rc"))
    return larger, np.maximum(smaller, 0)


def to_unit(values: np.ndarray) -> np.ndarray:
    """Values moved and scaled to [0, 1]."""
    return (values - values.min()) / max(float(values.max() - values.min()), 1e-12)


# --- the methods --------------------------------------------------------------------------------------


def ipi(image: np.ndarray, window: int, stride: int = 10, steps: int = 100) -> np.ndarray:
    """Infrared patch-image model (Gao et al., TIP 2013): the matrix whose columns are the image's
    patches is a low-rank background and sparse targets, by robust principal component analysis with
    weight 1/sqrt(its longer side).

    Solved by inexact augmented Lagrange multipliers (Lin et al., 2010), which reaches the same minimum
    as the paper's accelerated proximal gradient in fewer steps.
    """
    cutting = cut(image, window, stride)
    patches = cutting.matrix
    weight = 1 / np.sqrt(max(patches.shape))
    largest = singular(patches)[0][-1]
    multiplier = patches / max(largest, np.abs(patches).max() / weight, 1e-9)
    penalty = 1.25 / max(largest, 1e-9)
    sparse = np.zeros_like(patches)
    for _ in range(steps):
        low_rank = shrink_rank(patches - sparse + multiplier / penalty, 1 / penalty)
        sparse = shrink(patches - low_rank + multiplier / penalty, weight / penalty)
        gap = patches - low_rank - sparse
        multiplier += penalty * gap
        penalty *= 1.5
        if np.linalg.norm(gap) <= TOLERANCE * np.linalg.norm(patches):
            break
    return join(cutting, sparse)


def nram(image: np.ndarray, window: int, stride: int = 10, steps: int = 100) -> np.ndarray:
    """Non-convex rank approximation with an l2,1 norm (Zhang et al., Remote Sensing 2018): patches are
    a background, whose rank is measured by Σ (1 + γ) σ / (γ + σ), sparse targets, which cost
    C / (|t| + ε) where they were seen before, and residual edges that fill whole patches.

    The paper's values, for grey values in [0, 1] and n the matrix's shorter side: λ = 1/sqrt(n), first
    penalty 3 sqrt(n), γ = 0.002, C = sqrt(n) / 2.5. Ours: ε = 0.01; the edges' weight λ C side, which
    leaves them patches that are full; penalty × 1.5 a step. The problem is not convex: with a slower
    penalty the background takes faint targets as well.
    """
    cutting = cut(image / 255, window, stride)
    patches = cutting.matrix
    root = np.sqrt(min(patches.shape))
    gamma, weight, scale, penalty = 0.002, 1 / root, root / 2.5, 3 * root
    sparse, edges, multiplier = (np.zeros_like(patches) for _ in range(3))
    cost = np.ones_like(patches)
    sigma = np.zeros(min(patches.shape))
    for _ in range(steps):
        matrix = patches - sparse - edges + multiplier / penalty
        parts = singular(matrix)
        for _ in range(20):  # a concave measure: its tangent at the last values, again and again
            before = sigma
            sigma = np.maximum(parts[0] - (1 + gamma) * gamma / (gamma + sigma) ** 2 / penalty, 0)
            if np.abs(sigma - before).max() < 1e-6:
                break
        low_rank = with_singular(matrix, parts, sigma)
        sparse = shrink(patches - low_rank - edges + multiplier / penalty, weight * cost / penalty)
        cost = scale / (np.abs(sparse) + 0.01)
        rest = patches - low_rank - sparse + multiplier / penalty
        length = np.maximum(np.linalg.norm(rest, axis=0), 1e-12)
        threshold = weight * scale * np.sqrt(len(patches)) / penalty
        edges = rest * np.maximum(1 - threshold / length, 0)
        gap = patches - low_rank - sparse - edges
        multiplier += penalty * gap
        penalty *= 1.5
        if np.linalg.norm(gap) <= TOLERANCE * np.linalg.norm(patches):
            break
    return join(cutting, 255 * sparse)


def ript(image: np.ndarray, window: int, stride: int = 10, steps: int = 60) -> np.ndarray:
    """Reweighted infrared patch-tensor model (Dai and Wu, JSTARS 2017): the patches, one behind the
    other, are a tensor whose three unfoldings are of low rank, and sparse targets, which cost
    exp(h (l1 - l2)) at edges (eigenvalues of the structure tensor, their difference scaled to [0, 1])
    and 1 / (|t| + ε) where they were found before.

    The paper's values: λ = 1/sqrt(shortest side), h = 1, ε = 0.01. Ours: first penalty 1 over five
    standard deviations of the patches, × 1.5 a step.
    """
    cutting = cut(image, window, stride)
    patches = cutting.values
    larger, smaller = edges_and_corners(image)
    local = cut(np.exp(to_unit(larger - smaller)), window, stride).values
    weight = 1 / np.sqrt(min(patches.shape))
    penalty = 1 / max(5 * float(patches.std()), 1e-9)
    sparse, cost = np.zeros_like(patches), local
    multipliers = [np.zeros_like(patches) for _ in range(3)]
    for _ in range(steps):
        parts = []
        for axis, multiplier in enumerate(multipliers):
            tensor = np.moveaxis(patches - sparse + multiplier / penalty, axis, 0)
            flat = shrink_rank(tensor.reshape(len(tensor), -1), 1 / penalty)
            parts.append(np.moveaxis(flat.reshape(tensor.shape), 0, axis))
        rests = [patches - part + m / penalty for part, m in zip(parts, multipliers)]
        sparse = shrink(sum(rests) / 3, weight * cost / (3 * penalty))
        cost = local / (np.abs(sparse) + 0.01)
        gaps = [patches - part - sparse for part in parts]
        for multiplier, gap in zip(multipliers, gaps):
            multiplier += penalty * gap
        penalty *= 1.5
        if max(map(np.linalg.norm, gaps)) <= TOLERANCE * np.linalg.norm(patches):
            break
    return join(cutting, sparse)


def pstnn(image: np.ndarray, window: int, steps: int = 100) -> np.ndarray:
    """Partial sum of the tensor nuclear norm (Zhang and Peng, Remote Sensing 2019): patches side by
    side, without overlap, are a tensor whose Fourier slices (along the patches) keep their largest
    singular value and lose the others, and sparse targets, which cost less at corners of the image
    and where they were found before.

    The paper's λ = 0.6 / sqrt(side · number of patches) and corner strength, l1 l2 / (l1 + l2) · l1
    scaled to [0, 1]. Ours: the cost is 1 / (strength + 0.01) over its median, one singular value is
    kept in each slice, first penalty 0.001, × 1.1 a step.
    """
    cutting = cut(image, window, window)
    patches = cutting.values
    larger, smaller = edges_and_corners(image)
    corner = to_unit(larger * smaller / np.maximum(larger + smaller, 1e-12) * larger)
    local = cut(1 / (corner + 0.01), window, window).values
    local /= np.median(local)
    weight = 0.6 / np.sqrt(patches.shape[0] * patches.shape[2])
    penalty = 1e-3
    sparse, multiplier, cost = np.zeros_like(patches), np.zeros_like(patches), local
    for _ in range(steps):
        slices = np.fft.rfft(patches - sparse + multiplier / penalty, axis=2).transpose(2, 0, 1)
        u, s, v = np.linalg.svd(slices, full_matrices=False)
        s[:, 1:] = np.maximum(s[:, 1:] - 1 / penalty, 0)
        low_rank = np.fft.irfft(((u * s[:, None]) @ v).transpose(1, 2, 0), patches.shape[2], axis=2)
        sparse = shrink(patches - low_rank + multiplier / penalty, weight * cost / penalty)
        cost = local / (np.abs(sparse) + 0.01)
        gap = patches - low_rank - sparse
        multiplier += penalty * gap
        penalty *= 1.1
        if np.linalg.norm(gap) <= TOLERANCE * np.linalg.norm(patches):
            break
    return join(cutting, sparse)
