"""A training step: which kind is taken, and what the two kinds share."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import ismallnet.training.graphs as module
from ismallnet.training.graphs import GraphedStep, Step, steps_of
from ismallnet.training.recipes import MovingAverage, StepOptions, make_optimizer
from ismallnet.training.run import State
from ismallnet.training.watch import TrainingError
from net import iSmallNet


def state(optimizer: str = "muon", fp16: bool = False) -> State:
    torch.manual_seed(0)
    model = iSmallNet(2, "plain")
    scaler = SimpleNamespace(is_enabled=lambda: fp16)
    return State(model, make_optimizer(model, optimizer, 1e-3, 1e-2), None, scaler, 10)


@pytest.mark.parametrize(
    "changes, graphed",
    [
        ({}, True),
        ({"optimizer": "adamw"}, True),
        ({"device": "cpu"}, False),
        ({"world": 2}, False),
        ({"optimizer": "sgd"}, False),  # takes no learning rate from a tensor
        ({"fp16": True}, False),  # its scaler decides on the CPU
        ({"varied": True}, False),  # sizes
        ({"compile": True}, False),
        ({"graphs": False}, False),
    ],
)
def test_steps_are_graphs_where_they_can_be(monkeypatch, changes, graphed):
    monkeypatch.setattr(module.GraphedStep, "__init__", lambda self, *_: None)
    monkeypatch.setattr(module.torch, "compile", lambda model: model)
    c = {"device": "cuda", "world": 1, "optimizer": "muon", "fp16": False, "varied": False} | changes
    processes = SimpleNamespace(
        device=torch.device(c["device"]), world=c["world"], parallel=lambda model: model
    )
    options = {key: c[key] for key in ("compile", "graphs") if key in c}
    step = steps_of(
        state(c["optimizer"], c["fp16"]), StepOptions(float, **options), processes, c["varied"], print
    )
    assert type(step) is (GraphedStep if graphed else Step)


def test_a_capture_that_fails_says_what_to_type(monkeypatch):
    @contextlib.contextmanager
    def no_memory(*_, **__):
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")
        yield

    monkeypatch.setattr(module.torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(module.torch.cuda, "graph", no_memory)
    step = object.__new__(GraphedStep)
    step.state, step.stream, step.graph = state(), None, None
    with pytest.raises(
        TrainingError, match=r"step 1 .*\(CUDA out of memory\.\).*--no-graphs.*--resume"
    ):
        step.capture()
    assert step.graph is None


@pytest.mark.parametrize("decay", [0.5, 0.998])
def test_a_blend_is_an_update_with_a_weight_in_a_tensor(decay):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    ours, theirs = MovingAverage(model, decay), MovingAverage(model, decay)
    for count in range(25):
        for p in model.parameters():
            p.data.add_(torch.randn_like(p))
        model(torch.randn(2, 1, 8, 8))  # moves the batch norm's statistics
        theirs.update_parameters(model)
        ours.blend(model, torch.tensor(ours.weight(count)))
        pairs = list(zip(ours.module.state_dict().values(), theirs.module.state_dict().values()))
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)
    assert ours.module[1].num_batches_tracked == 25


def test_the_average_is_the_first_network_and_then_warms_up():
    average = MovingAverage(nn.Linear(1, 1), 0.9)
    assert average.weight(0) == 1
    assert average.weight(1) == pytest.approx(9 / 11)
    assert average.weight(10_000) == pytest.approx(0.1)


def test_a_checkpoint_holds_no_trace_of_graphs():
    """So that it goes on where there are none: rates are numbers, and nothing is "capturable"."""
    one = state("adamw", fp16=False)
    one.scaler = torch.amp.GradScaler("cpu", enabled=False)
    rate = torch.tensor(0.25)
    for group in one.optimizer.param_groups:
        group.update(lr=rate, capturable=True)
    for group in one.training()["optimizer"]["param_groups"]:
        assert group["lr"] == 0.25 and isinstance(group["lr"], float) and group["capturable"] is False
    for group in one.optimizer.param_groups:  # which go on as they were
        assert group["lr"] is rate and group["capturable"] is True
