"""The network on other backends, against PyTorch."""

import importlib
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
    """w.safetensors and w.onnx of one network."""
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
    export(["--weights", str(folder / "w.safetensors"), "--output", str(folder / "w.onnx")])
    return folder


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("shape", [(16, 16), (48, 100), (131, 67)])
def test_every_backend_gives_pytorch_s_logits(exported, backend, shape):
    model, other = load_weights(exported / "w.safetensors"), open_network(exported / "w.onnx", backend)
    x = torch.randn(2, 3, *(-(-side // 16) * 16 for side in shape))
    with torch.inference_mode():
        assert (model(x)[2] - other.mask_logits(x)).abs().max() < 1e-3
    images = [np.dstack([picture(k, shape)] * 3) for k in range(2)]
    for expected, found in zip(predict(model, images), predict(other, images), strict=True):
        assert found.shape == shape and np.abs(expected - found).max() < 1e-4
    assert not callable(other) and not hasattr(other, "variant")  # it is no iSmallNet
    assert other.width == 4 and other.info == model.info
    assert torch.equal(other.mean, model.mean)


@pytest.mark.parametrize("variant", ["single", "sum"])
def test_variants(variant):
    torch.manual_seed(1)
    model = iSmallNet(2, variant).eval()
    other = Exported(to_onnx(model), "onnxruntime")
    x = torch.randn(1, 3, 32, 64)
    with torch.inference_mode():
        assert (model(x)[2] - other.mask_logits(x)).abs().max() < 1e-3


def test_maps_and_detections_are_those_of_pytorch(exported, tmp_path, capsys):
    make_set(tmp_path / "data" / "tiny", names="abcd", train=2)
    weights = ["--weights", str(exported / "w.onnx"), "--backend"]
    main(["--dataset", "tiny", "--weights", str(exported / "w.safetensors")])
    main(["--dataset", "tiny", *weights, "openvino", "--results", "other"])
    for name in "cd":
        maps = [
            cv2.imread(f"{folder}/tiny/{name}.png", 0).astype(int) for folder in ("results", "other")
        ]
        assert np.abs(maps[0] - maps[1]).max() <= 1
    write(Path("f/a.png"), picture())
    assert detect(["f", *weights, "onnxruntime"]) == 0
    assert Path("results/f/detections.csv").exists()
    assert "w.onnx (width 4, dataset tiny" in capsys.readouterr().out


def test_a_network_that_does_not_agree_is_not_written(monkeypatch, exported, capsys):
    monkeypatch.setattr(backends, "TOLERANCE", -1.0)
    message = fails(
        export, "--weights", f"{exported}/w.safetensors", "--output", "w.onnx", capsys=capsys
    )
    assert "the exported logits differ by" in message and not Path("w.onnx").exists()


def test_a_missing_package_is_named(monkeypatch, exported):
    real = importlib.import_module

    def without(name):
        if name == "openvino":
            raise ImportError("none here")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(DataError, match=r"--backend openvino needs openvino .*pip install openvino"):
        open_network(exported / "w.onnx", "openvino")


def test_wrong_files_are_named(exported, tmp_path, capsys):
    make_set(tmp_path / "data" / "tiny", names="abcd", train=2)
    Path("text.onnx").write_text("no network")
    for weights, argv, message in (
        (exported / "w.onnx", [], "an ONNX file; type --backend onnxruntime"),
        (
            "text.onnx",
            ["--backend", "openvino"],
            "text.onnx: expected an ONNX file that export.py wrote",
        ),
        ("none.onnx", ["--backend", "openvino"], "none.onnx: no such file"),
        (
            exported / "w.onnx",
            ["--backend", "onnxruntime", "--width", "8"],
            "width 4, expected width 8",
        ),
    ):
        argv = ["--dataset", "tiny", "--weights", str(weights), *argv]
        assert message in fails(main, *argv, capsys=capsys)


def changed(exported, change) -> str:
    import onnx

    model = onnx.load(exported / "w.onnx")
    change(model)
    onnx.save(model, "c.onnx")
    return "c.onnx"


def fix_size(model) -> None:
    for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_value = 64


def rename(model) -> None:
    for node in model.graph.node:
        node.output[:] = ["other" if name == "mask" else name for name in node.output]
    for output in model.graph.output:
        output.name = "other" if output.name == "mask" else output.name


def lose(key: str):
    def change(model) -> None:
        next(entry for entry in model.metadata_props if entry.key == key).value = "[]"

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fix_size, "alone; export it again, of any size"),
        (rename, "no input image and output mask"),
        (lose("mean"), "no mean, std and info in its metadata"),
        (lose("info"), "no mean, std and info in its metadata"),
    ],
)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_onnx_files_of_another_form_are_refused(exported, change, message, backend, capsys):
    write(Path("f/a.png"), picture())
    argv = ("f", "--weights", changed(exported, change), "--backend", backend)
    error = fails(detect, *argv, capsys=capsys)
    assert "c.onnx: expected an ONNX file that export.py wrote" in error and message in error
