"""The network written down plainly from its description, over the parameters of an iSmallNet: what
net.py is compared with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from net import Block, Fusion, Outputs, Stream, iSmallNet, pad_to_multiple


def attention(block: Block, y: Tensor) -> Tensor:
    """CBAM of a block: channel, then spatial attention."""

    def f(pooled: Tensor) -> Tensor:
        return block.ca.fc2(F.relu(block.ca.fc1(pooled)))

    y = y * torch.sigmoid(f(F.adaptive_avg_pool2d(y, 1)) + f(F.adaptive_max_pool2d(y, 1)))
    pooled = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
    return y * torch.sigmoid(block.sa.conv1(pooled))


def residual(block: Block, x: Tensor) -> Tensor:
    y = F.relu(block.bn1(block.conv1(x)))
    y = attention(block, block.bn2(block.conv2(y)))
    return F.relu(y + block.shortcut(x))


def up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def down(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=True)


def stream(net: Stream, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    def node(i: int, j: int, x: Tensor) -> Tensor:
        for block in net.nodes[f"{i}_{j}"]:
            x = residual(block, x)
        return x

    x = {(0, 0): node(0, 0, image)}
    for i in range(1, 5):
        x[i, 0] = node(i, 0, F.max_pool2d(x[i - 1, 0], 2))
    for j in range(1, 5):
        for i in range(5 - j):
            seen = [x[i, k] for k in range(j)] + [up(x[i + 1, j - 1])]
            if i:
                seen += [down(x[i - 1, j - 1]), down(x[i - 1, j])]
            x[i, j] = node(i, j, torch.cat(seen, 1))
    f = [x[0, 4]]
    for i in range(1, 5):
        one = net.lateral[i](x[i, 4 - i])
        f.append(F.interpolate(one, scale_factor=2**i, mode="bilinear", align_corners=False))
    return residual(net.aggregate, torch.cat(f[::-1], 1)), f


def fusion(net: Fusion, interior: list[Tensor], boundary: list[Tensor]) -> Tensor:
    g = [net.lateral[s](torch.cat([interior[s], boundary[s]], 1)) for s in range(5)]
    return residual(net.aggregate, torch.cat(g[::-1], 1))


def plain(model: iSmallNet, image: Tensor) -> Outputs:
    """`iSmallNet.forward` of the full variant, as the text says it, step by step."""
    height, width = image.shape[2:]
    image = pad_to_multiple(image)
    inner, f = stream(model.interior, image)
    edge, h = stream(model.boundary, image)
    features = torch.cat([inner, edge, fusion(model.fusion, f, h)], 1)
    outputs = (model.interior_head(inner), model.boundary_head(edge), model.mask_head(features))
    return Outputs(*(out[..., :height, :width] for out in outputs))


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
