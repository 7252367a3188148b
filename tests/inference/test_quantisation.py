"""ONNX files in half precision and in 8 bits."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import fails, make_set, picture, write

import export
from detect import main as detect
from ismallnet.checkpoints import save_weights
from ismallnet.cli import DataError
from ismallnet.datasets.find import find_dataset
from ismallnet.evaluation.metrics import quantise
from ismallnet.inference import quantisation
from ismallnet.inference.onnx import Exported, to_onnx
from ismallnet.inference.quantisation import calibration_frames, group_of, iou_of, to_int8
from ismallnet.plain import network
from test import main as run_list

PACKAGES = ("onnx", "onnxscript", "onnxruntime", "openvino")


# --- without ONNX --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "group"),
    [
        ("model.interior.nodes.2_1.0.conv1.weight", "interior.nodes.2_1"),
        ("model.boundary.lateral.3.weight", "boundary.lateral"),
        ("model.single.aggregate.conv2.weight", "single.aggregate"),
        ("model.fusion.lateral.0.weight", "fusion.lateral"),
        ("model.mask_head.0.weight", "mask_head"),
        ("model.interior_head.weight", "interior_head"),
        ("model.plain.encoder.3.0.weight", "plain.encoder.3"),
        ("model.plain.feature.weight", "plain.feature"),
    ],
)
def test_the_group_of_a_convolution(weight, group):
    assert group_of(weight) == group


def test_calibration_images_are_spread_over_the_training_list_and_never_test_images():
    names = [f"i{k}" for k in range(9)]
    root = make_set(Path("data/s"), names=names, train=7)
    found = find_dataset("s")
    chosen = [sample.name for sample in calibration_frames(found, 3).samples]
    assert chosen == ["i0", "i3", "i6"]
    assert len(calibration_frames(found, 100)) == 7
    write(root / "50_50/test.txt", "".join(f"{name}\n" for name in ("i0", "i7", "i8")))
    found.lists["test"] = [s for s in [*found.lists["train"], *found.lists["test"]] if s.name != "i3"]
    assert [sample.name for sample in calibration_frames(found, 3).samples] == ["i3"]
    found.lists["test"] = found.lists["train"]
    with pytest.raises(DataError, match="found no training image that is not in the test list"):
        calibration_frames(found, 3)


class Groups:
    """Stands for `Calibrated`: a network is the list of its groups in int8, as JSON."""

    def __init__(self, *_):
        nodes = [SimpleNamespace(op_type="Conv")] * 12
        self.groups = {name: [f"{name}1", f"{name}2"] for name in "abcde"}
        self.proto = SimpleNamespace(graph=SimpleNamespace(node=nodes))

    def quantised(self, groups) -> bytes:
        return json.dumps(sorted(groups)).encode()

    count = quantisation.Calibrated.count


@pytest.fixture
def frames(monkeypatch, data):
    """Calibration frames, and networks whose maps are the masks less one target pixel (of 12) for group
    d in int8, and six for group b."""
    found = calibration_frames(find_dataset("tiny"), 2)

    def predict(groups: list[str], images: list[np.ndarray]) -> list[np.ndarray]:
        place = next(i for i in range(2) if found[i].image is images[0])
        probability = found[place].mask / np.float32(255)
        y, x = np.nonzero(probability)
        lost = ("d" in groups) + 6 * ("b" in groups)
        probability[y[:lost], x[:lost]] = 0
        return [probability]

    monkeypatch.setattr(quantisation, "Calibrated", Groups)
    monkeypatch.setattr(quantisation, "Exported", lambda raw, backend: json.loads(raw))
    monkeypatch.setattr(quantisation, "predict", predict)
    return found


def test_without_a_loss_all_groups_are_in_int8(frames):
    found, made = to_int8(b"[]", frames, tolerance=60)
    assert json.loads(found) == list("abcde") and made["float_groups"] == []
    assert made["images"] == ["a", "b"] and (made["int8"], made["convolutions"]) == (10, 12)
    assert made["points"] == pytest.approx(-100 * 7 / 12)


def test_the_group_that_costs_most_stays_float(frames, capsys):
    found, made = to_int8(b"[]", frames, tolerance=9)
    assert json.loads(found) == list("acde") and made["float_groups"] == ["b"]
    assert made["int8"] == 8 and made["points"] == pytest.approx(-100 / 12)
    assert "int8, 0 groups float: -58.33 points of IoU" in capsys.readouterr().out


def test_as_many_groups_stay_float_as_the_tolerance_needs(frames):
    found, made = to_int8(b"[]", frames, tolerance=0)
    assert json.loads(found) == list("ace") and made["float_groups"] == ["b", "d"]
    assert made["points"] == 0


def test_a_tolerance_that_half_the_groups_do_not_hold_is_an_error(frames, monkeypatch):
    monkeypatch.setattr(
        quantisation, "predict", lambda groups, images: [np.zeros((40, 48)) + (not groups)]
    )
    with pytest.raises(DataError, match=r"falls by 0.62 points, expected 0.5 at most"):
        to_int8(b"[]", frames, tolerance=0.5)


def test_iou_of_the_calibration_images_by_hand(frames):
    masks = [frames[i].mask / 255 for i in range(2)]
    half = masks[1].copy()
    half[: np.nonzero(half)[0].min() + 1] = 0  # the first of the target's three rows
    assert iou_of([masks[0], half], frames) == 20 / 24
    empty = [SimpleNamespace(mask=np.zeros((40, 48), np.uint8))]
    with pytest.raises(DataError, match="found no target in the 1 calibration images"):
        iou_of([np.zeros((40, 48))], empty)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(DataError, match="pip install onnx"):
        quantisation.with_notes(b"", export={})


# --- with ONNX -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw() -> bytes:
    """A network of one stream, as float32 ONNX, whose mask lets through a tenth of the pixels."""
    for package in PACKAGES:
        pytest.importorskip(package)
    model = network(4, "single")
    with torch.no_grad():
        x = model.normalise(torch.from_numpy(picture()).expand(3, -1, -1)[None].float())
        model.mask_head[3].bias -= torch.quantile(model(x).mask, 0.9)
    return to_onnx(model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Weights, and a data set in data/tiny."""
    folder = tmp_path_factory.mktemp("exports")
    make_set(folder / "data" / "tiny")
    save_weights(network(4, "single").state_dict(), {}, folder / "w.safetensors")
    return folder


def typed(folder: Path, raw: bytes, precision: str, *argv: str) -> Path:
    """An export of that network, as one types it."""
    output = folder / f"{precision}.onnx"
    argv = ["--precision", precision, "--data-root", f"{folder}/data", "--verify", "tiny", *argv]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "to_onnx", lambda model: raw)
        argv = ["--weights", f"{folder}/w.safetensors", "--output", str(output), *argv]
        assert export.main([*argv, "--tolerance", "60"]) == 0
    return output


@pytest.fixture(scope="module")
def int8(folder, raw) -> Path:
    return typed(folder, raw, "int8", "--calibrate", "tiny")


@pytest.fixture(scope="module")
def fp16(folder, raw) -> Path:
    return typed(folder, raw, "fp16")


def nodes(path: Path) -> tuple[dict, list]:
    """Of an ONNX file: which node makes each tensor, and the convolutions."""
    graph = pytest.importorskip("onnx").load(path).graph
    made = {name: node for node in graph.node for name in node.output}
    return made, [n for n in graph.node if n.op_type == "Conv"]


def test_int8_is_in_the_convolutions_alone(int8, raw):
    made, convolutions = nodes(int8)
    graph = pytest.importorskip("onnx").load(int8).graph
    for node in graph.node:
        if node.op_type == "MatMul":  # the weights stay float; OpenVINO refuses others
            assert node.input[1] in {weight.name for weight in graph.initializer}
    is_int8 = [
        made.get(node.input[1]) is not None and made[node.input[1]].op_type == "DequantizeLinear"
        for node in convolutions
    ]
    # Of 15 nodes, the aggregation and the head: one spatial attention a block, and the head's last.
    blocks = sum(1 if node.startswith("0") else 2 for node in network(4, "single").single.nodes) + 1
    assert is_int8.count(False) == blocks + 1 and is_int8.count(True) > 60
    assert int8.stat().st_size < 0.7 * len(raw)
    scale = next(w for w in graph.initializer if w.name.endswith("0_0.0.conv1.weight_scale"))
    assert list(scale.dims) == [4]  # one for each output channel


def test_the_file_says_how_it_was_made(int8):
    proto = pytest.importorskip("onnx").load(int8)
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    notes = json.loads(entries["export"])
    assert entries["width"] == "4" and notes["images"] == ["a", "b"]
    assert notes["precision"] == "int8" and notes["calibrate"] == notes["verified"]["dataset"] == "tiny"
    assert notes["verified"]["images"] == 2 and 0 <= notes["verified"]["export"]["iou"] <= 1
    assert str(Path(export.__file__).parent).encode() not in int8.read_bytes()  # no one's folders


def test_half_precision_inside_and_float32_outside(fp16):
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(fp16).graph
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    large = [w.data_type for w in graph.initializer if w.name.endswith("conv1.weight")]
    assert set(large) == {half}
    assert {t.type.tensor_type.elem_type for t in (*graph.input, *graph.output)} == {single}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("kind", "gap"), [("int8", 8), ("fp16", 1)])
def test_the_scripts_run_the_file(request, folder, raw, backend, kind, gap):
    argv = ["--weights", str(request.getfixturevalue(kind)), "--backend", backend]
    run_list(["--dataset", "tiny", "--data-root", f"{folder}/data", *argv])
    image = np.dstack([cv2.imread(f"{folder}/data/tiny/images/c.png", 0)] * 3)
    expected = quantisation.predict(Exported(raw, "onnxruntime"), [image])[0]
    found = cv2.imread("results/tiny/c.png", 0)
    assert np.abs(found.astype(int) - quantise(expected)).mean() < gap  # of 255
    write(Path("f/a.png"), picture())
    assert detect(["f", *argv]) == 0 and Path("results/f/detections.csv").exists()


def test_openvino_computes_with_bf16(raw):
    core = pytest.importorskip("openvino").Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(DataError, match="this processor does not compute with bf16"):
            Exported(raw, "openvino", "bf16")
        pytest.skip("this processor does not compute with bf16")
    x = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    full, half = (Exported(raw, "openvino", amp).mask_logits(x) for amp in ("auto", "bf16"))
    gap = (full - half).abs().max()
    assert 1e-3 < gap < 0.1 * full.abs().max()  # bf16 has 8 bits of precision


@pytest.mark.parametrize(("backend", "amp"), [("onnxruntime", "bf16"), ("openvino", "fp16")])
def test_a_precision_that_a_backend_does_not_choose_is_an_error(data, backend, amp, capsys):
    argv = ["--weights", "w.onnx", "--backend", backend, "--amp", amp]
    for main, rest in ((run_list, ["--dataset", "tiny"]), (detect, ["data/tiny/images"])):
        message = fails(main, *rest, *argv, capsys=capsys)
        assert f"--amp {amp} beside --backend {backend}: expected auto, off, or" in message


def test_a_file_of_an_opset_to_come_and_one_of_another_network_are_named(raw, data, capsys):
    onnx = pytest.importorskip("onnx")
    newer = onnx.load_from_string(raw)
    newer.opset_import[0].version = 999
    Path("newer.onnx").write_bytes(newer.SerializeToString())
    other = onnx.load_from_string(raw)
    del other.metadata_props[:]
    Path("other.onnx").write_bytes(other.SerializeToString())
    for name, reason in (("newer", "999"), ("other", "mean")):
        argv = ["--dataset", "tiny", "--weights", f"{name}.onnx", "--backend", "onnxruntime"]
        message = fails(run_list, *argv, capsys=capsys)
        assert (
            f"{name}.onnx: expected an ONNX file that export.py wrote" in message and reason in message
        )
