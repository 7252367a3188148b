from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import fails, write

import export
from export import main
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


def test_other_endings_and_values_beyond_fp16_are_refused(run, capsys):
    assert "ends in .safetensors" in fails(main, "--weights", run, "--output", "x.pt", capsys=capsys)
    state = iSmallNet(4).state_dict()
    state["mask_head.0.weight"][0, 0, 0, 0] = 1e5
    torch.save({"state_dict": state}, "large.pt")
    message = fails(main, "--weights", "large.pt", "--output", "x.safetensors", capsys=capsys)
    assert "large.pt: mask_head.0.weight holds values beyond fp16" in message
    assert not Path("x.safetensors").exists()


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("x.safetensors --precision fp16", "--precision"),
        ("x.safetensors --verify tiny", "--verify"),
        ("x.onnx --split a b --data-root d", "--data-root, --split"),
        ("x.onnx --verify tiny --tolerance 1", "0.5 points"),
        ("x.onnx --precision int8", "fp16"),
        ("x.onnx --calibrate tiny", "vendor"),
    ],
)
def test_a_flag_that_is_gone_or_has_no_effect_is_named(run, typed, named, capsys):
    output, *flags = typed.split()
    message = fails(main, "--weights", run, "--output", output, *flags, capsys=capsys)
    assert named in message and not Path(output).exists()


def test_files_that_cannot_be_exported_are_named(capsys):
    assert "a.onnx" in fails(main, "--weights", "a.onnx", "--output", "b.onnx", capsys=capsys)


def test_a_data_set_that_is_missing_is_named_before_the_export(run, monkeypatch, capsys):
    monkeypatch.setattr(export, "to_onnx", lambda _: pytest.fail("exported before the check"))
    argv = ["--weights", run, "--output", "x.onnx", "--verify", "none"]
    assert "none: no such data set" in fails(main, *argv, capsys=capsys)


# --- an export that loses too much -----------------------------------------------------------------


@pytest.fixture
def falls(monkeypatch, data):
    """An export whose IoU on the test list is 2 points below the network's, without ONNX."""
    about = []
    monkeypatch.setattr(export, "to_onnx", lambda model: b"raw")
    monkeypatch.setattr(export, "Exported", lambda raw, backend: None)
    monkeypatch.setattr(export, "with_notes", lambda raw, export: about.append(export) or raw)

    def metrics(model, frames, label):
        falls.frames = frames
        return dict.fromkeys(("iou", "niou", "pd", "fa"), 0.75 if label == "original" else 0.73)

    falls = SimpleNamespace(about=about, argv=["--output", "x.onnx", "--verify", "tiny", "--weights"])
    monkeypatch.setattr(export, "standard_metrics", metrics)
    return falls


def test_an_export_that_loses_more_than_half_a_point_is_not_written(run, falls, capsys):
    write(Path("x.onnx"), "an earlier one")
    assert main([*falls.argv, run]) == 1
    printed = capsys.readouterr()
    assert "x.onnx was not written" in printed.err and "75.00" in printed.out and "73.00" in printed.out
    assert Path("x.onnx").read_text() == "an earlier one"


def test_the_file_says_what_was_measured(run, falls, monkeypatch, capsys):
    monkeypatch.setattr(export, "TOLERANCE", 2.5)
    assert main([*falls.argv, run]) == 0
    assert Path("x.onnx").read_bytes() == b"raw"
    verified = falls.about[0]["verified"]
    assert falls.about[0]["precision"] == "fp32" and verified["dataset"] == "tiny"
    ious = [verified[key]["iou"] for key in ("original", "export")]
    assert verified["images"] == 2 and ious == [0.75, 0.73]
    assert "verified on tiny" in capsys.readouterr().out


def test_a_data_set_is_read_as_in_the_other_stages(run, falls, data, capsys):
    """Other lists, another threshold and another folder of masks."""
    (data / "masks").rename(data / "truth")
    write(data / "other/train.txt", "a\nb\nc\n")
    write(data / "other/test.txt", "d\n")
    reading = "--split other --mask-folder truth --mask-threshold 100"
    assert main([*falls.argv, run, *reading.split()]) == 1
    assert [sample.name for sample in falls.frames.samples] == ["d"] and falls.frames.threshold == 100
