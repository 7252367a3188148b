"""Running the network: device, mixed precision, batches, tiles."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ismallnet.cli import UserError, progress
from ismallnet.distributed import Processes, has_bf16
from ismallnet.evaluation.metrics import count_standard, metrics_standard, quantise, total
from ismallnet.inference.onnx import Exported
from ismallnet.unet import pad_to_multiple

Network = nn.Module | Exported  # an iSmallNet, or its export

AMP = ("auto", "bf16", "fp16", "off")  # mixed precision
TILE, OVERLAP = 512, 64  # px
LARGE = 1024  # px, side from which data sets' images run in tiles, unless told otherwise
FLIPS = (np.asarray, np.flipud, np.fliplr, lambda image: image[::-1, ::-1])


class NotFiniteError(UserError):
    """The logits of a frame are not all finite, so that its probabilities mean nothing.

    Attributes:
        index: of the frame in its batch.
    """

    def __init__(self, name: str, index: int = 0):
        super().__init__(
            f"{name}: the network's logits are not finite, an overflow of mixed precision or damaged "
            "weights; type --amp off, or where that is on already another --weights"
        )
        self.index = index


def precision(device: torch.device, amp: str = "auto") -> torch.dtype | None:
    """The type of mixed precision; None for float32 alone. "auto" is bf16 where the card has it, else
    fp16, and off on the CPU; "bf16", "fp16" and "off" are what they say."""
    if amp == "auto" and device.type == "cuda":
        amp = "bf16" if has_bf16(device) else "fp16"
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(amp)


def autocast(device: torch.device, amp: str = "auto") -> torch.autocast:
    """The mixed-precision context, of `precision`."""
    dtype = precision(device, amp)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


@torch.no_grad()
def prepared(model: Network, device: torch.device | str = "cpu") -> Network:
    """The network itself, changed for inference alone: on a device, channels last in memory, and each
    batch norm folded into the convolution before it, which leaves the logits as they were to 1e-4. An
    export stays as it is."""
    if isinstance(model, Exported):
        return model
    for module in model.modules():
        children = list(module.named_children())  # the changes below must not disturb the loop
        for (name, conv), (after, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, after, nn.Identity())
    return model.to(device, memory_format=torch.channels_last)


def mask_logits(model: Network, x: Tensor, amp: str) -> Tensor:
    """Normalised images (N, 3, H, W), sides of its multiple -> mask logits (N, 1, H, W), float32."""
    with autocast(x.device, amp):
        return (model.mask_logits(x) if isinstance(model, Exported) else model(x).mask).float()


@torch.inference_mode()
def predict(
    model: Network,
    images: list[np.ndarray],
    amp: str = "auto",
    resize: int | None = None,
    flips: bool = False,
) -> list[np.ndarray]:
    """Target probabilities of images that pad to the same size, as one batch.

    Args:
        model: in evaluation mode, on any device.
        images: HxWx3 in 0-255 units, each padded by itself to the network's multiple.
        resize: side to which the images are brought first, as the authors test; the logits are
            brought back by bilinear interpolation.
        flips: the mean over the image and its three mirror images, at four times the cost.

    Returns:
        HxW float32 in [0, 1] for each image, at its own size.

    Raises:
        NotFiniteError: of the first image whose logits are not finite.
    """
    if flips:
        runs = [
            [mirror(p) for p in predict(model, [mirror(i) for i in images], amp, resize)]
            for mirror in FLIPS
        ]
        return [np.mean(maps, axis=0) for maps in zip(*runs)]
    x = torch.cat([to_input(model, image, resize) for image in images])
    logits = mask_logits(model, x.contiguous(memory_format=torch.channels_last), amp)
    if not logits.isfinite().all():
        index = logits.isfinite().flatten(1).all(1).tolist().index(False)
        raise NotFiniteError(f"frame {index} of {len(images)}", index)
    return [to_probability(plane, i.shape[:2], resize) for plane, i in zip(logits, images)]


def to_input(model: Network, image: np.ndarray, resize: int | None) -> Tensor:
    """HxWx3 in 0-255 units -> (1, 3, H, W), normalised, resized if wanted, and padded."""
    x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(model.mean.device)
    x = model.normalise(x[None])
    if resize:
        x = F.interpolate(x, (resize, resize), mode="bilinear", align_corners=False)
    return pad_to_multiple(x, model.multiple)


def to_probability(logits: Tensor, shape: tuple[int, int], resize: int | None) -> np.ndarray:
    """Logits (1, H, W) of a padded image -> its probabilities at its own shape, float32."""
    if resize:
        logits = logits[None, :, :resize, :resize]
        logits = F.interpolate(logits, shape, mode="bilinear", align_corners=False)[0]
    return torch.sigmoid(logits[0, : shape[0], : shape[1]]).cpu().numpy()


def tile_weights(size: int, tile: int, overlap: int) -> list[tuple[int, np.ndarray]]:
    """Tiles along one axis: (start, weights), evenly spaced, at least `overlap` px shared by two
    neighbours. Weights fall off linearly over what is shared, and add up to 1 at every pixel."""
    if size <= tile:
        return [(0, np.ones(size, np.float32))]
    count = -(-(size - overlap) // (tile - overlap))
    starts = np.linspace(0, size - tile, count).round().astype(int)
    at = np.arange(tile) + 0.5
    total, ramps = np.zeros(size), []
    for k, start in enumerate(starts):
        ramp = np.ones(tile)
        if k:
            ramp = np.minimum(ramp, at / max(starts[k - 1] + tile - start, 1))
        if k < count - 1:
            ramp = np.minimum(ramp, (tile - at) / max(start + tile - starts[k + 1], 1))
        ramps.append(ramp)
        total[start : start + tile] += ramp
    return [
        (int(start), (ramp / total[start : start + tile]).astype(np.float32))
        for start, ramp in zip(starts, ramps)
    ]


def predict_frame(
    model: Network,
    image: np.ndarray,
    tile: int = TILE,
    overlap: int = OVERLAP,
    amp: str = "auto",
    flips: bool = False,
) -> np.ndarray:
    """Target probabilities of a frame of any size, in tiles where it is larger than one.

    The network's channel attention sees a whole frame, and of a tile the tile: the maps are close to,
    not the same as, those of the frame in one piece.

    Args:
        model: in evaluation mode, on any device.
        image: HxWx3 in 0-255 units, as of `predict`.
        tile, overlap: px.

    Returns:
        HxW float32 in [0, 1].
    """
    height, width = image.shape[:2]
    probability = np.zeros((height, width), np.float32)
    for top, rows in tile_weights(height, tile, overlap):
        for left, columns in tile_weights(width, tile, overlap):
            at = (slice(top, top + len(rows)), slice(left, left + len(columns)))
            values = predict(model, [image[at]], amp, flips=flips)[0]
            probability[at] += values * np.outer(rows, columns)
    return probability


@dataclass(frozen=True)
class Tiling:
    """Which images of data sets run in tiles, to bound the memory.

    Args:
        tile: px; images with a side larger than this run in tiles of it, 0: none do. None: images
            with a side of 1024 px or more, in tiles of 512.
    """

    tile: int | None = None

    @property
    def side(self) -> int:
        """Of a tile, px."""
        return TILE if self.tile is None else self.tile

    @property
    def overlap(self) -> int:
        """Of neighbouring tiles, px, at least."""
        return min(OVERLAP, self.side // 2)

    def applies(self, shape: tuple[int, int]) -> bool:
        """Whether an image of (H, W) runs in tiles."""
        if self.tile is None:
            return max(shape) >= LARGE
        return 0 < self.tile < max(shape)

    def note(self, shapes: list[tuple[int, int]]) -> str:
        """What a run says of a list's images; nothing where none runs in tiles."""
        count, tiles = sum(map(self.applies, shapes)), f"{self.side} px, {self.overlap} px overlap"
        why = f" (those with a side of {LARGE} px or more; --tile 0 of test.py: in one piece)"
        text = f"{count} of {len(shapes)} images run in tiles of {tiles}"
        return text + why * (self.tile is None) if count else ""


TILING = Tiling()


def infer(
    model: Network,
    frames,
    amp: str = "auto",
    resize: int | None = None,
    flips: bool = False,
    part: slice = slice(None),
    tiling: Tiling = TILING,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Runs a list of frames, or a part of it, one by one; large ones in tiles, unless `resize` makes
    them small.

    Args:
        frames: `frames[i]` has an image, HxWx3 in 0-255 units, and a mask; `frames.shapes` are the
            images' (H, W), and `frames.samples` name their files.

    Yields:
        (i, pred, mask): the frame's index, its probability map as saved (HxW uint8), and its mask
        (HxW uint8).

    Raises:
        NotFiniteError: names the frame.
    """
    if not isinstance(model, Exported):
        model.eval()
    tiling = Tiling(tile=0) if resize else tiling
    for i in range(len(frames))[part]:
        item = frames[i]
        try:
            if tiling.applies(frames.shapes[i]):
                tiles = (tiling.side, tiling.overlap)
                probability = predict_frame(model, item.image, *tiles, amp, flips)
            else:
                (probability,) = predict(model, [item.image], amp, resize, flips)
        except NotFiniteError:
            raise NotFiniteError(str(frames.samples[i].image)) from None
        yield i, quantise(probability), item.mask


def standard_metrics(
    model: Network,
    frames,
    label: str,
    amp: str = "off",
    processes: Processes | None = None,
) -> dict:
    """The standard metrics of a network on a list (frames as of `infer`). Several processes share its
    images; the metrics do not depend on how many there are."""
    part = slice(processes.rank, None, processes.world) if processes else slice(None)
    maps = infer(model, frames, amp, part=part)
    maps = progress(maps, label, len(range(len(frames))[part]), leave=processes is None)
    counts = [count_standard(pred, mask) for _, pred, mask in maps]
    return metrics_standard(total(processes.gather(counts) if processes else counts))
