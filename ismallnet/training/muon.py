"""Muon for the convolutions, AdamW for everything else, as one optimiser.

Muon (Jordan et al., 2024) replaces a weight matrix's momentum by the nearest matrix with orthonormal
rows or columns, so that all directions learn at one pace. Its step is scaled as in Liu et al. (2025,
arXiv 2502.16982), so that one learning rate and one weight decay serve both kinds of parameters.
"""

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: fast, singular values end near 1


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Matrices (…, rows, columns), each with its singular values brought to about 1 (0.7 to 1.2)."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    shape, x = x.shape, x.reshape(-1, *x.shape[-2:])
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)  # a x + (b gram + c gram²) x
    x = x.view(shape)
    return x.mT if tall else x


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
    def step(self) -> None:
        groups = self.param_groups
        for group in groups:
            if group["muon"]:
                self.muon_step(group)
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            super().step()
        finally:
            self.param_groups = groups

    def muon_step(self, group: dict) -> None:
        lr, momentum = group["lr"], group["momentum"]  # the rate is a number, or a tensor on CUDA
        alike: dict[torch.Size, list[nn.Parameter]] = {}  # whose matrices are taken together
        for p in group["params"]:
            if p.grad is not None:
                alike.setdefault(p.shape, []).append(p)
        for shape, params in alike.items():
            grads = [p.grad for p in params]
            for p in params:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum"] for p in params]
            torch._foreach_lerp_(buffers, grads, 1 - momentum)
            directions = torch.stack(torch._foreach_lerp(grads, buffers, momentum)).flatten(2).float()
            scale = 0.2 * max(directions.shape[1:]) ** 0.5  # about the size of Adam's step
            steps = orthogonalised(directions).mul_(lr * scale).view(-1, *shape)
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
            torch._foreach_sub_(params, list(steps.unbind()))
