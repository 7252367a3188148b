"""Resizing of features inside the networks."""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, factor: float, align: bool = True) -> Tensor:
    """Bilinear, (N, C, H, W) -> (N, C, factor · H, factor · W), of the same type."""
    # On CUDA autocast would give float32, and make all that is concatenated with it float32, too. But
    # the gradient of a large factor is a sum of many values, too many for bf16.
    given = x.float() if x.is_cuda and factor > 2 else x
    with torch.autocast("cuda", enabled=False) if x.is_cuda else contextlib.nullcontext():
        y = F.interpolate(given, scale_factor=factor, mode="bilinear", align_corners=align).to(x.dtype)
    if y.requires_grad:
        # The gradient is mostly a part of a concatenation's. The backward pass of a tensor with gaps
        # takes five times as long as that of a copy without.
        last = y.is_contiguous(memory_format=torch.channels_last)
        form = torch.channels_last if last else torch.contiguous_format
        y.register_hook(lambda gradient: gradient.contiguous(memory_format=form))
    return y
