"""An example for --network: a small U-Net whose skip connections are joined by asymmetric contextual
modulation (Dai et al., "Asymmetric Contextual Modulation for Infrared Small Target Detection", WACV
2021), written from the paper.

    python train.py --dataset NUAA-SIRST --network docs/acm.py:ACM --run-name acm
    python test.py --dataset NUAA-SIRST --network docs/acm.py:ACM --weights runs/NUAA-SIRST/acm
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


def unit(a: int, b: int, size: int = 3) -> nn.Sequential:
    """(N, a, H, W) -> (N, b, H, W)."""
    return nn.Sequential(nn.Conv2d(a, b, size, padding=size // 2), nn.BatchNorm2d(b), nn.ReLU())


class Residual(nn.Module):
    def __init__(self, a: int, b: int, stride: int = 1):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(b, b, 3, padding=1), nn.BatchNorm2d(b))
        self.shortcut = nn.Conv2d(a, b, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class Modulation(nn.Module):
    """Semantics weigh details through global context, details weigh semantics pixel by pixel."""

    def __init__(self, channels: int):
        super().__init__()
        few = channels // 4
        layers = [nn.Conv2d(channels, few, 1), nn.ReLU(), nn.Conv2d(few, channels, 1), nn.Sigmoid()]
        self.top_down = nn.Sequential(nn.AdaptiveAvgPool2d(1), *layers)
        self.bottom_up = nn.Sequential(
            unit(channels, few, 1), nn.Conv2d(few, channels, 1), nn.Sigmoid()
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return self.top_down(high) * low + self.bottom_up(low) * high


class ACM(nn.Module):
    """(N, 3, H, W), sides multiples of 4 -> mask logits (N, 1, H, W)."""

    def __init__(self, width: int = 16):
        super().__init__()
        c = [width, 2 * width, 4 * width]
        self.stem = unit(3, c[0])
        steps = [(c[0], c[0], 1), (c[0], c[1], 2), (c[1], c[2], 2)]
        self.encoder = nn.ModuleList(nn.Sequential(Residual(*s), Residual(s[1], s[1])) for s in steps)
        self.narrow = nn.ModuleList(unit(b, a, 1) for a, b in pairwise(c))
        self.join = nn.ModuleList(Modulation(a) for a in c[:-1])
        self.decoder = nn.ModuleList(Residual(a, a) for a in c[:-1])
        self.head = nn.Conv2d(c[0], 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x, features = self.stem(image), []
        for stage in self.encoder:
            x = stage(x)
            features.append(x)
        x = features.pop()
        for i in reversed(range(len(features))):
            high = F.interpolate(self.narrow[i](x), scale_factor=2, mode="bilinear")
            x = self.decoder[i](self.join[i](features[i], high))
        return self.head(x)
