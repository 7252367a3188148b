"""The network as an ONNX file, and run by ONNX Runtime or OpenVINO in place of PyTorch.

All of it is optional: pip install onnx onnxscript onnxruntime openvino
"""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ismallnet.checkpoints import WeightsError
from ismallnet.cli import DataError, optional
from ismallnet.files import disguise
from net import OUTPUTS, SCALES, iSmallNet, load_weights

BACKENDS = ("torch", "onnxruntime", "openvino")
OPSET = 18
TOLERANCE = 1e-3  # of the logits, between PyTorch and an exported network


class PresentOutputs(nn.Module):
    """The outputs that a network has, without those that are None."""

    def __init__(self, model: iSmallNet):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(out for out in self.model(image) if out is not None)


def to_onnx(model: iSmallNet) -> bytes:
    """The network as ONNX, opset 18: normalised images (N, 3, H, W), H and W any multiples of 16, to
    logits (N, 1, H, W) named as in OUTPUTS; with width, normalisation and `info` in its metadata.

    Raises:
        DataError: a package is missing.
        WeightsError: ONNX Runtime's logits differ from PyTorch's by more than 1e-3.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        optional(name, "the export to ONNX")
    network = PresentOutputs(model.eval().to("cpu"))
    example = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    names = [name for name, out in zip(OUTPUTS, model(example)) if out is not None]
    step = 2 ** (SCALES - 1)
    sides = {axis: step * torch.export.Dim(f"sixteenth_{axis}", min=1, max=4096) for axis in (2, 3)}
    shapes = {"image": {0: torch.export.Dim("batch", min=1, max=4096), **sides}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["image"],
            output_names=names,
            opset_version=OPSET,
            verbose=False,
        )
    proto = program.model_proto
    for node in proto.graph.node:  # notes on the code that made it: half a file, and people's folders
        node.ClearField("metadata_props")
    notes = {"width": model.width, "mean": model.mean.tolist(), "std": model.std.tolist()}
    for key, value in {**notes, "info": model.info}.items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    raw = proto.SerializeToString()
    exported = Exported(raw, "onnxruntime")
    for shape in ((2, 3, 64, 96), (1, 3, 16, 48), (3, 3, 80, 32)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            gap = (network.model(x).mask - exported.mask_logits(x)).abs().max().item()
        if not gap <= TOLERANCE:
            raise WeightsError(f"the exported logits differ by {gap:.2g}, expected {TOLERANCE} at most")
    return raw


class Exported:
    """An ONNX network: its mask logits, the normalisation of its images (`mean`, `std`), its `width`,
    and what it says of itself (`info`).

    Args:
        raw: an ONNX file's bytes, as `to_onnx` gives them.
        backend: "onnxruntime" or "openvino", on the CPU, with as many threads as PyTorch has.
        amp: "auto" and "off" compute as the file says; "bf16" (OpenVINO) with bfloat16.

    Raises:
        DataError: the package is missing, or the backend or the processor has no such precision.
        WeightsError: not an ONNX file of this network.
    """

    def __init__(self, raw: bytes, backend: str, amp: str = "auto"):
        check_amp(backend, amp)
        package = optional(backend, f"--backend {backend}")
        threads = torch.get_num_threads()
        try:
            session = open_session(raw, threads)
            notes = session.get_modelmeta().custom_metadata_map
            self.mean, self.std = (torch.tensor(json.loads(notes[key])) for key in ("mean", "std"))
            self.width, self.info = json.loads(notes["width"]), json.loads(notes["info"])
            check_network(session, self)
        except DataError:
            raise
        except Exception as error:  # ONNX Runtime has its own types
            raise WeightsError(f"expected an ONNX file that export.py wrote ({error})") from error
        if backend == "onnxruntime":
            self.run = lambda x: session.run(["mask"], {"image": x})[0]
            return
        core = package.Core()
        if amp == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise DataError("--amp bf16: this processor does not compute with bf16; leave it out")
        hints = {"INFERENCE_NUM_THREADS": threads}
        hints["INFERENCE_PRECISION_HINT"] = "bf16" if amp == "bf16" else "f32"
        compiled = core.compile_model(core.read_model(raw), "CPU", hints)
        self.run = lambda x: compiled(x)["mask"]

    def normalise(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in 0-255 units -> float, zero mean and unit variance."""
        return (image - self.mean[:, None, None]) / self.std[:, None, None]

    def mask_logits(self, image: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W), H and W multiples of 16 -> (N, 1, H, W)."""
        logits = self.run(np.ascontiguousarray(image.numpy(), np.float32))
        return torch.from_numpy(np.array(logits))


def check_network(session, network: Exported) -> None:
    """
    Raises:
        ValueError: an ONNX file that takes or gives something else, or says odd things of itself.
    """
    inputs = {node.name: node.shape for node in session.get_inputs()}
    if "mask" not in [node.name for node in session.get_outputs()] or list(inputs) != ["image"]:
        raise ValueError("no input image and output mask")
    if any(isinstance(side, int) for side in inputs["image"][2:]):
        raise ValueError(f"it takes images of {inputs['image']} alone; export it again, of any size")
    if network.mean.shape != (3,) or network.std.shape != (3,) or not isinstance(network.info, dict):
        raise ValueError("no mean, std and info in its metadata")


def check_amp(backend: str, amp: str) -> None:
    """
    Raises:
        DataError: a precision that a backend other than PyTorch does not choose by itself.
    """
    if amp not in ("auto", "off") and (backend, amp) != ("openvino", "bf16"):
        raise DataError(
            f"--amp {amp} beside --backend {backend}: expected auto, off, or --backend openvino --amp "
            "bf16; the precision of a file is chosen by export.py --precision"
        )


def open_session(raw: bytes, threads: int):
    """An ONNX Runtime session on the CPU."""
    runtime = optional("onnxruntime", "an ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    return runtime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])


def open_network(
    path: str | os.PathLike, backend: str = "torch", width: int | None = None, amp: str = "auto"
) -> iSmallNet | Exported:
    """The network of a weights file, or of an ONNX file, on a backend; `amp` as in `Exported`, without
    effect on PyTorch's, which take it at each call.

    Raises:
        WeightsError: as `load_weights`, or an ONNX file for PyTorch.
        DataError: a package is missing, or the backend has no such precision.
    """
    path = Path(path)
    if backend != "torch":
        check_amp(backend, amp)
    if path.suffix != ".onnx":
        model = load_weights(path, width)
        return model if backend == "torch" else Exported(to_onnx(model), backend, amp)
    if backend == "torch":
        raise WeightsError(f"{path}: an ONNX file; type --backend onnxruntime, or name other weights")
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file; make it: python export.py --weights FILE --output {path.name}"
        )
    try:
        model = Exported(path.read_bytes(), backend, amp)
    except WeightsError as error:
        raise WeightsError(f"{path}: {disguise(path) or error}") from error
    if width not in (None, model.width):
        raise WeightsError(f"{path}: found a network of width {model.width}, expected width {width}")
    return model
