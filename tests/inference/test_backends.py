"""The network on other backends, against PyTorch."""

import importlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import fails, make_set, picture, write

from detect import main as detect
from export import main as export
from ismallnet.checkpoints import save_weights
from ismallnet.cli import DataError
from ismallnet.inference import onnx as backends
from ismallnet.inference.onnx import Exported, to_onnx
from ismallnet.inference.predict import predict
from ismallnet.inference.weights import open_network
from net import iSmallNet, load_weights
from test import main

for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """w.safetensors and w.onnx of one network, and half.onnx of it in half precision."""
    torch.manual_seed(0)
    model = iSmallNet(4).eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):  # statistics that are not those of a new one
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
    model.mean.copy_(torch.tensor([100.0, 101, 102]))
    folder = tmp_path_factory.mktemp("weights")
    save_weights(model.state_dict(), {"dataset": ["tiny"], "seed": 3}, folder / "w.safetensors")
    source = ["--weights", str(folder / "w.safetensors"), "--output"]
    assert export([*source, str(folder / "w.onnx")]) == 0
    raw = (folder / "w.onnx").read_bytes()
    make_set(folder / "data" / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.to_onnx", lambda model: raw)
        flags = ["--precision", "fp16", "--verify", "tiny", "--data-root", f"{folder}/data"]
        patch.setattr("export.TOLERANCE", 60)
        assert export([*source, str(folder / "half.onnx"), *flags]) == 0
    return folder


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("shape", [(16, 16), (131, 67)])
def test_every_backend_gives_pytorch_s_logits(exported, backend, shape):
    model, other = load_weights(exported / "w.safetensors"), open_network(exported / "w.onnx", backend)
    x = torch.randn(2, 3, *(-(-side // 16) * 16 for side in shape))
    with torch.inference_mode():
        assert (model(x).mask - other.mask_logits(x)).abs().max() < 1e-3
    images = [np.dstack([picture(k, shape)] * 3) for k in range(2)]
    for expected, result in zip(predict(model, images), predict(other, images), strict=True):
        assert result.shape == shape and np.abs(expected - result).max() < 1e-4
    assert other.width == 4 and other.info == model.info
    assert torch.equal(other.mean, model.mean)


def test_a_network_without_some_outputs():
    torch.manual_seed(1)
    model = iSmallNet(2, "single").eval()
    other = Exported(to_onnx(model), "onnxruntime")
    x = torch.randn(1, 3, 32, 64)
    with torch.inference_mode():
        assert (model(x).mask - other.mask_logits(x)).abs().max() < 1e-3


@pytest.mark.parametrize(("file", "gap"), [("w", 1), ("half", 3)])
def test_maps_and_detections_are_those_of_pytorch(exported, data, file, gap, capsys):
    network = ["--weights", f"{exported}/{file}.onnx", "--backend"]
    main(["--dataset", "tiny", "--weights", f"{exported}/w.safetensors"])
    main(["--dataset", "tiny", *network, "openvino", "--results", "other"])
    for name in "cd":
        maps = [cv2.imread(f"{top}/tiny/{name}.png", 0).astype(int) for top in ("results", "other")]
        assert np.abs(maps[0] - maps[1]).max() <= gap
    write(Path("f/a.png"), picture())
    assert detect(["f", *network, "onnxruntime"]) == 0
    assert Path("results/f/detections.csv").exists()
    assert f"{file}.onnx (width 4, dataset tiny" in capsys.readouterr().out


def test_the_file_says_how_it_was_made_and_names_no_folder(exported):
    """Half precision inside, float32 outside."""
    onnx, raw = pytest.importorskip("onnx"), (exported / "half.onnx").read_bytes()
    proto = onnx.load_from_string(raw)
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    weights = [w for w in proto.graph.initializer if w.name.endswith("conv1.weight")]
    ends = (*proto.graph.input, *proto.graph.output)
    assert {w.data_type for w in weights} == {half}
    assert {end.type.tensor_type.elem_type for end in ends} == {single}
    entries = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert entries["width"] == 4 and entries["export"]["precision"] == "fp16"
    assert entries["export"]["verified"]["images"] == 2
    assert str(Path(backends.__file__).parent).encode() not in raw


def test_openvino_computes_with_bf16(exported):
    core = pytest.importorskip("openvino").Core()
    raw = (exported / "w.onnx").read_bytes()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(DataError, match="bf16"):
            Exported(raw, "openvino", "bf16")
        return
    x = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    full, half = (Exported(raw, "openvino", amp).mask_logits(x) for amp in ("auto", "bf16"))
    gap = (full - half).abs().max()
    assert 1e-3 < gap < 0.1 * full.abs().max()  # bf16 has 8 bits of precision


def test_a_network_that_does_not_agree_is_not_written(monkeypatch, exported, capsys):
    monkeypatch.setattr(backends, "TOLERANCE", -1.0)
    fails(export, "--weights", f"{exported}/w.safetensors", "--output", "w.onnx", capsys=capsys)
    assert not Path("w.onnx").exists()


def test_a_missing_package_is_named(monkeypatch, exported):
    real = importlib.import_module

    def without(name):
        if name == "openvino":
            raise ImportError("none here")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(DataError, match="pip install openvino"):
        open_network(exported / "w.onnx", "openvino")


@pytest.mark.parametrize(
    ("file", "flags", "named"),
    [
        ("w.onnx", "", "--backend onnxruntime"),
        ("text.onnx", "--backend openvino", "text.onnx"),
        ("none.onnx", "--backend openvino", "none.onnx"),
        ("w.onnx", "--backend onnxruntime --amp bf16", "--amp bf16"),
        ("w.onnx", "--backend openvino --amp fp16", "--amp fp16"),
    ],
)
def test_wrong_files_and_precisions_are_named(exported, data, file, flags, named, capsys):
    write(exported / "text.onnx", "no network")
    argv = ["--weights", str(exported / file), *flags.split()]
    for script, rest in ((main, ["--dataset", "tiny"]), (detect, ["data/tiny/images"])):
        assert named in fails(script, *rest, *argv, capsys=capsys)


def fix_size(model) -> None:
    for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_value = 64


def of_tomorrow(model) -> None:
    model.opset_import[0].version = 999


def without_notes(model) -> None:
    del model.metadata_props[:]


@pytest.mark.parametrize("change", [fix_size, without_notes, of_tomorrow])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_onnx_files_of_another_form_are_refused(exported, change, backend, capsys):
    model = pytest.importorskip("onnx").load(exported / "w.onnx")
    change(model)
    write(Path("c.onnx"), model.SerializeToString())
    write(Path("f/a.png"), picture())
    assert "c.onnx" in fails(detect, "f", "--weights", "c.onnx", "--backend", backend, capsys=capsys)
