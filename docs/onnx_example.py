"""Target probabilities without PyTorch: python onnx_example.py joint.onnx frame.npy probability.npy"""

import json
import sys

import numpy as np
import onnxruntime

network, source, output = sys.argv[1:]
session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
notes = session.get_modelmeta().custom_metadata_map
mean, std = (np.array(json.loads(notes[key]), np.float32) for key in ("mean", "std"))
frame = np.load(source).astype(np.float32)  # grey (H, W) or RGB (H, W, 3), in 0-255
assert frame.max() <= 255, "expected values from 0 to 255: map frames of more than 8 bits first"
image = np.repeat(frame[..., None], 3, axis=2) if frame.ndim == 2 else frame
height, width = image.shape[:2]
padding = [(0, -height % 16), (0, -width % 16), (0, 0)]  # sides must be multiples of 16
image = np.pad((image - mean) / std, padding, mode="reflect").transpose(2, 0, 1)[None]
logits = session.run(["mask"], {"image": np.ascontiguousarray(image)})[0]
probability = np.exp(-np.logaddexp(0, -logits[0, 0, :height, :width]))  # the sigmoid
np.save(output, probability)
print(f"{output}: {height}x{width}, {(probability >= 0.5).sum()} target pixels")
