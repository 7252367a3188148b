"""The network as an ONNX file, and run by ONNX Runtime or OpenVINO in place of PyTorch.

All of it is optional: pip install onnx onnxscript onnxruntime openvino
"""

import json
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ismallnet.checkpoints import WeightsError
from ismallnet.cli import DataError, optional
from ismallnet.unet import OUTPUTS, Normalised

BACKENDS = ("torch", "onnxruntime", "openvino")
OPSET = 18
TOLERANCE = 1e-3  # of the logits, between PyTorch and an exported network
CHECKED_SHAPES = ((2, 4, 6), (1, 1, 3), (3, 5, 2))  # images; H and W in multiples of the network's


class PresentOutputs(nn.Module):
    """The outputs that a network has, without those that are None."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(out for out in self.model(image) if out is not None)


def to_onnx(model: Normalised) -> bytes:
    """The network as ONNX, opset 18: normalised images (N, 3, H, W), H and W any multiples of
    `model.multiple`, to logits (N, 1, H, W) named as in OUTPUTS; with width, normalisation and `info`
    in its metadata.

    Raises:
        DataError: a package is missing.
        WeightsError: ONNX Runtime's logits differ from PyTorch's by more than 1e-3.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        optional(name, "the export to ONNX")
    proto = traced(model.eval().to("cpu"))
    for node in proto.graph.node:  # notes on the code that made it: half a file, and people's folders
        node.ClearField("metadata_props")
    about = {"mean": model.mean.tolist(), "std": model.std.tolist()}
    about |= {"width": model.width, "multiple": model.multiple}
    raw = with_notes(proto.SerializeToString(), **about, info=model.info)
    check_logits(model, Exported(raw, "onnxruntime"))
    return raw


def traced(model: Normalised):
    """The network as an ONNX ModelProto, for any batch, height and width."""
    example = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    counts = {axis: torch.export.Dim(f"multiples_{axis}", min=1, max=4096) for axis in (2, 3)}
    sides = {axis: model.multiple * count for axis, count in counts.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            PresentOutputs(model),
            (example,),
            dynamo=True,
            dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=4096), **sides}},
            input_names=["image"],
            output_names=[name for name, out in zip(OUTPUTS, model(example)) if out is not None],
            opset_version=OPSET,
            verbose=False,
        )
    return program.model_proto


def check_logits(model: Normalised, exported: "Exported") -> None:
    """Refuses an export whose mask logits differ from PyTorch's by more than 1e-3."""
    for count, rows, columns in CHECKED_SHAPES:
        shape = (count, 3, rows * model.multiple, columns * model.multiple)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            gap = (model(x).mask - exported.mask_logits(x)).abs().max().item()
        if not gap <= TOLERANCE:
            raise WeightsError(f"the exported logits differ by {gap:.2g}, expected {TOLERANCE} at most")


def with_notes(raw: bytes, **notes) -> bytes:
    """An ONNX file's bytes with entries, JSON, added to its metadata."""
    proto = optional("onnx", "the export to ONNX").load_from_string(raw)
    for key, value in notes.items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    return proto.SerializeToString()


def to_fp16(raw: bytes) -> bytes:
    """An ONNX file's bytes with weights and activations in half precision, for GPUs: a CPU runs it
    slowly. The image and the logits stay float32."""
    float16 = optional("onnxruntime.transformers.float16", "--precision fp16")
    proto = optional("onnx", "--precision fp16").load_from_string(raw)
    return float16.convert_float_to_float16(proto, keep_io_types=True).SerializeToString()


class Exported:
    """An ONNX network: its mask logits, the normalisation of its images (`mean`, `std`), its `width`,
    the `multiple` of which their sides must be, and what it says of itself (`info`).

    Args:
        raw: an ONNX file's bytes, as `to_onnx` gives them.
        backend: "onnxruntime" or "openvino", on the CPU, with as many threads as PyTorch has.
        amp: "auto" and "off" compute as the file says; "bf16" (OpenVINO) with bfloat16.

    Raises:
        DataError: the package is missing, or the backend or the processor has no such precision.
        WeightsError: not an ONNX file of this network.
    """

    def __init__(self, raw: bytes, backend: str, amp: str = "auto"):
        optional(backend, f"--backend {backend}")
        runtime = optional("onnxruntime", "an ONNX file")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        try:
            session = runtime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
            about = session.get_modelmeta().custom_metadata_map
            self.mean, self.std = (torch.tensor(json.loads(about[key])) for key in ("mean", "std"))
            self.width, self.info = json.loads(about["width"]), json.loads(about["info"])
            self.multiple = int(about["multiple"])
            inputs = {node.name: node.shape for node in session.get_inputs()}
            if any(isinstance(side, int) for side in inputs["image"][2:]):
                raise ValueError(f"of any size; this one takes {inputs['image']} alone")
        except Exception as error:  # ONNX Runtime has its own types
            raise WeightsError(f"expected an ONNX file that export.py wrote ({error})") from error
        if backend == "openvino":
            self.run = openvino_run(raw, amp)
        else:
            self.run = lambda x: session.run(["mask"], {"image": x})[0]

    normalise = Normalised.normalise

    def mask_logits(self, image: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W), H and W of its multiple -> (N, 1, H, W)."""
        logits = self.run(np.ascontiguousarray(image.numpy(), np.float32))
        return torch.from_numpy(np.array(logits))


def openvino_run(raw: bytes, amp: str) -> Callable[[np.ndarray], np.ndarray]:
    """What OpenVINO gives for images: their mask logits."""
    core = optional("openvino", "--backend openvino").Core()
    if amp == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise DataError("--amp bf16: this processor does not compute with bf16; leave it out")
    hints = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    hints["INFERENCE_PRECISION_HINT"] = "bf16" if amp == "bf16" else "f32"
    compiled = core.compile_model(core.read_model(raw), "CPU", hints)
    return lambda x: compiled(x)["mask"]


def check_amp(backend: str, amp: str) -> None:
    """Refuses a precision that a backend other than PyTorch does not choose by itself."""
    if amp not in ("auto", "off") and (backend, amp) != ("openvino", "bf16"):
        raise DataError(
            f"--amp {amp} beside --backend {backend}: expected auto, off, or --backend openvino --amp "
            "bf16; the precision of a file is chosen by export.py --precision"
        )
