"""Muon for the convolutions, AdamW for everything else, as one optimiser.

Muon (Jordan et al., 2024) replaces a weight matrix's momentum by the nearest matrix with orthonormal
rows or columns, so that all directions learn at one pace. Its step is scaled as in Liu et al. (2025,
arXiv 2502.16982), so that one learning rate and one weight decay serve both kinds of parameters.
"""

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: fast, singular values end near 1


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """The matrix (rows, columns) with its singular values brought to about 1 (0.7 to 1.2)."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def hidden_convolutions(model: nn.Module) -> list[nn.Parameter]:
    """The weights that Muon takes: of all convolutions but the attention's and the heads'."""
    return [
        layer.weight
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d)
        and not any(part in ("ca", "sa") or "head" in part for part in name.split("."))
    ]


class Muon(torch.optim.AdamW):
    """AdamW whose parameter groups with `muon=True` take Muon's step in place of Adam's.

    Args:
        model: the network; `hidden_convolutions` picks Muon's parameters.
        lr: learning rate of both kinds.
        weight_decay: decoupled, of all weights with more than one dimension.
        momentum: of Muon, in Nesterov's form.
    """

    def __init__(self, model: nn.Module, lr: float, weight_decay: float, momentum: float = 0.95):
        hidden = hidden_convolutions(model)
        taken = set(map(id, hidden))
        rest = [p for p in model.parameters() if id(p) not in taken]
        groups = [
            {"params": hidden, "muon": True, "momentum": momentum},
            {"params": [p for p in rest if p.ndim > 1], "muon": False},
            {"params": [p for p in rest if p.ndim <= 1], "muon": False, "weight_decay": 0.0},
        ]
        super().__init__([g for g in groups if g["params"]], lr=lr, weight_decay=weight_decay)

    def __setstate__(self, state: dict) -> None:
        """Called by `load_state_dict`: AdamW's own looks for a step count in the state of each
        parameter, and Muon keeps none."""
        adamw = [group for group in state["param_groups"] if not group["muon"]]
        super().__setstate__(state | {"param_groups": adamw})
        self.param_groups = state["param_groups"]

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:  # before Muon's step too
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group["muon"]:
                self.muon_step(group)
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def muon_step(self, group: dict) -> None:
        for p in group["params"]:
            if p.grad is None:
                continue
            buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
            buffer.lerp_(p.grad, 1 - group["momentum"])
            direction = p.grad.lerp(buffer, group["momentum"]).flatten(1).float()
            scale = 0.2 * max(direction.shape) ** 0.5  # about the size of Adam's step
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(orthogonalised(direction).view_as(p), alpha=-group["lr"] * scale)
