from pathlib import Path

import pytest
import torch
from conftest import fails

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
    main(["--weights", run, "--output", "weights/tiny.safetensors"])
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
