"""An ONNX network of `backends.to_onnx` with half-precision or 8-bit layers.

fp16: weights and activations, for GPUs; a CPU runs it slowly. int8: convolutions alone, by ONNX
Runtime's static quantisation (QDQ: pairs of QuantizeLinear and DequantizeLinear nodes), one scale for
each output channel of the weights and one for each activation. Matrix products stay float: those of
the channel attention are of single pixels, and OpenVINO refuses a file in which they are quantised.
So do convolutions with one output channel: logits and attention weights would have 256 steps.

All of it is optional: pip install onnx onnxscript onnxruntime
"""

import copy
import json
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dataset import GREY, Frames
from ismallnet.cli import DataError, optional, progress
from ismallnet.datasets.masks import TARGET
from ismallnet.datasets.sample import DatasetFolder
from ismallnet.evaluation.metrics import count_standard, figures_standard, quantise
from ismallnet.images.grey import GreyRange
from ismallnet.inference.onnx import Exported
from ismallnet.inference.predict import predict
from net import pad_to_multiple

PASS_IMAGES = 4  # of the calibration images, which the sensitivity pass runs
# How many parts of a name tell a group, by the second one; of others the first tells it.
DEPTHS = {"nodes": 3, "encoder": 3, "decoder": 3, "lateral": 2, "aggregate": 2, "feature": 2}
WHY = "--precision fp16 or int8"


def with_notes(raw: bytes, **notes) -> bytes:
    """An ONNX file with entries, JSON, added to its metadata."""
    proto = optional("onnx", WHY).load_from_string(raw)
    for key, value in notes.items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    return proto.SerializeToString()


def to_fp16(raw: bytes) -> bytes:
    """Weights and activations in half precision; the image and the logits stay float32."""
    optional("onnxruntime", WHY)
    float16 = optional("onnxruntime.transformers.float16", WHY)
    proto = optional("onnx", WHY).load_from_string(raw)
    return float16.convert_float_to_float16(proto, keep_io_types=True).SerializeToString()


def group_of(weight: str) -> str:
    """The part of the network that a convolution is quantised with: a node of a stream
    (`interior.nodes.2_1`), its lateral convolutions or aggregation, `fusion`, `mask_head`.

    Args:
        weight: the name of its weights in the ONNX file.
    """
    parts = weight.removeprefix("model.").split(".")
    return ".".join(parts[: DEPTHS.get(parts[1], 1)])


class Calibrated:
    """A network whose activations' ranges on some images are known.

    Attributes:
        groups: of its convolutions that can be quantised, nodes' names by group.

    Args:
        raw: a float32 ONNX file's bytes.
        inputs: normalised images (1, 3, H, W), float32.
    """

    def __init__(self, raw: bytes, inputs: Iterable[np.ndarray]):
        onnx = optional("onnx", WHY)
        optional("onnxruntime", WHY)
        calibration = optional("onnxruntime.quantization.calibrate", WHY)
        self.proto = onnx.load_from_string(raw)
        outputs = {weight.name: weight.dims[0] for weight in self.proto.graph.initializer}
        self.groups: dict[str, list[str]] = {}
        for node in self.proto.graph.node:
            if node.op_type == "Conv" and outputs[node.input[1]] > 1:
                self.groups.setdefault(group_of(node.input[1]), []).append(node.name)
        images = iter(inputs)

        class Reader(calibration.CalibrationDataReader):
            def get_next(self) -> dict | None:
                image = next(images, None)
                return None if image is None else {"image": image}

        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source.onnx"
            source.write_bytes(raw)
            augmented = str(Path(folder) / "augmented.onnx")
            calibrator = calibration.create_calibrator(source, ["Conv"], augmented)
            calibrator.collect_data(Reader())
            self.ranges = calibrator.compute_data()

    def quantised(self, groups: Collection[str]) -> bytes:
        """The network with these groups in int8."""
        types = optional("onnxruntime.quantization", WHY).QuantType
        quantizer = optional("onnxruntime.quantization.qdq_quantizer", WHY).QDQQuantizer(
            copy.deepcopy(self.proto),
            True,  # weights per channel
            False,
            types.QInt8,
            types.QUInt8,  # activations
            self.ranges,
            [name for group in groups for name in self.groups[group]],
            [],
            ["Conv"],
            {},
        )
        quantizer.quantize_model()
        return quantizer.model.model.SerializeToString()

    def count(self, groups: Collection[str]) -> int:
        """How many convolutions these groups have."""
        return sum(len(self.groups[group]) for group in groups)


def calibration_frames(
    data: DatasetFolder, count: int, threshold: int = TARGET, grey: GreyRange = GREY
) -> Frames:
    """Images of the training list, evenly spaced, and none that the test list has too.

    Args:
        count: at most so many.
        threshold: mask values from here up are target.
        grey: how the images are read.

    Raises:
        DataError: there are none, or one cannot be used.
    """
    tested = {sample.image for sample in data.lists.get("test", [])}
    samples = [sample for sample in data.samples("train") if sample.image not in tested]
    if not samples:
        raise DataError(
            f"{data.root}: found no training image that is not in the test list; expected some to "
            "calibrate on: --calibrate NAME"
        )
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    chosen = {"train": [samples[i] for i in places]}
    return Frames(replace(data, lists=chosen, problems={"train": []}), "train", threshold, grey)


def maps_of(raw: bytes, frames: Frames, label: str, count: int | None = None) -> list[np.ndarray]:
    """Probabilities, HxW float32, of the first `count` frames."""
    model = Exported(raw, "onnxruntime")
    places = range(len(frames) if count is None else min(count, len(frames)))
    return [predict(model, [frames[i].image])[0] for i in progress(places, label, len(places))]


def iou_of(maps: list[np.ndarray], frames: Frames) -> float:
    """IoU, 0-1, summed over the frames.

    Raises:
        DataError: they have no targets.
    """
    total = Counter()
    for i, probability in enumerate(maps):
        total.update(count_standard(quantise(probability), frames[i].mask))
    if not total["targets"]:
        raise DataError(
            f"found no target in the {len(maps)} calibration images, so that the loss of int8 is not "
            "known; type a larger --calibrate-images"
        )
    return figures_standard(total)["iou"]


def by_cost(calibrated: Calibrated, frames: Frames, reference: list[np.ndarray]) -> list[str]:
    """The sensitivity pass: the groups, first the one that changes the maps most when it alone is
    in int8 (mean absolute difference of the probabilities, on the first images)."""
    costs = {}
    groups = calibrated.groups
    for group in progress(groups, "sensitivity", len(groups), "group"):
        model = Exported(calibrated.quantised([group]), "onnxruntime")
        gaps = [
            np.abs(predict(model, [frames[i].image])[0] - one).mean()
            for i, one in enumerate(reference[:PASS_IMAGES])
        ]
        costs[group] = float(np.mean(gaps))
    return sorted(costs, key=costs.get, reverse=True)


def to_int8(raw: bytes, frames: Frames, tolerance: float) -> tuple[bytes, dict]:
    """The network in int8, but for the layers that cost more IoU than the tolerance.

    All groups are in int8 first. If IoU on the calibration images falls by more than the tolerance,
    the 1, 2, 4, ... groups that cost most stay float, until it does not.

    Args:
        raw: a float32 ONNX file's bytes.
        frames: calibration images and their masks.
        tolerance: points of IoU.

    Returns:
        The file's bytes; and what was done: `images`, `points` (change of IoU on them), `int8` and
        `convolutions` (how many of them), `float_groups`.

    Raises:
        DataError: the tolerance needs half of the groups or more in float.
    """
    float32 = Exported(raw, "onnxruntime")

    def normalised() -> Iterable[np.ndarray]:
        for i in progress(range(len(frames)), "calibration", len(frames)):
            image = torch.from_numpy(frames[i].image.transpose(2, 0, 1).copy())
            yield pad_to_multiple(float32.normalise(image[None])).numpy().astype(np.float32)

    calibrated = Calibrated(raw, normalised())
    reference = maps_of(raw, frames, "float32")
    before = iou_of(reference, frames)
    order: list[str] = []
    kept = 0
    while True:
        groups = [group for group in calibrated.groups if group not in order[:kept]]
        found = calibrated.quantised(groups)
        points = 100 * (iou_of(maps_of(found, frames, "int8"), frames) - before)
        if points >= -tolerance:
            break
        print(f"int8, {kept} groups float: {points:+.2f} points of IoU on the calibration images")
        order = order or by_cost(calibrated, frames, reference)
        kept = 2 * kept or 1
        if 2 * kept >= len(order):
            raise DataError(
                f"int8: IoU on the calibration images falls by {-points:.2f} points, expected "
                f"{tolerance:g} at most; type a larger --tolerance, or --precision fp16"
            )
    return found, {
        "images": [sample.name for sample in frames.samples],
        "points": points,
        "int8": calibrated.count(groups),
        "convolutions": sum(node.op_type == "Conv" for node in calibrated.proto.graph.node),
        "float_groups": order[:kept],
    }
