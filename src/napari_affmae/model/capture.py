"""A training step as one CUDA graph of few, fused kernels.

Thousands of small launches keep a GPU waiting, and casts and norms that run on
their own read and write everything once more. Three means against that, each
usable without the others: `fuse` has PyTorch's compiler join what lies between
the matrix products; `Copies` casts all weights to 16 bits at once; and
`Captured` records a forward pass, `CapturedStep` forward and backward pass, to
be replayed.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

import torch
import torch._dynamo as dynamo
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from affmae_kernels import choose_backend
from napari_affmae.model.decoder import DecoderStage
from napari_affmae.model.encoder import Block
from napari_affmae.model.patch_embedding import PatchEmbedding
from napari_affmae.model.positions import SineEmbedding
from napari_affmae.model.vit import Block as ViTBlock

FUSED = (PatchEmbedding, Block, SineEmbedding, DecoderStage, ViTBlock)
# Weights with fewer numbers an output are read by the kernels, in float32.
_LEAST_INPUTS = 8
_WARM_UP = 2
# CUDA allows one recording at a time.
_recording = threading.Lock()

T = TypeVar("T")


def fuse(model: nn.Module) -> nn.Module:
    """Have the repeating parts of a network compiled when they first run.

    Every shape is compiled for itself, once a machine: the compiler keeps its
    results on disk.

    Parameters
    ----------
    model : nn.Module
        Changed in place; names of parameters stay.

    Returns
    -------
    nn.Module
        The same.
    """
    # Which backend runs depends on device and type alone: the compiler need not look inside.
    torch.compiler.assume_constant_result(choose_backend)
    # One for each stage, image size, training and inference; beyond it nothing is compiled.
    dynamo.config.recompile_limit = max(64, dynamo.config.recompile_limit)
    for module in model.modules():
        if isinstance(module, FUSED):
            module.compile(dynamic=False)
    return model


class Copies(nn.Module):
    """A network that computes with 16-bit copies of its weights, all cast at once.

    For use under autocast, which else casts each weight and each gradient by
    itself, in hundreds of launches.

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
        self.names = [
            f"{name}.{kind}"
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
            and module.weight[0].numel() >= _LEAST_INPUTS
            for kind in ("weight", "bias")
            if getattr(module, kind) is not None
        ]

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Call the network."""
        copies = _Cast.apply(self.dtype, *(self.model.get_parameter(n) for n in self.names))
        named = dict(zip(self.names, copies, strict=True))
        return functional_call(self.model, named, inputs, options)


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_cast(weights, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        del ctx
        cast = iter(_cast([g for g in grads if g is not None], torch.float32))
        return (None, *(None if g is None else next(cast) for g in grads))


def _cast(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    cast = [torch.empty_like(t, dtype=dtype) for t in tensors]
    torch._foreach_copy_(cast, list(tensors))
    return cast


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
        memory: GraphMemory | None = None,
    ) -> None:
        self.inputs = [t.clone() for t in inputs]
        device = inputs[0].device
        memory = memory or GraphMemory(device)
        with torch.cuda.device(device), torch.random.fork_rng([device]):
            memory.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(memory.stream):
                for _ in range(_WARM_UP):
                    self._warm_up(work)
            torch.cuda.current_stream().wait_stream(memory.stream)
            self._prepare()
            self._graph, self._result = _record(lambda: work(*self.inputs), memory)

    def __call__(self, *inputs: Tensor) -> T:
        """Replay with `inputs`, from any device."""
        for mine, new in zip(self.inputs, inputs, strict=True):
            mine.copy_(new, non_blocking=True)
        self._graph.replay()
        return self._result

    def _warm_up(self, work: Callable[..., T]) -> None:
        """Do the work once as it is: kernels are compiled, and libraries get their memory."""
        work(*self.inputs)

    def _prepare(self) -> None:
        """Make ready what the recording is to find."""


class CapturedStep(Captured[T]):
    """Forward and backward pass of one shape, recorded once and replayed.

    See `Captured`. After a replay the parameters have its gradients.

    Parameters
    ----------
    step : Callable
        Computes a loss of `inputs`, and gradients by its `backward`.
    inputs : sequence of Tensor
        On one GPU.
    parameters : sequence of nn.Parameter
        Whatever gets gradients.
    accumulate : bool
        Whether replays add to the gradients that the parameters have now, or to
        zeros where they have none; else each overwrites those of the last.
    memory : GraphMemory, optional
        See `Captured`.
    """

    def __init__(
        self,
        step: Callable[..., T],
        inputs: Sequence[Tensor],
        parameters: Sequence[nn.Parameter],
        *,
        accumulate: bool = False,
        memory: GraphMemory | None = None,
    ) -> None:
        self.accumulates = accumulate
        self._parameters = parameters
        self._before = [parameter.grad for parameter in parameters]
        try:
            super().__init__(step, inputs, memory=memory)
            self._gradients = [parameter.grad for parameter in parameters]
        except BaseException:
            self._attach(self._before)
            raise
        finally:
            del self._before

    def __call__(self, *inputs: Tensor) -> T:
        """Replay with `inputs`, from any device."""
        result = super().__call__(*inputs)
        self._attach(self._gradients)
        return result

    def clear(self) -> None:
        """Set the gradients that replays add to to zero."""
        self._attach(self._gradients)
        torch._foreach_zero_([grad for grad in self._gradients if grad is not None])

    def _warm_up(self, work: Callable[..., T]) -> None:
        self._attach([None] * len(self._parameters))
        super()._warm_up(work)

    def _prepare(self) -> None:
        for parameter, before in zip(self._parameters, self._before, strict=True):
            # Outside of the recording's memory, which it would use for other things.
            if self.accumulates and before is None and parameter.grad is not None:
                parameter.grad = torch.zeros_like(parameter.grad)
            else:
                parameter.grad = before if self.accumulates else None

    def _attach(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, grad in zip(self._parameters, gradients, strict=True):
            parameter.grad = grad


def _record(work: Callable[[], T], memory: GraphMemory) -> tuple[torch.cuda.CUDAGraph, T]:
    """Record work on the current device."""
    graph = torch.cuda.CUDAGraph()
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
            # Of what went wrong inside, the end of the recording tells only that it did.
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
        # Else the error would hold this frame and this frame the error, with all its tensors.
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
