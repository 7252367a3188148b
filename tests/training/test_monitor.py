"""What each output gives on fixed training crops: by hand, in the log, without a trace in the run."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_set, write
from runs import RUN, equal, logged, run

from dataset import Frames
from ismallnet.checkpoints import read_checkpoint
from ismallnet.datasets.find import find_dataset
from ismallnet.labels import decouple_dataset
from ismallnet.training import monitor
from ismallnet.training.monitor import Monitor, OutputState, dead_outputs, output_state
from net import OUTPUTS, VARIANTS, iSmallNet


@pytest.fixture
def root(tmp_path) -> Path:
    return make_set(tmp_path / "data" / "tiny", names="abcdefgh", train=6)


@pytest.fixture
def frames(root) -> Frames:
    return training_frames(root)


def training_frames(root: Path) -> Frames:
    data = find_dataset(root.name)
    decouple_dataset(data)
    frames = Frames(data, "train")
    frames.add_maps(root)
    return frames


# --- by hand ---------------------------------------------------------------------------------------

# A soft map of peak 0.5 and an answer to it: 0.375 on the target, and two pixels from 0.25 up, of
# which one is one of the two true ones. A mask and an answer: 0.75, and one of its two pixels.
SOFT, TO_SOFT = [0, 0.25, 0.5, 0], [0.875, 0.125, 0.375, 0]
HARD, TO_HARD = [0, 0, 1, 1], [0.25, 0, 0.75, 0.25]


def crops(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).reshape(len(rows), 1, 1, 4)


def test_the_state_of_an_output_by_hand():
    assert output_state(crops(TO_SOFT), crops(SOFT)) == OutputState(0.375, 0.5, pytest.approx(1 / 3))
    assert output_state(crops(TO_HARD), crops(HARD)) == OutputState(0.75, 1.0, 0.5)


def test_it_is_the_mean_over_the_crops_that_hold_a_target():
    empty = [0.0] * 4
    state = output_state(crops(TO_SOFT, [1, 1, 1, 1], TO_HARD), crops(SOFT, empty, HARD))
    assert (state.peak, state.true_peak) == (0.5625, 0.75)
    assert state.iou == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert output_state(crops(TO_SOFT), crops(empty)) is None


def test_the_map_itself_has_its_peak_and_all_of_its_area():
    assert output_state(crops(SOFT), crops(SOFT)) == OutputState(0.5, 0.5, 1.0)


def test_a_state_reads_as_a_line():
    assert str(OutputState(0.0149, 0.14, 0.618)) == "peak 0.01 of 0.14, IoU 62"


@pytest.mark.parametrize("steps, first", [(150, 100), (1000, 100), (5000, 500)])
def test_outputs_are_called_dead_after_a_tenth_of_the_run_and_100_steps(steps, first):
    """Dead is less than a tenth of the true map's peak, whatever that peak is."""
    states = {
        "interior": OutputState(0.11, 1.0, 0.0),
        "boundary": OutputState(0.013, 0.14, 0.0),
        "mask": OutputState(0.09, 1.0, 0.0),
    }
    assert dead_outputs(states, first - 1, steps) == []
    assert dead_outputs(states, first, steps) == ["boundary", "mask"]
    assert dead_outputs(states, steps, steps) == ["boundary", "mask"]


def test_it_looks_early_and_then_every_twentieth_of_the_run():
    looks = [step for step in range(1, 4001) if Monitor.due(step, 4000)]
    assert looks == [25, 50, 100, *range(200, 4001, 200)]
    assert [step for step in range(1, 61) if Monitor.due(step, 60)] == [20, 25, 40, 50, 60]


# --- on a network ----------------------------------------------------------------------------------


def test_its_crops_are_fixed_and_hold_a_target_each(frames):
    one, again, other = (Monitor([frames], 32, seed) for seed in (0, 0, 1))
    assert one.images.shape == (6, 3, 32, 32)
    assert torch.equal(one.images, again.images)
    assert all(map(torch.equal, one.targets, again.targets))
    assert not torch.equal(one.images, other.images)
    assert one.targets.mask.amax((1, 2, 3)).tolist() == [1.0] * 6
    assert len(Monitor([frames], 32, 0, count=4).images) == 4


def test_its_states_are_those_of_the_network_in_evaluation_mode(frames):
    torch.manual_seed(0)
    model = iSmallNet(4).eval()
    look = Monitor([frames], 32, 0)
    with torch.no_grad():
        logits = model(model.normalise(look.images))
    states = look(model)
    for k, name in enumerate(OUTPUTS):
        expected = output_state(torch.sigmoid(logits[k]), look.targets[k])
        assert states[name] == expected
    assert look(model.train()) == states


@pytest.mark.parametrize("training", [True, False])
def test_it_leaves_the_network_and_the_random_numbers_as_they_were(frames, training):
    torch.manual_seed(0)
    model = iSmallNet(4).train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    Monitor([frames], 32, 0)(model)
    assert all(module.training == training for module in model.modules())
    assert equal(before, model.state_dict())  # with batch norm's statistics
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_looks_at_the_outputs_that_a_variant_has(frames, variant):
    model = iSmallNet(4, variant)
    expected = [name for name in OUTPUTS if hasattr(model, f"{name}_head")]
    assert list(Monitor([frames], 32, 0)(model)) == expected


def test_crops_without_target_give_no_state(root):
    for name in "abcdef":
        write(root / "masks" / f"{name}.png", np.zeros((40, 48), np.uint8))
    assert Monitor([training_frames(root)], 32, 0)(iSmallNet(4)) == {}


# --- in a run --------------------------------------------------------------------------------------


def test_a_run_with_it_has_the_weights_of_one_without(root, monkeypatch):
    run("--epochs", 9, folder="with")  # 27 steps: it looks after 20 and 25
    monkeypatch.setattr(Monitor, "due", staticmethod(lambda step, steps: False))
    run("--epochs", 9, folder="without")
    both, alone = (read_checkpoint(f"runs/tiny/{name}/last.pt") for name in ("with", "without"))
    assert equal(both["state_dict"], alone["state_dict"])
    assert equal(both["training"]["model"], alone["training"]["model"])
    assert torch.equal(both["training"]["rng"], alone["training"]["rng"])
    texts = [Path(f"runs/tiny/{name}/log.txt").read_text() for name in ("with", "without")]
    assert texts[0].count("on training crops") == 2 and "on training crops" not in texts[1]


STATE = r"peak (\d\.\d\d) of (\d\.\d\d), IoU (\d+)"


@pytest.mark.parametrize("loss", ["jaccard", "authors"])
def test_a_dead_output_is_seen_in_the_log_and_in_tensorboard(root, monkeypatch, loss):
    """Weights that never change, of a network that gives about 10⁻⁶ everywhere."""
    monkeypatch.setattr(monitor, "LEAST_STEPS", 20)
    run("--epochs", 7, "--lr", 0, "--prior", 1e-6, "--loss", loss)
    text = (RUN / "log.txt").read_text()
    lines = re.findall(r"step (\d+) on training crops \| (.*)", text)
    assert [step for step, _ in lines] == ["20"]
    states = dict(part.split(" ", 1) for part in lines[0][1].split("; "))
    assert list(states) == list(OUTPUTS)
    assert re.fullmatch(STATE, states["mask"]).groups() == ("0.00", "1.00", "0")
    assert re.fullmatch(STATE, states["boundary"]).groups() == ("0.00", "0.14", "0")
    for name in OUTPUTS:
        assert f"warning: the {name} output is nearly empty after 20 of 21 steps" in text
        assert logged(RUN, f"outputs/{name}_peak").keys() == {20}
        assert 0 < logged(RUN, f"outputs/{name}_peak")[20] < 0.01
        assert logged(RUN, f"outputs/{name}_IoU") == {20: 0.0}
    assert ("--lr, or --loss jaccard" in text) == (loss == "authors")  # not what the run has already


def test_outputs_that_learn_give_no_warning(root, monkeypatch):
    monkeypatch.setattr(monitor, "LEAST_STEPS", 20)
    run("--epochs", 9, "--lr", 1e-2, "--ema", 0.9)
    assert "warning" not in (RUN / "log.txt").read_text()
    peaks = {name: logged(RUN, f"outputs/{name}_peak") for name in OUTPUTS}
    assert all(list(values) == [20, 25] for values in peaks.values())
    assert peaks["mask"][25] > 0.5 and peaks["boundary"][25] > 0.1


def test_a_training_list_without_targets_is_not_looked_at(root):
    for name in "abcdef":
        write(root / "masks" / f"{name}.png", np.zeros((40, 48), np.uint8))
    decouple_dataset(find_dataset("tiny"))
    frames = Frames(find_dataset("tiny"), "train")
    frames.add_maps(root)
    assert Monitor([frames], 32, 0)(iSmallNet(2)) == {}
