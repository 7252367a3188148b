"""Running the network on frames: device, mixed precision, batches."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from cli import DataError
from dataset import Frames
from metrics import quantise
from net import iSmallNet, pad_to_multiple


def pick_device(name: str = "auto") -> torch.device:
    """The device that "auto" or a torch device name stands for.

    Raises:
        DataError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"--device {name}: not to be had here ({reason}); take --device cpu") from error
    return device


def autocast(device: torch.device, amp: str = "auto") -> torch.autocast:
    """The mixed-precision context: "auto" is bf16 where the card has it, else fp16, and off on
    the CPU; "bf16", "fp16", "off" are taken as they are."""
    if amp == "auto" and device.type == "cuda":
        amp = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    dtype = torch.float16 if amp == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=amp in ("bf16", "fp16"))


@torch.inference_mode()
def predict(
    model: iSmallNet, images: list[np.ndarray], amp: str = "auto", resize: int | None = None
) -> list[np.ndarray]:
    """Target probabilities of images that pad to the same size, as one batch.

    Args:
        model: in evaluation mode, on any device.
        images: HxWx3 in 0-255 units, each padded to multiples of 16 by itself.
        resize: side to which the images are brought first, as the authors test; the logits are
            brought back by bilinear interpolation.

    Returns:
        HxW float32 in [0, 1] for each image, at its own size.
    """
    device = model.mean.device
    batch = []
    for image in images:
        x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(device)
        x = model.normalise(x[None])
        if resize:
            x = F.interpolate(x, (resize, resize), mode="bilinear", align_corners=False)
        batch.append(pad_to_multiple(x))
    x = torch.cat(batch).contiguous(memory_format=torch.channels_last)
    with autocast(device, amp):
        logits = model(x)[2].float()
    out = []
    for one, image in zip(logits, images):
        height, width = image.shape[:2]
        if resize:
            size = (height, width)
            one = F.interpolate(
                one[None, :, :resize, :resize], size, mode="bilinear", align_corners=False
            )[0]
        out.append(torch.sigmoid(one[0, :height, :width]).cpu().numpy())
    return out


def batches_of_equal_size(
    frames: Frames, batch_size: int, part: slice = slice(None)
) -> Iterator[list[int]]:
    """Batches of indices of frames that pad to the same size, so that they fit in one tensor."""
    waiting: dict[tuple[int, int], list[int]] = {}
    for i in range(len(frames))[part]:
        height, width = frames.shapes[i]
        group = waiting.setdefault((-(-height // 16), -(-width // 16)), [])
        group.append(i)
        if len(group) == batch_size:
            yield group.copy()
            group.clear()
    yield from (group for group in waiting.values() if group)


def infer(
    model: iSmallNet,
    frames: Frames,
    batch_size: int = 1,
    amp: str = "auto",
    resize: int | None = None,
    part: slice = slice(None),
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Runs a list of frames, or a part of it, batch by batch.

    Yields:
        (i, pred, planes): the frame's index, its probability map as saved (HxW uint8), and its
        planes (`Frames`).
    """
    model.eval()
    for batch in batches_of_equal_size(frames, batch_size, part):
        found = [frames[i] for i in batch]
        maps = predict(model, [image for image, _ in found], amp, resize)
        for i, probability, (_, planes) in zip(batch, maps, found):
            yield i, quantise(probability), planes


def pictures(model: iSmallNet, frames: Frames, amp: str, count: int = 4) -> np.ndarray:
    """The first test frames with mask and prediction beside them, (count·S, 3·S, 3) uint8."""
    rows = []
    for i in range(min(count, len(frames))):
        image, planes = frames[i]
        prediction = quantise(predict(model, [image], amp)[0])
        rest = [np.repeat(p[..., None], 3, 2) for p in (planes[..., -1], prediction)]
        row = np.hstack([image.astype(np.uint8), *rest])
        rows.append(row[:256, : 3 * 256])
    wide = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 4), (0, wide - row.shape[1]), (0, 0))) for row in rows])
