import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fails, write

import export
from export import main, parse
from ismallnet.evaluation.intervals import FIGURES
from ismallnet.inference import comparison
from ismallnet.inference.comparison import Comparison, compare
from net import iSmallNet, load_weights


@pytest.fixture
def run(tmp_path) -> str:
    torch.manual_seed(0)
    info = {"dataset": ["tiny"], "seed": 3, "figures": {"tiny": {"iou": 0.75}}}
    content = {"state_dict": iSmallNet(4, "unet").state_dict(), "info": info, "training": {"step": 9}}
    torch.save(content, "last.pt")
    return "last.pt"


def test_a_run_becomes_a_weights_file(run, capsys):
    assert main(["--weights", run, "--output", "weights/tiny.safetensors"]) == 0
    assert "weights/tiny.safetensors: 1.1 MiB" in capsys.readouterr().out
    model, before = load_weights("weights/tiny.safetensors"), load_weights(run)
    assert model.variant == "unet" and model.info == before.info
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        difference = torch.sigmoid(model(x)[2]) - torch.sigmoid(before(x)[2])
    assert 0 < difference.abs().max() < 0.01


def test_the_source_is_not_replaced(run, capsys):
    main(["--weights", run, "--output", "tiny.safetensors"])
    before = Path("tiny.safetensors").read_bytes()
    message = fails(
        main, "--weights", "tiny.safetensors", "--output", "./tiny.safetensors", capsys=capsys
    )
    assert "is the file that is exported; expected another name" in message
    assert Path("tiny.safetensors").read_bytes() == before


def test_other_endings_and_values_beyond_fp16_are_refused(run, capsys):
    assert "ends in .safetensors" in fails(main, "--weights", run, "--output", "x.pt", capsys=capsys)
    state = iSmallNet(4).state_dict()
    state["mask_head.0.weight"][0, 0, 0, 0] = 1e5
    torch.save({"state_dict": state}, "large.pt")
    message = fails(main, "--weights", "large.pt", "--output", "x.safetensors", capsys=capsys)
    assert "large.pt: mask_head.0.weight holds values beyond fp16" in message
    assert not Path("x.safetensors").exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("x.safetensors --precision fp16", "--precision: has no effect without a name X.onnx"),
        ("x.safetensors --verify tiny", "--verify: has no effect without a name X.onnx"),
        ("x.onnx --calibrate tiny", "--calibrate: has no effect without --precision int8"),
        (
            "x.onnx --precision fp16 --calibrate-images 4",
            "--calibrate-images: has no effect without --precision int8",
        ),
        (
            "x.onnx --tolerance 1 --data-root d",
            "--tolerance, --data-root: has no effect without --verify or --precision int8",
        ),
        ("x.onnx --precision int8", "needs training images: type --calibrate NAME"),
        (
            "x.onnx --precision int8 --calibrate tiny --calibrate-images 0",
            "found 0, expected a whole number of 1 or",
        ),
        ("x.onnx --verify tiny --tolerance -1", "--tolerance: found -1, expected 0 or more"),
        ("x.onnx --verify tiny --tolerance nan", "--tolerance: found nan, expected 0 or more"),
        ("x.onnx --split a b", "--split: has no effect without --verify or --precision int8"),
    ],
)
def test_a_flag_that_is_missing_or_has_no_effect(run, typed, message, capsys):
    output, *flags = typed.split()
    found = fails(main, "--weights", run, "--output", output, *flags, capsys=capsys)
    assert message in found and not Path(output).exists()


def test_the_default_precision_is_float32():
    assert parse(["--weights", "a.pt", "--output", "a.onnx"]).precision == "fp32"
    argv = ["--weights", "a.pt", "--output", "a.onnx", "--precision", "int8", "--calibrate", "tiny"]
    assert parse(argv).tolerance == 0.5


def test_an_onnx_file_is_not_exported_again(capsys):
    message = fails(main, "--weights", "a.onnx", "--output", "b.onnx", capsys=capsys)
    assert "a.onnx: an ONNX file; expected the weights that it was made of" in message


def test_a_data_set_that_is_missing_is_named_before_the_export(run, monkeypatch, capsys):
    monkeypatch.setattr(export, "to_onnx", lambda _: pytest.fail("exported before the check"))
    argv = ["--weights", run, "--output", "x.onnx", "--verify", "none"]
    assert "none: no such data set" in fails(main, *argv, capsys=capsys)


# --- two networks on the same images ---------------------------------------------------------------


class FakeFrames(list):
    """Masks only: what a fake network is run on."""


def maps(*hits: int) -> list:
    """Four images of 100 px with a target of 10; a network that predicts `hits` of its pixels in
    each."""
    rows = []
    for i, hit in enumerate(hits):
        mask, pred = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
        mask[4] = 255
        pred[4, :hit] = 255
        rows.append((i, pred, mask))
    return rows


@pytest.fixture
def fake(monkeypatch):
    """`compare` of two networks that are lists of `maps`."""
    monkeypatch.setattr(comparison, "infer", lambda model, frames, amp: iter(model))
    monkeypatch.setattr(comparison, "prepared", lambda model: model)

    def run(first: list, second: list) -> Comparison:
        return compare(first, second, FakeFrames(first), ("original", "int8"))

    return run


def test_the_figures_of_both_networks_and_their_difference(fake):
    found = fake(maps(10, 10, 10, 10), maps(10, 8, 10, 10))
    assert found.figures[0]["iou"] == 1 and found.figures[1]["iou"] == 38 / 40
    assert found.points == pytest.approx(-5)
    assert tuple(found.figures[0]) == FIGURES and found.figures[1]["pd"] == 1
    assert found.figures[0]["hiou"] == 1 and found.figures[1]["hiou"] == pytest.approx(0.95)
    gap = found.differences["iou"]
    assert gap.value == pytest.approx(-0.05) and gap.low < -0.05 < gap.high == 0
    text = found.text()
    assert "95.00" in text and "int8 - original  -5.00 (" in text


def test_the_same_network_twice_has_no_difference(fake):
    found = fake(maps(10, 7, 0, 3), maps(10, 7, 0, 3))
    assert found.points == 0 and found.differences["iou"].low == found.differences["iou"].high == 0


# --- an export that loses too much -----------------------------------------------------------------


@pytest.fixture
def falls(monkeypatch, data):
    """An export whose IoU on the test list is 2 points below the network's, without ONNX."""
    figures = [dict.fromkeys(FIGURES, value) for value in (0.75, 0.73)]
    found = Comparison(("original", "fp32"), tuple(figures), dict.fromkeys(FIGURES))
    monkeypatch.setattr(export, "to_onnx", lambda model: b"raw")
    monkeypatch.setattr(export, "Exported", lambda raw, backend: None)
    monkeypatch.setattr(export, "compare", lambda *_: found)
    monkeypatch.setattr(export, "with_notes", lambda raw, **notes: json.dumps(notes).encode())
    Path("x.onnx").write_text("an earlier one")
    return ["--output", "x.onnx", "--verify", "tiny", "--weights"]


def test_an_export_that_loses_more_than_the_tolerance_is_not_written(run, falls, capsys):
    assert main([*falls, run]) == 1
    printed = capsys.readouterr()
    assert "IoU falls by 2.00 points, expected 0.5 at most; x.onnx was not written" in printed.err
    assert "75.00" in printed.out and "73.00" in printed.out
    assert Path("x.onnx").read_text() == "an earlier one"


def test_a_larger_tolerance_accepts_it_and_the_file_says_what_was_found(run, falls, capsys):
    assert main([*falls, run, "--tolerance", "2.5"]) == 0
    notes = json.loads(Path("x.onnx").read_text())["export"]
    assert notes["precision"] == "fp32" and notes["verified"]["images"] == 2
    assert notes["verified"]["dataset"] == "tiny"
    assert notes["verified"]["original"]["iou"] == 0.75 and notes["verified"]["export"]["iou"] == 0.73
    assert "verified on tiny" in capsys.readouterr().out


def test_a_data_set_is_read_as_in_the_other_stages(run, falls, data, monkeypatch, capsys):
    """Other lists, another threshold and another folder of masks."""
    compared, loses = [], export.compare
    monkeypatch.setattr(export, "compare", lambda *given: compared.append(given[2]) or loses())
    (data / "masks").rename(data / "truth")
    write(data / "other/train.txt", "a\nb\nc\n")
    write(data / "other/test.txt", "d\n")
    reading = "--split other --mask-folder truth --mask-threshold 100"
    assert main([*falls, run, *reading.split()]) == 1
    assert [sample.name for sample in compared[0].samples] == ["d"] and compared[0].threshold == 100
    assert "masks in truth/" in capsys.readouterr().out
