"""A training step: when it is replayed as a graph, and what the two kinds share."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import ismallnet.training.graphs as module
from ismallnet.training.graphs import GraphedStep, can_be_captured
from ismallnet.training.recipes import MovingAverage, make_optimizer
from ismallnet.training.run import State
from ismallnet.training.watch import TrainingError
from net import iSmallNet


def state(optimizer: str = "muon", fp16: bool = False) -> State:
    torch.manual_seed(0)
    model = iSmallNet(2, "plain")
    scaler = SimpleNamespace(is_enabled=lambda: fp16)
    return State(model, make_optimizer(model, optimizer, 1e-3, 1e-2), None, scaler, 10, {})


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
    ],
)
def test_steps_are_graphs_where_they_can_be(changes, graphed):
    c = {"device": "cuda", "world": 1, "optimizer": "muon", "fp16": False, "varied": False} | changes
    processes = SimpleNamespace(device=torch.device(c["device"]), world=c["world"])
    assert can_be_captured(state(c["optimizer"], c["fp16"]), processes, c["varied"]) == graphed


def test_a_capture_that_fails_says_what_to_type(monkeypatch):
    @contextlib.contextmanager
    def no_memory(*_, **__):
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")
        yield

    monkeypatch.setattr(module.torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(module.torch.cuda, "graph", no_memory)
    step = object.__new__(GraphedStep)
    step.state, step.stream, step.graph = state(), None, None
    with pytest.raises(TrainingError, match=r"step 1 .*--no-graphs.*--resume"):
        step.capture()
    assert step.graph is None


def test_the_average_moves_alike_by_a_number_and_by_a_weight_in_a_tensor():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    ours, theirs = MovingAverage(model, 0.998), MovingAverage(model, 0.998)
    for _ in range(5):
        for p in model.parameters():
            p.data.add_(torch.randn_like(p))
        model(torch.randn(2, 1, 8, 8))  # moves the batch norm's statistics
        theirs.update(model, theirs.next_weight())
        ours.update(model, torch.tensor(ours.next_weight()))
        pairs = zip(ours.module.state_dict().values(), theirs.module.state_dict().values())
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)
    assert ours.module[1].num_batches_tracked == 5


def test_moving_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    average = MovingAverage(model, 0.5)
    values = []
    for value in (1.0, 2.0, 4.0):
        nn.init.constant_(model.weight, value)
        average.update(model, average.next_weight())
        values.append(average.module.weight.item())
    # the first is copied; then decay min(0.5, (1 + n) / (10 + n)) for n = 1, 2
    second = 1 + (1 - 2 / 11) * (2 - 1)
    assert values == pytest.approx([1, second, second + (1 - 3 / 12) * (4 - second)])
    average.count = 10_000
    assert average.next_weight() == 0.5


def test_a_checkpoint_holds_no_trace_of_graphs():
    """So that it is resumed where there are none: rates are numbers, and nothing is "capturable"."""
    run = state("adamw")
    run.scaler = torch.amp.GradScaler("cpu", enabled=False)
    rate = torch.tensor(0.25)
    for group in run.optimizer.param_groups:
        group.update(lr=rate, capturable=True)
    for group in run.training()["optimizer"]["param_groups"]:
        assert group["lr"] == 0.25 and isinstance(group["lr"], float) and group["capturable"] is False
    for group in run.optimizer.param_groups:  # which continue as they were
        assert group["lr"] is rate and group["capturable"] is True
