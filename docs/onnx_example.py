"""Targets in a frame without PyTorch, with NumPy and ONNX Runtime alone:

    python onnx_example.py targets.onnx frame.npy [probability.npy]

`targets.onnx` is a file of export.py; `frame.npy` holds grey (H, W) or RGB (H, W, 3) of any depth.
"""

import json
import sys

import numpy as np
import onnxruntime

THRESHOLD = 128  # of 255, least probability of a target's pixels


def to_units(frame: np.ndarray) -> np.ndarray:
    """A frame -> (H, W, 3) in 0-255: 8 bits as they are; of others the darkest 0.1 % become 0, and the
    brightest pixel 255."""
    image = frame.astype(np.float32)
    if frame.dtype != np.uint8:
        low, high = np.percentile(frame, 0.1, method="lower"), frame.max()
        image = ((image - float(low)) * (255 / max(float(high) - float(low), 1e-12))).clip(0, 255)
    return np.repeat(image[..., None], 3, axis=2) if frame.ndim == 2 else image


def probability_of(session: onnxruntime.InferenceSession, frame: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1]."""
    notes = session.get_modelmeta().custom_metadata_map
    mean, std = (np.array(json.loads(notes[key]), np.float32) for key in ("mean", "std"))
    height, width = frame.shape[:2]
    padding = [(0, -height % 16), (0, -width % 16), (0, 0)]  # sides must be multiples of 16
    image = np.pad((to_units(frame) - mean) / std, padding, mode="reflect")  # the edge is not repeated
    image = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
    logits = session.run(["mask"], {"image": image})[0][0, 0, :height, :width]
    return np.exp(-np.logaddexp(0, -logits))  # the sigmoid


def targets_in(probability: np.ndarray) -> list[np.ndarray]:
    """The (n, 2) y, x of each target's pixels: what touches, corners too, is one target."""
    left = {tuple(at) for at in np.argwhere(np.rint(255 * probability) >= THRESHOLD).tolist()}
    targets = []
    while left:
        pixels = [left.pop()]
        for y, x in pixels:  # grows while it is gone through
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            pixels += near
            left -= near
        targets.append(np.array(pixels))
    return targets


network, source, *output = sys.argv[1:]
probability = probability_of(onnxruntime.InferenceSession(network), np.load(source))
for pixels in targets_in(probability):
    p = probability[tuple(pixels.T)].astype(np.float64)
    y, x = p @ pixels / p.sum()  # the centre, weighted by the probabilities
    print(f"x {x:.2f} y {y:.2f} score {p.max():.4f} area {len(pixels)}")
if output:
    np.save(output[0], probability)
