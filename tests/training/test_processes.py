"""Several processes give the gradients of one, and end with a message."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import make_set
from runs import REPOSITORY, RUN, TINY, free_port, torchrun
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

import train
from ismallnet.datasets import lists
from ismallnet.distributed import Interruption, PeerError, Processes
from ismallnet.files import atomic_write
from net import iSmallNet, losses

BATCH = 6


def start(function, world: int, *args) -> None:
    """Calls a function with the rank and these arguments in several processes."""
    multiprocessing.start_processes(function, args, world, start_method="forkserver")


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


def test_gradients_are_those_of_one_process_on_the_whole_batch(tmp_path, tell):
    world = 3
    start(one_of, world, world, str(tmp_path))
    model = first_model()
    expected = gradients(model, model, slice(None))
    largest = max(g.abs().max().item() for g in expected)
    worst = 0.0
    for rank in range(world):
        found = torch.load(Path(tmp_path) / f"{rank}.pt", weights_only=True)
        worst = max(worst, *((a - b).abs().max().item() for a, b in zip(found, expected, strict=True)))
    assert worst <= 1e-12 * largest
    tell(f"gradients of {world} gloo processes", f"largest difference {worst / largest:.0e}, relative")


def split_by(rank: int, world: int, folder: str) -> None:
    """One of several trainings on a data set without lists; writing one takes a while."""
    os.chdir(folder)
    torch.set_num_threads(1)
    os.environ |= torchrun(rank, world, Path("port").read_text())

    @contextlib.contextmanager
    def slowly(path):
        with atomic_write(path) as file:
            yield file
        time.sleep(0.05)

    lists.atomic_write = slowly
    assert train.main([*TINY, "--run-name", "x", "--epochs", "1"]) == 0


def test_the_first_process_makes_the_split_before_the_others_look(tmp_path):
    root = make_set(tmp_path / "data" / "tiny", names="abcdefgh")
    shutil.rmtree(root / "50_50")
    Path("port").write_text(free_port())
    start(split_by, 2, 2, str(tmp_path))
    assert (RUN / "metrics.json").exists()
    assert len((root / "50_50" / "train.txt").read_text().split()) == 4


def alone(rank: int, folder: str, port: str) -> None:
    """Of two processes the second leaves, the first waits for it."""
    os.environ |= torchrun(rank, 2, port)
    processes = Processes("cpu")
    assert processes.first(lambda: rank) == rank
    network = processes.parallel(torch.nn.Linear(2, 1))
    if rank:
        os._exit(0)
    for together in (processes.barrier, lambda: processes.gather([1]), lambda: processes.any(True)):
        with pytest.raises(PeerError, match="another process has ended"):
            together()
    with pytest.raises(PeerError), processes.collective():
        network(torch.ones(1, 2)).sum().backward()
    with pytest.raises(torch.OutOfMemoryError), processes.collective():
        raise torch.OutOfMemoryError("that is no peer's fault")
    Path(folder, "done").touch()
    os._exit(0)


def test_a_process_whose_peer_is_gone_says_so(tmp_path):
    start(alone, 2, str(tmp_path), free_port())
    assert (tmp_path / "done").exists()


def test_an_error_is_printed_before_the_group_is_taken_down(monkeypatch):
    """With NCCL that may wait for the others for ever."""
    calls = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("destroy"))
    with pytest.raises(ZeroDivisionError), Processes("cpu"):
        1 / 0  # noqa: B018
    assert not calls
    with Processes("cpu"):
        pass
    assert calls == ["destroy"]


def test_of_several_processes_one_that_fails_ends_at_once():
    """When its message is out, whatever would be waited for at the end of the program."""
    program = "import atexit, sys, time\nsys.path.insert(0, sys.argv[1])\n"
    program += "from ismallnet.distributed import run_script\natexit.register(time.sleep, 600)\n"
    program += "def main():\n  print('the message')\n  1 / 0\nrun_script(main)"
    command = [sys.executable, "-c", program, str(REPOSITORY)]
    environment = os.environ | {"RANK": "0", "WORLD_SIZE": "2"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 1 and "the message" in done.stdout and "ZeroDivision" in done.stderr


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
