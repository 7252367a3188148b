import json
from pathlib import Path

import pytest
import torch
from conftest import fails
from plain import network

import benchmark
from benchmark import BACKENDS, main, ways_of
from ismallnet.checkpoints import save_weights
from ismallnet.cli import DataError
from net import load_weights

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch) -> Path:
    """Weights of a small network; frames of 32x32 and 64x64."""
    monkeypatch.setattr(benchmark, "FRAMES", ((32, 32), (64, 64)))
    monkeypatch.setattr(benchmark, "SIDE", 32)
    monkeypatch.setattr(benchmark, "BACKENDS", ())
    save_weights(network(2).state_dict(), {"seed": 1}, Path("w.safetensors"))
    return Path("w.safetensors")


def measured(*argv) -> dict:
    main([*map(str, argv), "--device", "cpu", "--seconds", "0.01"])
    return json.loads(Path("results/benchmark.json").read_text())


def test_inference_is_timed_and_its_logits_compared(small, capsys):
    rows = measured("--parts", "inference", "--weights", small)["inference"]
    assert [row["way"] for row in rows] == 2 * ["as net.py reads", "default", "bf16"]
    assert rows[0]["difference"] < 1e-4 and rows[1]["difference"] < 1e-3 < rows[2]["difference"]
    assert [row["frame"] for row in rows] == 3 * ["32x32"] + 3 * ["64x64"]
    assert all(row["seconds"] > 0 for row in rows)
    assert rows[3]["GFLOP"] == pytest.approx(4 * rows[0]["GFLOP"], rel=0.01) and rows[0]["GFLOP"] > 0
    assert "inference: frame 32x32, way bf16, seconds " in capsys.readouterr().out


def test_a_training_step_is_timed(monkeypatch, small):
    monkeypatch.setattr(benchmark, "iSmallNet", lambda: network(2))
    rows = measured("--parts", "training")["training"]
    assert [row["way"] for row in rows] == ["as net.py reads", "default", "bf16"]
    assert all(row["seconds"] > 0 and row["images"] == 4 for row in rows)


def test_accuracy_is_that_of_the_other_scripts(small, data):
    import test

    rows = measured("--dataset", "tiny", "--parts", "accuracy", "--weights", small)["accuracy"]
    assert [row["way"] for row in rows] == ["default", "bf16"]
    test.main(["--dataset", "tiny", "--weights", str(small), "--device", "cpu"])
    total = [line.split(",")[4] for line in Path("results/tiny/images.csv").read_text().split()[1:]]
    assert rows[0]["fa"] == pytest.approx(sum(map(int, total)) / (2 * 40 * 48))


def test_the_backends_that_are_there_are_measured(small, monkeypatch):
    def open_network(weights, backend, amp):
        if amp == "bf16":
            raise DataError("this processor does not compute with bf16")
        return load_weights(weights)

    monkeypatch.setattr(benchmark, "open_network", open_network)
    monkeypatch.setattr(benchmark, "BACKENDS", BACKENDS)
    assert [*ways_of(small, CPU)][3:] == ["onnxruntime off", "openvino off"]


@pytest.mark.parametrize(
    "argv, named",
    [
        (["--parts", "roofline"], "inference, training, accuracy"),
        (["--parts", "accuracy"], "--dataset"),
        (["--dataset", "none", "--parts", "accuracy"], "none"),
        (["--rounds", "5"], "--seconds"),
        (["--onnx", "x.onnx"], "installed"),
    ],
)
def test_what_is_gone_or_missing_is_named(argv, named, capsys):
    assert named in fails(main, *argv, capsys=capsys).replace("'", "")
