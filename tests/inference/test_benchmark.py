import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import fails, make_set

import benchmark
from benchmark import main, network, unmatched
from ismallnet import timing
from ismallnet.checkpoints import save_weights
from ismallnet.cli import DataError
from ismallnet.timing import alone, markdown, most_memory, peak, rows_of, seconds_in_turn
from ismallnet.ways import counts_of, ways_of
from net import iSmallNet, load_weights


def test_ways_are_run_in_turn_after_one_round_to_warm_up():
    calls = []
    ways = {name: lambda name=name: calls.append(name) for name in ("plain", "other")}
    seconds = seconds_in_turn(ways, 3, torch.device("cpu"))
    assert calls == ["plain", "other"] * 4 and [len(s) for s in seconds.values()] == [3, 3]


def test_the_processor_s_clock_does_not_count_sleep():
    ways = {"sleep": lambda: time.sleep(0.05)}
    for clock, least, most in (("wall", 0.05, 9), ("processor", 0, 0.02)):
        assert least <= min(seconds_in_turn(ways, 1, torch.device("cpu"), clock)["sleep"]) <= most


def test_ratios_are_medians_over_rounds_of_the_ratios_within_a_round():
    seconds = {"plain": [2.0, 8.0, 6.0], "default": [1.0, 2.0, 6.0]}  # ratios 2, 4, 1
    plain, default = rows_of(seconds, "plain")
    assert plain == {"way": "plain", "seconds": 6.0, "× plain": 1.0, "least": 1.0, "most": 1.0}
    assert default == {"way": "default", "seconds": 2.0, "× plain": 2.0, "least": 1.0, "most": 4.0}
    plain, default = rows_of(seconds, "plain", "default")
    assert (default["× plain"], default["× default"], default["most"]) == (2, 1, 1)
    assert (plain["× default"], plain["least"], plain["most"]) == (0.5, 0.25, 1)


def test_the_network_under_test_gives_logits_of_ordinary_size():
    with torch.inference_mode():
        logits = network(4)(torch.randn(1, 3, 64, 64))[2]
    assert 0.1 < logits.abs().max() < 100


def test_a_table_has_all_keys_of_its_rows():
    text = markdown([{"a": 1, "b": 0.123456}, {"a": "x", "c": 2.0}, {"d": 3}])
    first = "| a | b | c |\n| --- | --- | --- |\n| 1 | 0.1235 |  |\n| x |  | 2 |\n"
    assert text == first + "\n| d |\n| --- |\n| 3 |\n"  # another first column, another table


def test_unmatched_targets_by_hand():
    a, b, c = (SimpleNamespace(x=x, y=y) for x, y in ((0, 0), (0, 2.9), (3, 0)))
    assert unmatched([a], [b]) == 0 and unmatched([a], [c]) == 1 and unmatched([a, b], []) == 2


def test_parts_write_their_tables(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "SIDE", 32)
    monkeypatch.setattr(benchmark, "network", lambda width=16: network(2))
    main(["--parts", "training", "--rounds", "1", "--device", "cpu"])
    found = json.loads(Path("results/benchmark.json").read_text())
    assert [row["way"] for row in found["training"]] == ["plain", "default", "default, bf16"]
    assert found["environment"]["torch"] and "| plain |" in capsys.readouterr().out


def test_smaller_networks_are_timed_beside_the_full_one_on_frames_of_several_sizes(monkeypatch):
    monkeypatch.setattr(benchmark, "FRAMES", ((32, 32), (32, 48)))
    main(["--parts", "light", "--rounds", "1", "--device", "cpu"])
    rows = json.loads(Path("results/benchmark.json").read_text())["light"]
    names = ["full, width 16", "full, width 8", "single, width 8", "single, width 6", "plain, width 8"]
    assert [row["way"] for row in rows] == 2 * names
    assert [row["frame"] for row in rows] == 5 * ["32x32"] + 5 * ["48x32"]
    for full, smallest in ((rows[0], rows[4]), (rows[5], rows[9])):
        assert full["× full, width 16"] == 1
        assert smallest["× full, width 16"] == pytest.approx(full["seconds"] / smallest["seconds"])
        assert smallest["a second"] == pytest.approx(1 / smallest["seconds"])


@pytest.mark.parametrize("batch", [1, 2])
def test_the_first_call_which_loads_and_compiles_is_not_timed(monkeypatch, batch):
    save_weights(iSmallNet(1).state_dict(), {}, Path("w.safetensors"))
    monkeypatch.setattr(timing, "WARM_SECONDS", 0.0)
    calls = []

    def predict(*_, **__):
        calls.append(batch)
        time.sleep(0.5 if len(calls) == 1 else 0)

    monkeypatch.setattr(timing, "predict_frame" if batch == 1 else "predict", predict)
    assert peak(32, 32, batch, "w.safetensors")[0] < 0.4 and len(calls) == 2


def test_scaling_of_sides_tiles_and_batches(monkeypatch):
    monkeypatch.setattr(
        benchmark, "alone", lambda side, tile, batch, weights: (batch * side / 100, 9.0)
    )
    main(["--parts", "scaling", "--device", "cpu"])
    rows = json.loads(Path("results/benchmark.json").read_text())["scaling"]
    assert len(rows) == 6 + 3 + 6 and Path("results/scaling.png").exists()
    assert rows[1]["µs a pixel"] == pytest.approx(1e6 * 2.56 / 256**2)


def test_the_pipeline_is_timed_as_it_is_typed():
    make_set(Path("data/tiny"), names="abcdef", train=2)
    torch.manual_seed(0)
    save_weights(iSmallNet(2).state_dict(), {}, Path("w.safetensors"))
    argv = ["--parts", "pipeline", "--dataset", "tiny", "--weights", "w.safetensors", "--device", "cpu"]
    main(argv)
    rows = json.loads(Path("results/benchmark.json").read_text())["pipeline"]
    names = [row["work"] for row in rows]
    assert names[:2] == ["forward passes alone", "test.py"]
    assert all(row["seconds"] > 0 and row["images"] == 4 for row in rows)


def test_label_decoupling_and_its_files_alone(data):
    before = {path: path.read_bytes() for path in data.rglob("*.*")}
    main(["--parts", "labels", "--dataset", "tiny", "--rounds", "1"])
    rows = json.loads(Path("results/benchmark.json").read_text())["labels"]
    assert [row["way"] for row in rows] == [
        "utils.py, 1 workers",
        "utils.py, 2 workers",
    ]
    assert all(row["masks a second"] == pytest.approx(4 / row["seconds"]) for row in rows)
    assert {path: path.read_bytes() for path in data.rglob("*.*")} == before  # nothing lands in the set


def test_a_process_does_not_count_the_memory_of_the_one_that_started_it():
    save_weights(iSmallNet(1).state_dict(), {}, Path("w.safetensors"))
    held = torch.ones(400 * 2**18)  # 400 MiB more than a process of its own needs
    mib = alone(32, 32, 1, "w.safetensors")[1]
    assert held.sum() and 100 < mib < most_memory() - 200


def test_tiles_against_one_piece(monkeypatch):
    save_weights(iSmallNet(1).state_dict(), {}, Path("w.safetensors"))

    def predict_frame(_, frame, tile, overlap=0):
        probability = np.zeros(frame.shape, np.float32)
        probability[10:13, 20:23] = 0.75
        if tile == 512 and overlap == 0:  # one target lost, and another, smaller, in its place
            probability[10:13, 20:23], probability[40, 40] = 0, 0.5
        return probability

    monkeypatch.setattr(benchmark, "predict_frame", predict_frame)
    main(["--parts", "tiles", "--weights", "w.safetensors", "--device", "cpu"])
    rows = json.loads(Path("results/benchmark.json").read_text())["tiles"]
    assert [row["overlap"] for row in rows] == [0, 32, 64, 128, 256]
    assert (rows[0]["lost"], rows[0]["new"], rows[0]["targets"]) == (4, 4, 4)
    assert (rows[2]["lost"], rows[2]["new"], rows[0]["largest difference"]) == (0, 0, 0.75)


# --- the ways to run a network ---------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch) -> Path:
    """Weights of a small network, under two data sets' worth of ways on frames of 32x32."""
    monkeypatch.setattr(benchmark, "FRAMES", ((32, 32),))
    monkeypatch.setattr(benchmark, "SIDE", 32)
    save_weights(network(2).state_dict(), {"seed": 1}, Path("w.safetensors"))
    return Path("w.safetensors")


def test_pytorch_s_ways_give_the_same_logits(small):
    main(["--parts", "inference", "--rounds", "1", "--weights", str(small), "--device", "cpu"])
    rows = json.loads(Path("results/benchmark.json").read_text())["inference"]
    assert [row["way"] for row in rows] == ["plain", "default", "bf16"]
    assert rows[0]["difference"] == 0 and rows[1]["difference"] < 1e-3 < rows[2]["difference"]
    assert rows[0]["× plain"] == rows[1]["× default"] == 1
    assert rows[0]["× default"] == pytest.approx(1 / rows[1]["× plain"])


def test_accuracy_of_each_way_on_a_test_list_and_its_chart(small, data, monkeypatch):
    found = iter([10, 10, 10, 4, 10, 10])  # of 12 target pixels: default, bf16, joint, for two images

    def counts(network, way, item):
        hit = next(found)
        return {"tp": hit, "fp": 0, "fn": 12 - hit, "image_iou": 0, "images": 1, "targets": 1} | (
            {"matched": 1, "components": 1, "false_pixels": 0, "pixels": 1920}
        )

    monkeypatch.setattr(benchmark, "counts_of", counts)
    argv = ["--parts", "accuracy", "--rounds", "1", "--dataset", "tiny", "--weights", str(small)]
    main([*argv, "--device", "cpu"])
    rows = json.loads(Path("results/benchmark.json").read_text())["accuracy"]
    assert [row["way"] for row in rows] == ["default", "bf16", "default, joint weights"]
    assert [round(row["iou"], 2) for row in rows] == [58.33, 83.33, 83.33]
    assert Path("results/speed.png").stat().st_size > 5000


def test_the_counts_of_an_image_are_those_at_its_own_size(small):
    item = SimpleNamespace(image=np.full((20, 30, 3), 90, np.uint8), mask=np.zeros((20, 30), np.uint8))
    item.mask[3:5, 4:9] = 255

    def way(x: torch.Tensor) -> torch.Tensor:
        assert x.shape == (1, 3, 32, 32)  # padded to multiples of 16
        logits = torch.full((1, 1, 32, 32), -9.0)
        logits[..., 3, 4:10] = 9.0
        logits[..., 25:, :] = 9.0  # outside the image
        return logits

    counts = counts_of(load_weights(small), way, item)
    assert (counts["tp"], counts["fp"], counts["fn"], counts["pixels"]) == (5, 1, 5, 600)


def test_an_onnx_file_of_other_weights_is_refused(small, monkeypatch):
    other = SimpleNamespace(info={"seed": 2}, mask_logits=None)
    monkeypatch.setattr("ismallnet.ways.open_network", lambda *_, **__: other)
    with pytest.raises(DataError, match=r"x.onnx: made from other weights than w.safetensors"):
        ways_of(load_weights(small), small, ["x.onnx"], torch.device("cpu"))


def test_onnx_files_run_on_each_backend(small, monkeypatch):
    opened = []

    def open_network(file, backend, amp):
        opened.append((file, backend, amp))
        if amp == "bf16":
            raise DataError("this processor does not compute with bf16")
        return SimpleNamespace(info={"seed": 1}, mask_logits=len(opened))

    monkeypatch.setattr("ismallnet.ways.open_network", open_network)
    ways = ways_of(load_weights(small), small, ["f/int8.onnx"], torch.device("cpu"))
    assert [*ways][3:] == ["onnxruntime, int8", "openvino, int8"] and len(opened) == 3


@pytest.mark.parametrize("argv", [["--rounds", "0"], ["--parts", "pipeline", "--dataset", "none"]])
def test_bad_arguments(argv, capsys):
    assert argv[-1] in fails(main, *argv, capsys=capsys)


@pytest.mark.parametrize("variant", ["full", "single", "plain"])
def test_all_ways_of_a_variant_give_the_same(variant):
    torch.manual_seed(0)
    model = iSmallNet(4, variant).eval()
    save_weights(model.state_dict(), {}, Path("w.safetensors"))
    x = torch.randn(1, 3, 32, 32)
    kept = load_weights("w.safetensors")  # rounded to fp16
    ways = ways_of(kept, Path("w.safetensors"), [], torch.device("cpu"))
    with torch.inference_mode():
        expected = kept(x).mask
        assert torch.allclose(ways["plain"](x), expected, atol=1e-4)
        assert torch.allclose(ways["default"](x), expected, atol=1e-4)
        assert torch.allclose(ways["bf16"](x).float(), expected, atol=0.02 * expected.abs().max())
