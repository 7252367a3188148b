import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import fails, make_set

import benchmark
from benchmark import in_turn, main, most_memory, network, table, unmatched
from ismallnet.checkpoints import save_weights
from net import iSmallNet


def test_ways_are_run_in_turn_and_compared_with_the_first():
    calls = []
    ways = {name: lambda name=name: calls.append(name) for name in ("plain", "other")}
    rows = in_turn(ways, 3, torch.device("cpu"))
    assert calls == ["plain", "other"] * 4  # one round to warm up
    assert [row["way"] for row in rows] == ["plain", "other"] and rows[0]["ratio"] == 1.0
    assert rows[1]["least"] <= rows[1]["ratio"] <= rows[1]["most"]


def test_the_network_under_test_gives_logits_of_ordinary_size():
    with torch.inference_mode():
        logits = network(4)(torch.randn(1, 3, 64, 64))[2]
    assert 0.1 < logits.abs().max() < 100


def test_a_table_has_all_keys_of_its_rows():
    text = table([{"a": 1, "b": 0.123456}, {"a": "x", "c": 2.0}])
    assert text == "| a | b | c |\n| --- | --- | --- |\n| 1 | 0.1235 |  |\n| x |  | 2 |\n"


def test_unmatched_targets_by_hand():
    a, b, c = (SimpleNamespace(x=x, y=y) for x, y in ((0, 0), (0, 2.9), (3, 0)))
    assert unmatched([a], [b]) == 0 and unmatched([a], [c]) == 1 and unmatched([a, b], []) == 2


def test_parts_write_their_tables(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "SIDE", 32)
    monkeypatch.setattr(benchmark, "network", lambda width=16: network(2))
    main(["--parts", "training", "--rounds", "1", "--device", "cpu"])
    found = json.loads(Path("results/benchmark.json").read_text())
    assert [row["way"] for row in found["training"]] == ["plain", "ours", "ours, bf16"]
    assert found["environment"]["torch"] and "| plain |" in capsys.readouterr().out


def test_smaller_networks_are_timed_beside_the_full_one_on_frames_of_several_sizes(monkeypatch):
    monkeypatch.setattr(benchmark, "FRAMES", ((32, 32), (32, 48)))
    main(["--parts", "light", "--rounds", "1", "--device", "cpu"])
    rows = json.loads(Path("results/benchmark.json").read_text())["light"]
    names = ["full, width 16", "full, width 8", "single, width 8", "single, width 6"]
    assert [row["way"] for row in rows] == 2 * names
    assert [row["frame"] for row in rows] == 4 * ["32x32"] + 4 * ["48x32"]
    for full, smallest in ((rows[0], rows[3]), (rows[4], rows[7])):
        assert full["ratio"] == 1
        assert smallest["ratio"] == pytest.approx(full["seconds"] / smallest["seconds"])
        assert smallest["a second"] == pytest.approx(1 / smallest["seconds"])


@pytest.mark.parametrize("batch", [1, 2])
def test_the_first_call_which_loads_and_compiles_is_not_timed(monkeypatch, batch):
    save_weights(iSmallNet(1).state_dict(), {}, Path("w.safetensors"))
    monkeypatch.setattr(benchmark, "WARM_SECONDS", 0.0)
    calls = []

    def predict(*_, **__):
        calls.append(batch)
        time.sleep(0.5 if len(calls) == 1 else 0)

    monkeypatch.setattr(benchmark, "predict_frame" if batch == 1 else "predict", predict)
    assert benchmark.peak(32, 32, batch, "w.safetensors")[0] < 0.4 and len(calls) == 2


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
        "files just written",
        "files written and renamed",
    ]
    assert all(row["masks a second"] == pytest.approx(4 / row["seconds"]) for row in rows)
    assert {path: path.read_bytes() for path in data.rglob("*.*")} == before  # nothing lands in the set


def test_a_process_does_not_count_the_memory_of_the_one_that_started_it():
    save_weights(iSmallNet(1).state_dict(), {}, Path("w.safetensors"))
    held = torch.ones(400 * 2**18)  # 400 MiB more than a process of its own needs
    mib = benchmark.alone(32, 32, 1, "w.safetensors")[1]
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


@pytest.mark.parametrize("argv", [["--rounds", "0"], ["--parts", "pipeline", "--dataset", "none"]])
def test_bad_arguments(argv, capsys):
    assert argv[-1] in fails(main, *argv, capsys=capsys)
