"""One step of training: a batch -> the losses, and weights that are a little better."""

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ismallnet.datasets.sample import Item
from ismallnet.distributed import Processes
from ismallnet.inference.predict import autocast
from ismallnet.training.recipes import StepOptions
from ismallnet.training.run import State
from ismallnet.training.watch import TrainingError
from net import Outputs, losses, map_loss

WARM_UP = 3  # steps before the capture; libraries choose and allocate in them

Check = Callable[[str, float], None]  # (what, value): raises where it is not finite


class Step:
    """Takes one step after another.

    Args:
        state: what the steps change.
        network: that computes: the state's model, compiled or of several processes.
        check: is given the loss and the gradient's norm.
    """

    def __init__(
        self,
        state: State,
        network: nn.Module,
        options: StepOptions,
        processes: Processes,
        check: Check,
    ):
        self.state, self.network, self.options = state, network, options
        self.processes, self.check = processes, check

    def __call__(self, batch: Item) -> dict[str, float]:
        """(N, 3, S, S) images and (N, 1, S, S) maps -> each output's loss. The step is not counted.

        Raises:
            TrainingError: a loss or the gradient is not finite; without graphs the weights are those
                before the step.
        """
        self.set_rate(self.options.rate(self.state.step))
        parts, norm = self.gradient([x.to(self.processes.device, non_blocking=True) for x in batch])
        values = self.checked(parts, norm)
        self.state.scaler.step(self.state.optimizer)
        self.state.scaler.update()
        if self.state.ema:
            self.state.ema.update_parameters(self.state.model)
        return values

    def set_rate(self, lr: float | Tensor) -> None:
        for group in self.state.optimizer.param_groups:
            group["lr"] = lr

    def gradient(self, batch: list[Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """The losses, and the norm of their gradient before it was clipped."""
        image, mask, interior, boundary = batch
        model, optimizer, scaler = self.state.model, self.state.optimizer, self.state.scaler
        taught = self.options.teacher(image) if self.options.teacher else None
        image = model.normalise(image).contiguous(memory_format=torch.channels_last)
        with self.processes.collective(), autocast(self.processes.device, self.options.amp):
            outputs = self.network(image)
        parts = losses(outputs, Outputs(interior, boundary, mask), self.options.loss)
        if taught is not None:
            parts["teacher"] = map_loss(outputs.mask.float(), taught, self.options.loss)
        optimizer.zero_grad(set_to_none=True)
        with self.processes.collective():
            scaler.scale(sum(parts.values())).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), self.options.clip or math.inf)
        return {name: value.detach() for name, value in parts.items()}, norm

    def checked(self, parts: dict[str, Tensor], norm: Tensor) -> dict[str, float]:
        values = dict(zip(parts, torch.stack(list(parts.values())).tolist()))
        self.check("loss", sum(values.values()))
        if not self.state.scaler.is_enabled():  # which skips such steps by itself
            self.check("gradient", float(norm))
        return values


class GraphedStep(Step):
    """The same steps on CUDA, each the replay of a captured graph: a step is thousands of small
    kernels, and to start them one by one takes longer than they do. What changes from step to step,
    the learning rate and the weight of the moving average, is in tensors.

    A loss or gradient that is not finite is found after the step: what was saved before it is good.
    (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs)
    """

    def __init__(self, *args):
        super().__init__(*args)
        device = self.processes.device
        self.rate, self.weight = torch.zeros(2, device=device).unbind()
        self.stream = torch.cuda.Stream(device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: list[Tensor] = []  # the graph's input; another shape needs another graph
        self.taken = 0  # steps of this shape
        self.result: tuple[dict[str, Tensor], Tensor] = ({}, torch.tensor(0.0))
        for group in self.state.optimizer.param_groups:
            group["capturable"] = True
        for kept in self.state.optimizer.state.values():  # of a run that is resumed
            if "step" in kept:
                kept["step"] = kept["step"].to(device)
        self.set_rate(self.rate)

    def __call__(self, batch: Item) -> dict[str, float]:
        step, ema = self.state.step, self.state.ema
        if [x.shape for x in batch] != [x.shape for x in self.batch]:
            self.graph, self.taken = None, 0
            self.batch = [torch.empty_like(x, device=self.processes.device) for x in batch]
        for mine, given in zip(self.batch, batch):
            mine.copy_(given, non_blocking=True)
        self.rate.fill_(self.options.rate(step))
        self.weight.fill_(ema.weight(step) if ema else 0)
        if not self.graph and self.taken == WARM_UP:
            self.capture()
        if self.graph:
            self.graph.replay()
        else:
            with self.aside():
                self.result = self.whole()
        self.taken += 1
        if ema:
            ema.n_averaged.add_(1)
        return self.checked(*self.result)

    def whole(self) -> tuple[dict[str, Tensor], Tensor]:
        result = self.gradient(self.batch)
        self.state.optimizer.step()
        if self.state.ema:
            self.state.ema.blend(self.state.model, self.weight)
        return result

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """On a stream of its own, as a capture asks of the steps before it."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream().wait_stream(self.stream)

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


def steps_of(
    state: State, options: StepOptions, processes: Processes, varied: bool, check: Check
) -> Step:
    """As graphs where they can be: on one GPU, in bf16 or float32, and images of one size.

    Args:
        varied: the images' size changes from step to step.
    """
    network = processes.parallel(torch.compile(state.model) if options.compile else state.model)
    graphs = options.graphs and processes.device.type == "cuda" and processes.world == 1
    adaptive = not isinstance(state.optimizer, torch.optim.SGD)  # which takes no rate from a tensor
    whole = not (options.compile or varied or state.scaler.is_enabled())
    kind = GraphedStep if graphs and adaptive and whole else Step
    return kind(state, network, options, processes, check)
