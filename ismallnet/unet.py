"""What all networks of net.py share, outputs, resizing and padding; and a plain U-Net, the control of
the experiments: as many parameters without attention, nesting, two streams and label decoupling."""

import contextlib
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALES = 5


class Outputs(NamedTuple):
    """What the network gives, logits, or what it learns, maps in [0, 1]: each (N, 1, H, W), or None
    for a map that a variant does not predict."""

    interior: Tensor | None
    boundary: Tensor | None
    mask: Tensor


OUTPUTS = Outputs._fields


def double_convolution(a: int, b: int) -> nn.Sequential:
    """(N, a, H, W) -> (N, b, H, W)."""
    layers = [(nn.Conv2d(x, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()) for x in (a, b)]
    return nn.Sequential(*layers[0], *layers[1])


class Normalised(nn.Module):
    """A network whose normalisation travels with its weights: `mean` and `std`, three values each in
    0-255 units, are buffers. `info`: how the weights came to be."""

    multiple = 2 ** (SCALES - 1)  # of which an export is given H and W

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.info: dict = {}

    def normalise(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in 0-255 units, any dtype -> float, zero mean and unit variance."""
        return (image - self.mean[:, None, None]) / self.std[:, None, None]


class UNet(nn.Module):
    """Encoder and decoder of five scales with skip connections (Ronneberger et al., MICCAI 2015), batch
    norm, and bilinear up-sampling. With 9/4 of the width as channels at full resolution it has as many
    parameters, within 3 %, as the whole iSmallNet of that width (8 or 16).

    Args:
        width: of the iSmallNet that it is compared with, and of the feature that it gives.
    """

    def __init__(self, width: int):
        super().__init__()
        c = [9 * width // 4 * 2**i for i in range(SCALES)]
        self.encoder = nn.ModuleList(double_convolution(a, b) for a, b in zip([3, *c], c))
        self.decoder = nn.ModuleList(double_convolution(a + b, a) for a, b in pairwise(c))
        self.feature = nn.Conv2d(c[0], width, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, H, W), sides multiples of 16 -> (N, width, H, W); the list, which the streams of an
        iSmallNet give beside it, is empty."""
        x = self.encoder[0](image)
        skips = [x]
        for block in self.encoder[1:]:
            skips.append(block(F.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for block, skip in zip(reversed(self.decoder), reversed(skips)):
            x = block(torch.cat([skip, resize(x, 2)], dim=1))
        return self.feature(x), []


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


def pad_to_multiple(x: Tensor, multiple: int = 2 ** (SCALES - 1)) -> Tensor:
    """Pads H and W up to a multiple at the bottom and right: reflected where the side is long
    enough, else the edge repeated."""
    for axis in (2, 3):
        side = x.shape[axis]
        extra = -side % multiple
        if extra:
            padding = (0, 0, 0, extra) if axis == 2 else (0, extra, 0, 0)
            x = F.pad(x, padding, mode="reflect" if extra < side else "replicate")
    return x
