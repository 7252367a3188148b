"""Several processes give the gradients of one, and end with a message."""

import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from ismallnet.distributed import Interruption
from ismallnet.training.muon import Muon
from net import iSmallNet, losses

BATCH = 6


def batch() -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(1)
    image = torch.randn(BATCH, 3, 32, 48, dtype=torch.float64)
    return image, [(torch.rand(BATCH, 1, 32, 48) > 0.9).double() for _ in range(3)]


def gradients(network: torch.nn.Module, model: iSmallNet, part: slice) -> list[torch.Tensor]:
    """Batch norm in evaluation mode: across processes its statistics exist on CUDA alone."""
    image, maps = batch()
    parts = losses(network(image[part]), tuple(m[part] for m in maps), "authors")
    sum(parts.values()).backward()
    return [p.grad for p in model.parameters()]


def first_model() -> iSmallNet:
    torch.manual_seed(0)
    return iSmallNet(2).double().eval()


def one_of(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    model = first_model()
    found = gradients(DistributedDataParallel(model), model, slice(rank, BATCH, world))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_gradients_are_those_of_one_process_on_the_whole_batch(world, tmp_path, tell):
    multiprocessing.spawn(one_of, (world, str(tmp_path)), world)
    model = first_model()
    expected = gradients(model, model, slice(None))
    largest = max(g.abs().max().item() for g in expected)
    worst = 0.0
    for rank in range(world):
        found = torch.load(Path(tmp_path) / f"{rank}.pt", weights_only=True)
        worst = max(worst, *((a - b).abs().max().item() for a, b in zip(found, expected, strict=True)))
    assert worst <= 1e-12 * largest
    tell(f"gradients of {world} gloo processes", f"largest difference {worst / largest:.0e}, relative")


def muon_steps(rank: int, world: int, folder: str) -> None:
    """Three steps of a process of its own on its share; the weights of one differ at first."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    torch.manual_seed(rank)
    model = iSmallNet(2).eval()
    network = DistributedDataParallel(model)  # sends the first process's weights to all
    optimizer = Muon(model, lr=1e-2, weight_decay=0.1)
    image, maps = batch()
    part = slice(rank, BATCH, world)
    for _ in range(3):
        optimizer.zero_grad()
        targets = tuple(m[part].float() for m in maps)
        sum(losses(network(image[part].float()), targets).values()).backward()
        optimizer.step()
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_processes_that_step_with_muon_keep_the_same_weights(tmp_path):
    multiprocessing.spawn(muon_steps, (2, str(tmp_path)), 2)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    torch.manual_seed(0)
    first = iSmallNet(2).state_dict()
    convolution = "interior.nodes.0_0.0.conv1.weight"
    assert not torch.equal(one[convolution], first[convolution])
    assert all(torch.equal(one[key], other[key]) for key in first)


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_does_not_cut_an_error_of_several_processes_short(processes):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
    try:
        with pytest.raises(ZeroDivisionError), Interruption(None, processes):
            1 / 0  # noqa: B018
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(heard) == (processes == 1)
        with Interruption(None, processes):
            pass
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
