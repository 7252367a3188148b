"""How high each output rises on fixed training crops: in the log, without a trace in the run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_set
from runs import RUN, equal, logged, run

from dataset import Frames
from ismallnet.checkpoints import read_checkpoint
from ismallnet.datasets.find import find_dataset
from ismallnet.labels import decouple_dataset
from ismallnet.training import watch
from ismallnet.training.watch import look_due, output_peaks, training_crops
from net import OUTPUTS, VARIANTS, iSmallNet


@pytest.fixture
def root(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny", names="abcdefgh", train=6)


def training_frames(root: Path) -> Frames:
    data = find_dataset(root.name)
    decouple_dataset(data)
    frames = Frames(data, "train")
    frames.add_maps(root)
    return frames


def test_it_looks_early_and_then_every_twentieth_of_the_run():
    looks = [step for step in range(1, 4001) if look_due(step, 4000)]
    assert looks == [25, 50, 100, *range(200, 4001, 200)]
    assert [step for step in range(1, 61) if look_due(step, 60)] == [20, 25, 40, 50, 60]


def test_the_crops_are_fixed_and_hold_a_target_each(root):
    frames = training_frames(root)
    crops, again, other = (training_crops([frames], 32, seed) for seed in (0, 0, 1))
    assert crops.image.shape == (6, 3, 32, 32)
    assert all(map(torch.equal, crops, again)) and not torch.equal(crops.image, other.image)
    assert crops.mask.amax((1, 2, 3)).tolist() == [1.0] * 6


def test_peaks_are_those_of_evaluation_mode_on_the_targets_of_the_crops_that_hold_one(root):
    crops, training = training_crops([training_frames(root)], 32, 0), True
    for plane in (crops.interior, crops.boundary, crops.mask):
        plane[2:] = 0
    for variant in VARIANTS:
        model = iSmallNet(2, variant).eval()
        with torch.no_grad():
            logits = model(model.normalise(crops.image))
        model.train(training := not training)
        peaks = output_peaks(model, crops)
        assert list(peaks) == [name for name in OUTPUTS if hasattr(model, f"{name}_head")]
        for name, peak in peaks.items():
            p, target = torch.sigmoid(getattr(logits, name)), getattr(crops, name)
            largest = [q[t > 0].max().item() for q, t in zip(p[:2], target[:2])]
            assert peak == pytest.approx((np.mean(largest), np.mean([t.max() for t in target[:2]])))
        assert all(module.training == training for module in model.modules())
    crops.mask[:] = 0
    assert "mask" not in output_peaks(model, crops)


# --- in a run --------------------------------------------------------------------------------------


def test_a_run_that_looks_has_the_weights_of_one_that_does_not(root, monkeypatch):
    run("--epochs", 7, "--variant", "full", "--width", 2, folder="with")  # it looks after 20 steps
    monkeypatch.setattr(watch, "look_due", lambda step, steps: False)
    run("--epochs", 7, "--variant", "full", "--width", 2, folder="without")
    both, alone = (read_checkpoint(f"runs/tiny/{name}/last.pt") for name in ("with", "without"))
    assert equal(both["state_dict"], alone["state_dict"])
    assert equal(both["training"]["model"], alone["training"]["model"])
    peaks = {name: logged("runs/tiny/with", f"outputs/{name}_peak") for name in OUTPUTS}
    assert all(list(values) == [20] for values in peaks.values())
    assert "on training crops" in Path("runs/tiny/with/log.txt").read_text()
    assert logged("runs/tiny/without", "outputs/mask_peak") == {}


@pytest.mark.parametrize("steps", [20, 30])
def test_an_output_that_does_not_learn_is_named_after_a_while(root, monkeypatch, steps):
    """A network that gives about 10⁻⁶ everywhere, and a learning rate that changes nothing."""
    monkeypatch.setattr(watch, "LEAST_STEPS", steps)
    run("--epochs", 7, "--prior", 1e-6, "--lr", 0)  # 21 steps: it looks after 20
    assert ("warning: the outputs mask" in (RUN / "log.txt").read_text()) == (steps == 20)
    assert list(logged(RUN, "outputs/mask_peak")) == [20]
