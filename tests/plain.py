"""A network for tests whose logits are of ordinary size."""

import torch
from torch import nn

from net import iSmallNet


def network(width: int = 16, variant: str = "full") -> iSmallNet:
    """A new network whose batch-norm statistics are those of some noise, in evaluation mode: its
    logits are of ordinary size."""
    torch.manual_seed(0)
    model = iSmallNet(width, variant).train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1
    return model.eval()
