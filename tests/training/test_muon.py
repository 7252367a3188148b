"""Muon: its matrices, the parameters that it takes, and one step of it by hand."""

import copy

import pytest
import torch
from torch import nn

from ismallnet.training.muon import NEWTON_SCHULZ, Muon, hidden_convolutions, orthogonalised
from net import VARIANTS, iSmallNet


def matrix(rows: int, columns: int, singular: torch.Tensor) -> torch.Tensor:
    """A random matrix with these singular values."""
    torch.manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(rows, len(singular), dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, len(singular), dtype=torch.float64))
    return (left * singular @ right.T).float()


def brought_to_one(x: float, steps: int = 5) -> float:
    """What the Newton-Schulz steps make of one singular value."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        x = a * x + b * x**3 + c * x**5
    return x


# --- the matrices ----------------------------------------------------------------------------------

SINGULAR = {
    "equal": torch.ones(16),
    "condition 20": torch.linspace(0.05, 1, 16),
    "condition 500": torch.logspace(-2.7, 0, 16),
    "rank 1": torch.ones(1),
}


@pytest.mark.parametrize("shape", [(300, 16), (16, 300)], ids=["tall", "wide"])
@pytest.mark.parametrize("case", SINGULAR)
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_singular_values_are_brought_to_about_1(shape, case, scale):
    given = matrix(*shape, SINGULAR[case].double())
    found = orthogonalised(given * scale)
    assert found.shape == shape
    values = torch.linalg.svdvals(found.double())[: len(SINGULAR[case])]
    assert values.min() > 0.6 and values.max() < 1.3, values
    # The directions stay: between the given matrix's singular vectors the result is diagonal.
    left, _, right = torch.linalg.svd(given.double(), full_matrices=False)
    rotated = left.T @ found.double() @ right.T
    rank = len(SINGULAR[case])
    off_diagonal = rotated[:rank, :rank] - torch.diag(rotated.diagonal()[:rank])
    assert off_diagonal.abs().max() < 1e-3


# --- the parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_muon_takes_the_convolutions_but_the_attention_s_and_the_heads(variant):
    model = iSmallNet(4, variant)
    taken = set(map(id, hidden_convolutions(model)))
    expected = {
        name
        for name, p in model.named_parameters()
        if p.ndim == 4 and not any(part in name for part in (".ca.", ".sa.", "_head."))
    }
    assert {name for name, p in model.named_parameters() if id(p) in taken} == expected
    # A stream of the full network: 26 blocks of two convolutions, 16 of them with a shortcut's, and
    # 4 laterals; the fusion: 5 laterals and one block.
    if variant == "full":
        assert len(taken) == 2 * (2 * 26 + 16 + 4) + 5 + 3
    groups = Muon(model, lr=1e-3, weight_decay=0.1).param_groups
    assert [group["muon"] for group in groups] == [True, False, False]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0]  # biases do not decay
    everything = [id(p) for group in groups for p in group["params"]]
    assert sorted(everything) == sorted(map(id, model.parameters()))
    assert all((p.ndim > 1) == (k < 2) for k, group in enumerate(groups) for p in group["params"])


# --- a step ----------------------------------------------------------------------------------------


def one_convolution(weight: torch.Tensor) -> nn.Sequential:
    rows, columns = weight.shape
    model = nn.Sequential(nn.Conv2d(columns, rows, 1, bias=False))
    model[0].weight.data = weight.clone()[..., None, None]
    return model


def test_a_step_of_muon_by_hand():
    """A gradient of rank 1, so that its one singular value, 1 after the division by the norm, is all
    that is to be followed. The scale is 0.2 times the root of the longer side, 3."""
    model = one_convolution(torch.zeros(2, 3))
    optimizer = Muon(model, lr=0.5, weight_decay=0.1)
    weight = model[0].weight
    for factor in (7.0, 7e4):  # the gradient's size does not matter
        weight.data.zero_()
        optimizer.state.clear()
        weight.grad = torch.zeros_like(weight)
        weight.grad[1, 2] = factor
        optimizer.step()
        expected = torch.zeros(2, 3)
        expected[1, 2] = -0.5 * 0.2 * 3**0.5 * brought_to_one(1.0)
        assert torch.allclose(weight.detach()[..., 0, 0], expected, atol=1e-6)


def test_momentum_is_nesterov_s():
    """Two steps: the buffer m = 0.95 m + 0.05 g, the direction 0.05 g + 0.95 m."""
    torch.manual_seed(0)
    first, second = torch.randn(2, 4, 6)
    model = one_convolution(torch.zeros(4, 6))
    optimizer = Muon(model, lr=0.1, weight_decay=0.0)
    expected, momentum = torch.zeros(4, 6), torch.zeros(4, 6)
    for gradient in (first, second):
        model[0].weight.grad = gradient[..., None, None].clone()
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        expected -= 0.1 * 0.2 * 6**0.5 * orthogonalised(0.05 * gradient + 0.95 * momentum)
    assert torch.allclose(model[0].weight.detach()[..., 0, 0], expected, atol=1e-5)


def test_weight_decay_is_decoupled():
    """It takes lr · weight_decay of the weight away, whatever the gradient."""
    weight = torch.tensor([[2.0, -4.0], [1.0, 8.0]])
    moved = {}
    for decay in (0.0, 0.1):
        for gradient in (torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [-3.0, 0.5]])):
            model = one_convolution(weight)
            optimizer = Muon(model, lr=0.5, weight_decay=decay)
            model[0].weight.grad = gradient[..., None, None]
            optimizer.step()
            moved[decay, gradient.any().item()] = model[0].weight.detach()[..., 0, 0].clone()
    assert torch.equal(moved[0.0, False], weight)
    assert torch.allclose(moved[0.1, False], weight * (1 - 0.5 * 0.1))
    assert torch.allclose(moved[0.1, True] - moved[0.0, True], -0.5 * 0.1 * weight, atol=1e-6)


def gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


def test_the_rest_takes_adamw_s_step():
    torch.manual_seed(0)
    ours = iSmallNet(1)
    theirs = copy.deepcopy(ours)
    muon = Muon(ours, lr=1e-2, weight_decay=0.1)
    hidden = set(map(id, hidden_convolutions(theirs)))
    rest = [p for p in theirs.parameters() if id(p) not in hidden]
    groups = [
        {"params": [p for p in rest if p.ndim > 1]},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1)
    for seed in range(3):
        gradients(ours, seed)
        gradients(theirs, seed)
        muon.step()
        adamw.step()
    pairs = list(zip(ours.parameters(), theirs.parameters()))
    assert all(torch.equal(a, b) for a, b in pairs if id(b) not in hidden)
    assert not any(torch.equal(a, b) for a, b in pairs if id(b) in hidden)
