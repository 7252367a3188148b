"""iSmallNet: the three-stream densely nested network, its loss, and loading its weights.

Hu et al., "iSmallNet: Densely Nested Network with Label Decoupling for Infrared Small Target
Detection", ICASSP 2023, arXiv 2210.16561. Read from the top, the file builds the paper's figure
bottom-up: residual CBAM block, stream (encoder, nested interaction, aggregation), fusion, heads.
"""

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ismallnet.checkpoints import (
    AUTHORS_MEAN,
    AUTHORS_STD,
    STREAMS,
    check_tensors,
    network_tensors,
    variant_of,
    width_of,
)
from ismallnet.checkpoints import from_authors as from_authors  # people call it here
from ismallnet.unet import OUTPUTS, SCALES, Normalised, Outputs, UNet, pad_to_multiple, resize

WIDTH = 16  # channels at full resolution in the paper; scale i has width · 2^i
# The paper's network, and what is left of it when one of its ideas is taken out (ablations): one
# stream that learns the mask alone, or with the interior or boundary map beside it; U-Net decoders
# in place of the nested interaction; the sum of the two streams' features in place of the fusion.
# "plain" has none of them: one U-Net of as many parameters, without attention.
VARIANTS = ("full", "single", "interior", "boundary", "unet", "sum", "plain")


class ChannelAttention(nn.Module):
    """CBAM's channel attention (Woo et al., ECCV 2018): (N, C, H, W) -> weights (N, C, 1, 1)."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(1, channels // 16)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # The 1x1 convolutions of single pixels as matrix products, average and maximum together.
        # On CUDA the backward pass of adaptive_max_pool2d has no deterministic form, that of amax has;
        # on the CPU amax takes 15 times as long.
        largest = x.amax((2, 3)) if x.is_cuda else F.adaptive_max_pool2d(x, 1).flatten(1)
        pooled = torch.stack([x.mean((2, 3)), largest])  # (2, N, C)
        hidden = F.relu(F.linear(pooled, self.fc1.weight.flatten(1)))
        average, largest = F.linear(hidden, self.fc2.weight.flatten(1))
        return torch.sigmoid(average + largest)[..., None, None]  # autocast would do .sum in float32


class SpatialAttention(nn.Module):
    """CBAM's spatial attention: (N, C, H, W) -> weights (N, 1, H, W)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        # Two channels side by side: a sixth of the time of this convolution's backward pass.
        return torch.sigmoid(self.conv1(pooled.contiguous(memory_format=torch.channels_last)))


class Block(nn.Module):
    """Residual CBAM block R(a -> b): (N, a, H, W) -> (N, b, H, W)."""

    def __init__(self, a: int, b: int):
        super().__init__()
        self.conv1 = nn.Conv2d(a, b, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(b)
        self.conv2 = nn.Conv2d(b, b, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(b)
        self.ca = ChannelAttention(b)
        self.sa = SpatialAttention()
        projection = nn.Sequential(nn.Conv2d(a, b, 1), nn.BatchNorm2d(b))
        self.shortcut = nn.Identity() if a == b else projection

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = y * self.ca(y)
        y = y * self.sa(y)
        return F.relu_(y.add_(self.shortcut(x)))


def aggregation_inputs(laterals: nn.ModuleList, features: list[Tensor]) -> list[Tensor]:
    """Per scale s = 0..4: 1x1 convolution, then bilinear x2^s, all to (N, width, H, W)."""
    outs = [lateral(f) for lateral, f in zip(laterals, features)]
    return [resize(f, 2**s, align=False) if s else f for s, f in enumerate(outs)]


class Stream(nn.Module):
    """The interior or the boundary stream: image (N, 3, H, W) -> multi-scale features.

    Node x[i][j] is scale i (0 finest), column j; column 0 is the encoder, and the last node of each
    scale, i + j = 4, goes into the aggregation. With `unet` there are no others between.
    """

    def __init__(self, width: int, unet: bool = False):
        super().__init__()
        self.unet = unet
        c = [width * 2**i for i in range(SCALES)]
        self.nodes = nn.ModuleDict()
        for j in range(SCALES):
            for i in range(SCALES - j):
                if j == 0:
                    inputs = c[i - 1] if i else 3
                elif unet:
                    if i + j < SCALES - 1:
                        continue
                    inputs = c[i] + c[i + 1]
                else:  # own scale x j, deeper neighbour, and twice the shallower one
                    inputs = c[i] * j + c[i + 1] + (2 * c[i - 1] if i else 0)
                blocks = [Block(inputs, c[i])] + [Block(c[i], c[i]) for _ in range(i > 0)]
                self.nodes[f"{i}_{j}"] = nn.Sequential(*blocks)
        self.lateral = nn.ModuleList([nn.Identity(), *(nn.Conv2d(ci, width, 1) for ci in c[1:])])
        self.aggregate = Block(5 * width, width)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the stream's feature (N, width, H, W) and f0..f4, each of that shape too."""
        x = [[self.nodes["0_0"](image)]]
        for i in range(1, SCALES):
            x.append([self.nodes[f"{i}_0"](F.max_pool2d(x[i - 1][0], 2))])
        halved = [[resize(x[i][0], 0.5)] for i in range(SCALES - 2)]  # each is seen by two nodes
        for j in range(1, SCALES):  # multi-scale nested interaction, column by column, top down
            for i in range(SCALES - j):
                if f"{i}_{j}" not in self.nodes:
                    continue
                seen = [*x[i], resize(x[i + 1][-1], 2)]
                if i > 0 and not self.unet:
                    seen += halved[i - 1][j - 1 : j + 1]
                x[i].append(self.nodes[f"{i}_{j}"](torch.cat(seen, dim=1)))
                if i + j < SCALES - 1 and i < SCALES - 2 and not self.unet:
                    halved[i].append(resize(x[i][j], 0.5))
        f = aggregation_inputs(self.lateral, [row[-1] for row in x])
        return self.aggregate(torch.cat(f[::-1], dim=1)), f


class Fusion(nn.Module):
    """Interior-boundary fusion: the streams' f0..f4 -> one feature (N, width, H, W).

    The authors' code runs the finest scale through scale 1's convolution; here every scale has its
    own, as in the paper (see `from_authors`).
    """

    def __init__(self, width: int):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(SCALES))
        self.aggregate = Block(5 * width, width)

    def forward(self, interior: list[Tensor], boundary: list[Tensor]) -> Tensor:
        pairs = zip(self.lateral, interior, boundary)
        g = [lateral(torch.cat([a, b], dim=1)) for lateral, a, b in pairs]
        return self.aggregate(torch.cat(g[::-1], dim=1))


class iSmallNet(Normalised):
    """Image -> interior, boundary and mask logits.

    `normalise` applies its normalisation; `forward` takes normalised images.

    Args:
        width: channels at full resolution; 16 is the paper's (9,688,461 parameters).
        variant: one of VARIANTS; "full" is the paper's.
    """

    def __init__(self, width: int = WIDTH, variant: str = "full"):
        super().__init__(AUTHORS_MEAN, AUTHORS_STD)
        if variant not in VARIANTS:
            raise ValueError(f"variant: found {variant!r}, expected one of {', '.join(VARIANTS)}")
        self.width, self.variant = width, variant
        one = variant in ("single", "plain", *STREAMS.values())
        self.streams = (variant,) if one else ("interior", "boundary")
        for name in self.streams:
            plain = variant == "plain"
            self.add_module(name, UNet(width) if plain else Stream(width, unet=variant == "unet"))
        self.fusion = None if one or variant == "sum" else Fusion(width)
        for name in self.streams:
            if name in STREAMS.values():
                self.add_module(f"{name}_head", nn.Conv2d(width, 1, 3, padding=1))
        self.mask_head = nn.Sequential(
            nn.Conv2d(width if one else 3 * width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_in", nonlinearity="relu")
                if m.bias is not None:
                    nn.init.zeros_(m.bias)

    def forward(self, image: Tensor) -> Outputs:
        """Args:
            image: (N, 3, H, W), normalised, any H and W.

        Returns:
            Logits, each (N, 1, H, W).
        """
        height, width = image.shape[2:]
        x = pad_to_multiple(image)
        features, scales = zip(*(getattr(self, name)(x) for name in self.streams))
        logits = {
            name: getattr(self, f"{name}_head")(feature)
            for name, feature in zip(self.streams, features)
            if name in STREAMS.values()
        }
        if len(features) == 2:
            features += (self.fusion(*scales) if self.fusion else sum(features),)
        logits["mask"] = self.mask_head(torch.cat(features, dim=1))
        return Outputs(
            *(logits[name][..., :height, :width] if name in logits else None for name in OUTPUTS)
        )


# --- the loss ------------------------------------------------------------------------------------

LOSSES = ("jaccard", "authors")


def jaccard_loss(p: Tensor, target: Tensor, empty: Tensor | None = None) -> Tensor:
    """1 - Σ min(p, t) / Σ max(p, t) of each sample, (N,): the Jaccard metric loss for soft maps (Wang,
    Ning and Blaschko, NeurIPS 2023). Smallest at p = t for soft maps too; soft IoU for hard ones.

    Smoothing is 1 for empty samples, whose loss is then about Σp, and 0.001 for the others: with 1 an
    empty map of a target of a few pixels would be nearly right.

    Args:
        p, target: (N, 1, H, W) in [0, 1].
        empty: (N,), the samples whose masks hold no target, although a soft map may reach into them.
    """
    total = target.sum((1, 2, 3))
    empty = total == 0 if empty is None else empty | (total == 0)
    smooth = torch.full_like(total, 0.001).masked_fill(empty, 1)
    smaller = torch.minimum(p, target).sum((1, 2, 3))
    larger = torch.maximum(p, target).sum((1, 2, 3))
    return 1 - (smaller + smooth) / (larger + smooth)


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Quality focal loss for soft targets (Li et al., NeurIPS 2020), divided by the targets' sum as in
    RetinaNet: the cross-entropy of each pixel, weighted by its squared error. Scalar.

    The sum is that of the samples at hand: processes that share a batch divide each by their own, so
    their mean is not exactly the loss of the whole batch."""
    weight = (target - torch.sigmoid(logits.detach())).square()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (weight * entropy).sum() / (target.sum() + 1)


def map_loss(
    logits: Tensor, target: Tensor, loss: str = "jaccard", empty: Tensor | None = None
) -> Tensor:
    """The loss of one output, a scalar: "jaccard" has its minimum at the map itself; "authors" is their
    published loss, whose best answer to a faint boundary map is an empty map (docs/EXPERIMENTS.md).

    Args:
        logits, target: (N, 1, H, W); the target in [0, 1], soft values enter as they are.
        loss: one of LOSSES.
        empty: as of `jaccard_loss`.
    """
    p = torch.sigmoid(logits)
    if loss == "jaccard":
        return jaccard_loss(p, target, empty).mean() + 0.5 * focal_loss(logits, target)
    if loss != "authors":
        raise ValueError(f"found loss {loss!r}, expected one of {LOSSES}")
    overlap = (p * target).sum((1, 2, 3))
    union = p.sum((1, 2, 3)) + target.sum((1, 2, 3)) - overlap
    iou_loss = 1 - (overlap + 1) / (union + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + iou_loss.mean()


def losses(outputs: Outputs, targets: Outputs, loss: str = "jaccard") -> dict[str, Tensor]:
    """The loss of each output by its name; a network learns their plain sum.

    Args:
        outputs: logits; None counts nothing.
        targets: the three maps, in [0, 1].
        loss: one of LOSSES.
    """
    empty = targets[-1].amax((1, 2, 3)) == 0  # samples are empty where their masks are
    return {  # in full precision, after autocast
        name: map_loss(logits.to(target.dtype), target, loss, empty)
        for name, logits, target in zip(OUTPUTS, outputs, targets, strict=True)
        if logits is not None
    }


# --- weights ---------------------------------------------------------------------------------


def load_weights(path: str | os.PathLike, width: int | None = None) -> iSmallNet:
    """The network of a checkpoint in evaluation mode on the CPU, float32, with its normalisation, and
    what the checkpoint says of itself in `info`.

    Args:
        path: a file of train.py or of the authors, also as other programs wrap it (`network_tensors`).
        width: the width that the network must have; any by default.

    Raises:
        WeightsError: unreadable, another width, tensors missing or of other shapes, not finite.
    """
    state, info = network_tensors(path)
    model = iSmallNet(width_of(path, state, width), variant_of(state))
    check_tensors(path, state, model.state_dict())
    model.load_state_dict(state)
    model.info = info
    return model.eval()
