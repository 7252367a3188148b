"""The two losses: hand-worked values, and which answer to a label map each of them prefers.

The finding that these tests hold is told in docs/EXPERIMENTS.md.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from ismallnet.labels import METHODS
from net import OUTPUTS, Outputs, focal_loss, jaccard_loss, losses, map_loss
from utils import decouple

LEAST = 1e-7  # probability of an empty answer: a logit of about -16


def disc(radius: float) -> np.ndarray:
    y, x = np.mgrid[:128, :128]
    return np.where(np.hypot(y - 60, x - 50) <= radius, 255, 0).astype(np.uint8)


def rectangle() -> np.ndarray:
    mask = np.zeros((128, 128), np.uint8)
    mask[60:63, 50:54] = 255
    return mask


MASKS = {"rectangle of 12 px": rectangle(), "disc of 21 px": disc(2.3), "disc of 81 px": disc(5)}
CASES = [(mask, method) for mask in MASKS for method in METHODS]


def maps(mask: str, method: str) -> dict[str, Tensor]:
    """The three label maps of a made mask, (1, 1, H, W) in [0, 1]."""
    planes = (*decouple(MASKS[mask], method), MASKS[mask])
    return {name: sample(plane / 255) for name, plane in zip(OUTPUTS, planes)}


def sample(values) -> Tensor:
    values = torch.as_tensor(np.asarray(values, np.float64))
    return values.reshape(1, 1, *values.shape) if values.ndim == 2 else values.reshape(1, 1, 1, -1)


def loss_of(p: Tensor, target: Tensor, loss: str) -> float:
    logits = torch.logit(p.clamp(LEAST, 1 - LEAST))
    return map_loss(logits, target, loss).item()


def answers(target: Tensor, loss: str) -> tuple[float, float, float]:
    """The losses of an empty map, of the map itself, and of 1 wherever it is not 0."""
    given = (torch.zeros_like(target), target, (target > 0).double())
    return tuple(loss_of(p, target, loss) for p in given)


# --- which answer is the best ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "peak", "losses_of", "pulled_up"),
    [("rectangle of 12 px", 0.14, (0.58, 0.67), 0.30), ("disc of 21 px", 0.23, (0.79, 0.77), 0.18)],
)
def test_by_the_published_loss_an_empty_boundary_map_is_as_good_as_the_right_one(
    mask, peak, losses_of, pulled_up
):
    """The numbers of docs/EXPERIMENTS.md."""
    target = maps(mask, "authors")["boundary"]
    assert target.max().item() == pytest.approx(peak, abs=0.005)
    empty, perfect, _ = answers(target, "authors")
    assert (empty, perfect) == pytest.approx(losses_of, abs=0.005) and empty <= perfect + 0.02
    assert 1 / (target.sum().item() + 2) == pytest.approx(pulled_up, abs=0.005)


@pytest.mark.parametrize("mask, method", CASES)
def test_by_the_jaccard_loss_the_map_itself_is_the_best_answer_and_by_the_published_one_it_is_not(
    mask, method
):
    for name, target in maps(mask, method).items():
        empty, perfect, ones = answers(target, "jaccard")
        assert perfect < 0.01 and empty > 1, name
        assert ones > 1 or (name == "mask" and ones == perfect), name
        assert jaccard_loss(torch.zeros_like(target), target).item() > 0.99, name  # without focal
        if 0.49 < target.max() < 1 or name == "interior":  # soft, and reaches half
            _, perfect, ones = answers(target, "authors")
            assert ones < perfect, name


# --- the Jaccard loss ------------------------------------------------------------------------------


def test_jaccard_loss_by_hand():
    """Of (0.5, 0.5, 0, 0) and (1, 0, 0, 0.25) the smaller add up to 0.5, the larger to 1.75. Samples
    without target are smoothed by 1: false alarms that add up to 1 are half wrong, an empty answer is
    right. Each sample has its own smoothing and its own value."""
    rows = [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [1, 1, 0.5, 0.5], [0, 0, 0, 0], [0, 0, 0, 0]]
    true = [[1, 0, 0, 0.25], [0] * 4, [0] * 4, [0] * 4, [1, 0, 0, 0.25]]
    p, target = (torch.cat([sample(row) for row in table]) for table in (rows, true))
    expected = [1 - 0.501 / 1.751, 0.5, 0.75, 0, 1 - 0.001 / 1.251]
    assert jaccard_loss(p, target).tolist() == pytest.approx(expected)
    assert jaccard_loss(target, target).tolist() == [0] * 5


def test_a_crop_without_a_target_is_empty_though_a_soft_map_reaches_into_it():
    """The interior maps reach two pixels beyond the mask: a faint rest of 5e-5 is no target."""
    rest, nothing = sample([5e-5, 0, 0, 0]), torch.zeros(1, 1, 1, 4, dtype=torch.float64)
    logits = torch.full_like(rest, -30)
    outputs, targets = Outputs(logits, None, logits), Outputs(rest, nothing, nothing)
    with_target = targets._replace(mask=sample([1, 0, 0, 0]))
    for given, expected in ((targets, 5e-5), (with_target, 5e-5 / 105e-5)):
        loss = losses(outputs, given)["interior"].item()
        assert loss == pytest.approx(expected, rel=0.01)


# --- the focal loss, and both together -------------------------------------------------------------


def test_focal_loss_by_hand():
    """Logits 0, so p = 0.5: each pixel's cross-entropy is ln 2 and its weight 0.5² where the target is
    0 or 1, and none where it is 0.5. The sum is divided by that of the targets, and 1."""
    target = sample([1, 0, 0, 0])
    assert focal_loss(torch.zeros_like(target), target).item() == pytest.approx(np.log(2) / 2)
    target = sample([1, 0, 0.5, 0.5])
    expected = 2 * 0.25 * np.log(2) / (1 + 0.5 + 0.5 + 1)
    assert focal_loss(torch.zeros_like(target), target).item() == pytest.approx(expected)
    confident = sample([50.0, -50.0, 0.0, 0.0])
    assert focal_loss(confident, target).item() == pytest.approx(0, abs=1e-12)
    # The weight is held constant: the gradient is weight · (p - t) / (Σt + 1).
    target = sample([1, 0, 0, 0.25])
    logits = torch.zeros_like(target).requires_grad_()
    focal_loss(logits, target).backward()
    assert torch.allclose(logits.grad, (0.5 - target).square() * (0.5 - target) / 2.25)


def test_the_default_loss_is_the_jaccard_loss_and_half_the_focal_loss():
    """p = 0.5 and one of four pixels is target: the smaller add up to 0.5, the larger to 2.5."""
    target = sample([1, 0, 0, 0])
    expected = 1 - 0.501 / 2.501 + 0.5 * np.log(2) / 2
    for given in (("jaccard",), ()):
        assert map_loss(torch.zeros_like(target), target, *given).item() == pytest.approx(expected)
