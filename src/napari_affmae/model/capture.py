"""A training step as one CUDA graph.

Thousands of small launches keep a GPU waiting, hundreds of them to cast weights.
Two means against that, each usable without the other: `Copies` casts all weights
to 16 bits at once; `Captured` records a forward pass, `CapturedStep` forward and
backward pass, to be replayed.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from napari_affmae.model.parts.layers import Linear

# Weights with fewer numbers an output are read by the kernels, in float32.
_LEAST_INPUTS = 8
_WARM_UP = 2
# CUDA allows one recording at a time.
_recording = threading.Lock()

T = TypeVar("T")


class Copies(nn.Module):
    """A network that computes with 16-bit copies of its weights, all cast at once.

    For use under autocast, which else casts each weight by itself, in hundreds
    of launches.

    Parameters
    ----------
    model : nn.Module
        With float32 weights, which get the gradients.
    dtype : torch.dtype
        That of autocast.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype
        self._layers = [
            module
            for module in model.modules()
            if isinstance(module, Linear) and module.in_features >= _LEAST_INPUTS
        ]

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Call the network."""
        parameters = [p.detach() for layer in self._layers for p in (layer.weight, layer.bias)]
        copies = [torch.empty_like(p, dtype=self.dtype) for p in parameters]
        if copies:
            torch._foreach_copy_(copies, parameters)
        for layer, weight, bias in zip(self._layers, copies[::2], copies[1::2], strict=True):
            layer.copies = weight, bias
        try:
            return self.model(*inputs, **options)
        finally:
            for layer in self._layers:
                layer.copies = None


class CaptureError(Exception):
    """Work that runs on a GPU cannot be recorded, for instance because it waits for the GPU."""


class GraphMemory:
    """Memory that recordings share, of which one is replayed at a time.

    Parameters
    ----------
    device : torch.device
        The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        # Memory that one stream has freed only the same one takes again.
        self.stream = torch.cuda.Stream(device)


class Captured(Generic[T]):
    """Work on tensors of one shape, recorded once and replayed.

    A replay reads the `inputs` given at first, so new ones are copied into
    them, and overwrites what the one before returned. Random numbers are those
    that the work would draw: a replay goes on from the state of PyTorch's
    generator, and recording leaves that as it was.

    Parameters
    ----------
    work : Callable
        What is done with `inputs`; must not wait for the GPU, nor depend on the
        inputs' values in any other way.
    inputs : sequence of Tensor
        On one GPU.
    rehearse : Callable, optional
        What is done with the inputs before `work` is recorded, so that it finds
        kernels compiled; `work` itself where that changes nothing.
    generator : torch.Generator, optional
        What the work draws from beside PyTorch's default generator: a replay goes
        on from its state.
    memory : GraphMemory, optional
        Shared with other recordings; what a replay returned, and gradients that
        it overwrote, then hold until any of them is replayed.

    Raises
    ------
    CaptureError
        If the work cannot be recorded; errors of the work itself, and memory
        that runs out, come as they are.
    """

    def __init__(
        self,
        work: Callable[..., T],
        inputs: Sequence[Tensor],
        *,
        rehearse: Callable[..., object] | None = None,
        generator: torch.Generator | None = None,
        memory: GraphMemory | None = None,
    ) -> None:
        self.inputs = [t.clone() for t in inputs]
        device = inputs[0].device
        memory = memory or GraphMemory(device)
        with torch.cuda.device(device), torch.random.fork_rng([device]):
            memory.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(memory.stream):
                for _ in range(_WARM_UP):
                    self._warm_up(rehearse or work)
            torch.cuda.current_stream().wait_stream(memory.stream)
            self._prepare()
            self._graph, self._result = _record(lambda: work(*self.inputs), memory, generator)

    def __call__(self, *inputs: Tensor) -> T:
        """Replay with `inputs`, from any device."""
        for mine, new in zip(self.inputs, inputs, strict=True):
            mine.copy_(new, non_blocking=True)
        self._graph.replay()
        return self._result

    def _warm_up(self, work: Callable[..., object]) -> None:
        """Do the work once as it is: kernels are compiled, and libraries get their memory."""
        work(*self.inputs)

    def _prepare(self) -> None:
        """Make ready what the recording is to find."""


class CapturedStep(Captured[T]):
    """A step of training on inputs of one shape, recorded once and replayed.

    See `Captured`. After a replay the parameters have its gradients.

    Parameters
    ----------
    step : Callable
        Computes gradients by the `backward` of a loss of `inputs`; it may update
        the parameters, too.
    inputs : sequence of Tensor
        On one GPU.
    parameters : sequence of nn.Parameter
        Whatever gets gradients.
    generator, memory
        See `Captured`.
    """

    def __init__(
        self,
        step: Callable[..., T],
        inputs: Sequence[Tensor],
        parameters: Sequence[nn.Parameter],
        *,
        generator: torch.Generator | None = None,
        memory: GraphMemory | None = None,
    ) -> None:
        self._parameters = parameters
        before = [parameter.grad for parameter in parameters]
        try:
            super().__init__(step, inputs, generator=generator, memory=memory)
        except BaseException:
            self._attach(before)
            raise
        self._gradients = [parameter.grad for parameter in parameters]

    def __call__(self, *inputs: Tensor) -> T:
        """Replay with `inputs`, from any device."""
        result = super().__call__(*inputs)
        self._attach(self._gradients)
        return result

    def _warm_up(self, work: Callable[..., object]) -> None:
        self._attach([None] * len(self._parameters))
        super()._warm_up(work)

    def _prepare(self) -> None:
        self._attach([None] * len(self._parameters))

    def _attach(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, grad in zip(self._parameters, gradients, strict=True):
            parameter.grad = grad


def _record(
    work: Callable[[], T], memory: GraphMemory, generator: torch.Generator | None
) -> tuple[torch.cuda.CUDAGraph, T]:
    """Record work on the current device."""
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        graph.register_generator_state(generator)
    results: list[T] = []
    failures: list[Exception] = []
    # The outer stream is for a recording that ends with an error: torch leaves its own current.
    with _recording, torch.cuda.stream(memory.stream):
        try:
            with _recording_to(graph, memory):
                try:
                    results.append(work())
                except Exception as error:  # noqa: BLE001 - raised below, once the recording ended
                    failures.append(error)
        except RuntimeError as error:
            # This error only says that the recording failed; the cause is in `failures`.
            failures.append(error)
            _tidy_up(memory)
    if not failures:
        return graph, results[0]
    failure = failures[0]
    failures.clear()
    try:
        if "out of memory" in str(failure):
            raise failure
        raise CaptureError(f"{type(failure).__name__}: {failure}") from failure
    finally:
        # The error refers to this frame. If the frame kept the error, neither would be freed, nor
        # would the tensors that they hold.
        del failure


def _recording_to(graph: torch.cuda.CUDAGraph, memory: GraphMemory) -> torch.cuda.graph:
    # Other threads, such as a window's, may go on using the GPU.
    return torch.cuda.graph(graph, memory.pool, memory.stream, capture_error_mode="thread_local")


def _tidy_up(memory: GraphMemory) -> None:
    """Undo what a recording that failed leaves behind in torch before 2.13."""
    index = memory.stream.device_index
    # The allocator would take the recording for one that goes on,
    with suppress(RuntimeError, AttributeError):
        torch._C._cuda_endAllocateToPool(index, memory.pool)  # noqa: SLF001 - no public way
    # and so would the generator of random numbers, until some recording ends well.
    mark = torch.zeros(1, device=memory.stream.device)
    other = GraphMemory(mark.device)
    with suppress(RuntimeError), _recording_to(torch.cuda.CUDAGraph(), other):
        mark.add_(1)
