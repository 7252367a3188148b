"""Low rank and sparse: patches of a background resemble each other, and targets are few pixels.

HxW float32 grey values in [0, 255], side of the patches in px -> HxW float32 scores, the sparse part
where it is bright. Where a paper leaves a value open, or solves its problem in another way, the
function says so.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from skimage.feature import structure_tensor, structure_tensor_eigenvalues

LEFT_OVER = 1e-6  # of what is left over, relative to the patches
STRIDE = 10  # px between patches
EPSILON = 0.01  # added to |t| in the costs 1 / |t|

Part = Callable[[np.ndarray, float], np.ndarray]  # of what is given, at a penalty


def corners(shape: tuple[int, int], side: int, stride: int) -> list[tuple[int, int]]:
    """(y, x) of patches at every `stride` pixels, and at the far edges."""
    rows, columns = ([*range(0, n - side, min(stride, side)), n - side] for n in shape)
    return [(y, x) for y in rows for x in columns]


def cut(image: np.ndarray, side: int, stride: int) -> np.ndarray:
    """The image's patches, (side, side, N) float64; smaller where the image is."""
    side = min(side, *image.shape)
    places = corners(image.shape, side, stride)
    patches = [image[y : y + side, x : x + side] for y, x in places]
    return np.stack(patches, axis=-1).astype(np.float64)


def join(patches: np.ndarray, shape: tuple[int, int], stride: int) -> np.ndarray:
    """The image of a shape that `cut` makes such patches of: the median where they overlap, and 0
    where that is negative. HxW float32."""
    side, places = len(patches), corners(shape, len(patches), stride)
    count = np.zeros(shape, np.int64)
    for y, x in places:
        count[y : y + side, x : x + side] += 1
    layers = np.full((count.max(), *shape), np.inf)
    count[:] = 0
    for (y, x), patch in zip(places, np.moveaxis(patches, -1, 0)):
        at = tuple(np.mgrid[y : y + side, x : x + side])
        layers[(count[at], *at)] = patch
        count[at] += 1
    layers.sort(axis=0)  # layers that a pixel does not have sort last
    middle = [np.take_along_axis(layers, n[None], axis=0) for n in ((count - 1) // 2, count // 2)]
    return np.maximum(np.mean(middle, axis=0)[0], 0).astype(np.float32)


def singular(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Singular values, their vectors on the shorter side, and whether that side is the rows; by the
    smaller Gram matrix."""
    rows = matrix.shape[0] < matrix.shape[1]
    values, vectors = np.linalg.eigh(matrix @ matrix.T if rows else matrix.T @ matrix)
    return np.sqrt(np.maximum(values, 0)), vectors, rows


def shrink_rank(matrix: np.ndarray, less: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The matrix with `less` of its singular values."""
    values, vectors, rows = singular(matrix)
    wanted = less(values)
    kept = wanted > 0
    vectors = vectors[:, kept]
    scaled = vectors * (wanted[kept] / values[kept])
    return vectors @ (scaled.T @ matrix) if rows else (matrix @ scaled) @ vectors.T


def nuclear(matrix: np.ndarray, penalty: float) -> np.ndarray:
    """The nuclear norm's: all singular values less 1 / penalty."""
    return shrink_rank(matrix, lambda values: np.maximum(values - 1 / penalty, 0))


def separate(
    patches: np.ndarray,
    backgrounds: Sequence[Part],
    weight: float,
    penalty: float,
    *,
    first: tuple[np.ndarray | float, np.ndarray | float] = (0.0, 1.0),
    reweight: np.ndarray | float | None = None,
    residual: Part | None = None,
    growth: float = 1.5,
    steps: int = 100,
) -> np.ndarray:
    """The sparse part of patches that are the sum of low rank, sparse and residual: by alternating
    directions with a growing penalty.

    Args:
        backgrounds: each gives its own low-rank part; the sparse part fits their mean.
        weight: of the sparse part, times a cost: `reweight` / (|t| + EPSILON) after a step.
        first: multiplier and cost.
    """
    multiplier, cost = first
    sparse, rest = np.zeros_like(patches), 0.0
    multipliers = np.broadcast_to(multiplier, (len(backgrounds), *patches.shape))
    for _ in range(steps):
        given = patches - sparse - rest + multipliers / penalty
        low_rank = np.stack([part(values, penalty) for part, values in zip(backgrounds, given)])
        given = (patches - low_rank - rest + multipliers / penalty).mean(axis=0)
        limit = weight * cost / (len(backgrounds) * penalty)
        sparse = np.sign(given) * np.maximum(np.abs(given) - limit, 0)
        if reweight is not None:
            cost = reweight / (np.abs(sparse) + EPSILON)
        if residual:
            rest = residual((patches - low_rank - sparse + multipliers / penalty)[0], penalty)
        gaps = patches - low_rank - sparse - rest
        multipliers = multipliers + penalty * gaps
        penalty *= growth
        if max(map(np.linalg.norm, gaps)) <= LEFT_OVER * np.linalg.norm(patches):
            break
    return sparse


def edges_and_corners(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The larger and the smaller eigenvalue of the structure tensor, each HxW."""
    larger, smaller = structure_tensor_eigenvalues(structure_tensor(image, sigma=2, order="rc"))
    return larger, np.maximum(smaller, 0)


def to_unit(values: np.ndarray) -> np.ndarray:
    """Values moved and scaled to [0, 1]."""
    return (values - values.min()) / max(float(values.max() - values.min()), 1e-12)


# --- the methods --------------------------------------------------------------------------------------


def ipi(image: np.ndarray, window: int) -> np.ndarray:
    """Infrared patch-image model (Gao et al., TIP 2013): the matrix whose columns are the patches is a
    low-rank background and sparse targets, of weight 1/sqrt(its longer side). Solved by inexact
    augmented Lagrange multipliers (Lin et al., 2010), not by accelerated proximal gradient."""
    patches = cut(image, window, STRIDE)
    matrix = patches.reshape(-1, patches.shape[2])
    weight, largest = 1 / np.sqrt(max(matrix.shape)), singular(matrix)[0][-1]
    multiplier = matrix / max(largest, np.abs(matrix).max() / weight, 1e-9)
    penalty = 1.25 / max(largest, 1e-9)
    sparse = separate(matrix, [nuclear], weight, penalty, first=(multiplier, 1.0))
    return join(sparse.reshape(patches.shape), image.shape, STRIDE)


def nram(image: np.ndarray, window: int) -> np.ndarray:
    """Non-convex rank approximation with an l2,1 norm (Zhang et al., Remote Sensing 2018): a background
    whose rank is measured by Σ (1 + γ) σ / (γ + σ), sparse targets that cost C / (|t| + ε) where they
    were seen before, and residual edges that fill whole patches.

    The paper's values, for grey values in [0, 1] and n the matrix's shorter side: λ = 1/sqrt(n), first
    penalty 3 sqrt(n), γ = 0.002, C = sqrt(n) / 2.5. Ours: the edges' weight λ C side; penalty × 1.5 a
    step, as with a slower one the background takes faint targets as well.
    """
    patches = cut(image / 255, window, STRIDE)
    matrix = patches.reshape(-1, patches.shape[2])
    root = np.sqrt(min(matrix.shape))
    gamma, weight, scale, sigma = 0.002, 1 / root, root / 2.5, np.zeros(min(matrix.shape))

    def less(values: np.ndarray, penalty: float) -> np.ndarray:
        nonlocal sigma
        for _ in range(20):  # a concave measure: its tangent at the last values, again and again
            before = sigma
            sigma = np.maximum(values - (1 + gamma) * gamma / (gamma + sigma) ** 2 / penalty, 0)
            if np.abs(sigma - before).max() < 1e-6:
                break
        return sigma

    def background(matrix: np.ndarray, penalty: float) -> np.ndarray:
        return shrink_rank(matrix, partial(less, penalty=penalty))

    def edges(rest: np.ndarray, penalty: float) -> np.ndarray:
        length = np.maximum(np.linalg.norm(rest, axis=0), 1e-12)
        return rest * np.maximum(1 - weight * scale * np.sqrt(len(rest)) / penalty / length, 0)

    sparse = separate(matrix, [background], weight, 3 * root, reweight=scale, residual=edges)
    return join(255 * sparse.reshape(patches.shape), image.shape, STRIDE)


def ript(image: np.ndarray, window: int) -> np.ndarray:
    """Reweighted infrared patch-tensor model (Dai and Wu, JSTARS 2017): the patches, one behind the
    other, are a tensor whose three unfoldings are of low rank, and sparse targets that cost
    exp(h (l1 - l2)) at edges (eigenvalues of the structure tensor, their difference scaled to [0, 1])
    and 1 / (|t| + ε) where they were seen before.

    The paper's values: λ = 1/sqrt(shortest side), h = 1, ε = 0.01. Ours: first penalty 1 over five
    standard deviations of the patches, × 1.5 a step.
    """

    def unfolded(tensor: np.ndarray, penalty: float, axis: int) -> np.ndarray:
        tensor = np.moveaxis(tensor, axis, 0)
        flat = nuclear(tensor.reshape(len(tensor), -1), penalty)
        return np.moveaxis(flat.reshape(tensor.shape), 0, axis)

    patches = cut(image, window, STRIDE)
    larger, smaller = edges_and_corners(image)
    local = cut(np.exp(to_unit(larger - smaller)), window, STRIDE)
    weight, penalty = 1 / np.sqrt(min(patches.shape)), 1 / max(5 * float(patches.std()), 1e-9)
    backgrounds = [partial(unfolded, axis=axis) for axis in range(3)]
    options = {"first": (0.0, local), "reweight": local, "steps": 60}
    return join(separate(patches, backgrounds, weight, penalty, **options), image.shape, STRIDE)


def pstnn(image: np.ndarray, window: int) -> np.ndarray:
    """Partial sum of the tensor nuclear norm (Zhang and Peng, Remote Sensing 2019): patches side by
    side, without overlap, are a tensor whose Fourier slices (along the patches) keep their largest
    singular value, and sparse targets that cost less at corners of the image and where they were seen.

    The paper's λ = 0.6 / sqrt(side · number of patches) and corner strength, l1 l2 / (l1 + l2) · l1
    scaled to [0, 1]. Ours: the cost is 1 / (strength + 0.01) over its median, one singular value is
    kept in each slice, first penalty 0.001, × 1.1 a step.
    """

    def background(tensor: np.ndarray, penalty: float) -> np.ndarray:
        u, s, v = np.linalg.svd(np.fft.rfft(tensor, axis=2).transpose(2, 0, 1), full_matrices=False)
        s[:, 1:] = np.maximum(s[:, 1:] - 1 / penalty, 0)
        return np.fft.irfft(((u * s[:, None]) @ v).transpose(1, 2, 0), tensor.shape[2], axis=2)

    patches = cut(image, window, window)
    larger, smaller = edges_and_corners(image)
    corner = to_unit(larger * smaller / np.maximum(larger + smaller, 1e-12) * larger)
    local = cut(1 / (corner + 0.01), window, window)
    local /= np.median(local)
    weight = 0.6 / np.sqrt(patches.shape[0] * patches.shape[2])
    options = {"first": (0.0, local), "reweight": local, "growth": 1.1}
    return join(separate(patches, [background], weight, 1e-3, **options), image.shape, window)
