"""Training steps on CUDA as replays of a captured graph."""

from collections.abc import Callable

import torch
from torch import Tensor

from ismallnet.distributed import Processes
from ismallnet.training.run import State
from ismallnet.training.watch import TrainingError

WARM_UP = 3  # steps before the capture; libraries choose and allocate in them


def can_be_captured(state: State, processes: Processes, varied: bool) -> bool:
    """Whether steps can be graphs: on one GPU, in bf16 or float32, and images of one size.

    Args:
        varied: the images' size changes from step to step.
    """
    alone = processes.device.type == "cuda" and processes.world == 1
    adaptive = not isinstance(state.optimizer, torch.optim.SGD)  # which takes no rate from a tensor
    return alone and adaptive and not (varied or state.scaler.is_enabled())


class GraphedStep:
    """A step as a replay: a step is thousands of small kernels, and to start them one by one takes
    longer than they do. The learning rate and the weight of the moving average are in tensors. A loss
    or gradient that is not finite is noticed after the step: what was saved before it is good.
    (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs)

    Args:
        state: what the steps change.
        step: (batch, rate, weight of the average, check) -> what check gives, as `train.step`.
    """

    def __init__(self, state: State, step: Callable, device: torch.device):
        self.state, self.step, self.device = state, step, device
        self.rate, self.weight = torch.zeros(2, device=device).unbind()
        self.stream = torch.cuda.Stream(device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: list[Tensor] = []  # the graph's input; another shape needs another graph
        self.taken = 0  # steps of this shape
        self.result: tuple[dict[str, Tensor], Tensor] = ({}, torch.tensor(0.0))
        for group in state.optimizer.param_groups:
            group["capturable"] = True
        for kept in state.optimizer.state.values():  # of a run that is resumed
            if "step" in kept:
                kept["step"] = kept["step"].to(device)

    def __call__(self, batch: list[Tensor], rate: float, weight: float, check: Callable) -> dict:
        if [x.shape for x in batch] != [x.shape for x in self.batch]:
            self.graph, self.taken = None, 0
            self.batch = [torch.empty_like(x, device=self.device) for x in batch]
        for mine, given in zip(self.batch, batch):
            mine.copy_(given, non_blocking=True)
        self.rate.fill_(rate)
        self.weight.fill_(weight)
        if not self.graph and self.taken == WARM_UP:
            self.capture()
        if self.graph:
            self.graph.replay()
        else:
            # CUDA graphs need their warm-up steps on a side stream.
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.result = self.whole()
            torch.cuda.current_stream().wait_stream(self.stream)
        self.taken += 1
        return check(*self.result)

    def whole(self) -> tuple[dict[str, Tensor], Tensor]:
        """All of a step, on the device; it is checked afterwards."""
        return self.step(self.batch, self.rate, self.weight, lambda losses, norm: (losses, norm))

    def capture(self) -> None:
        self.state.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.result = self.whole()
        except RuntimeError as error:  # out of memory, or something that no graph can hold
            reason = str(error).strip().splitlines()[0]
            raise TrainingError(
                f"step {self.state.step + 1} cannot be captured as a CUDA graph ({reason}); add "
                "--no-graphs, and continue what was saved with --resume"
            ) from error
        self.graph = graph
