"""A training step as one CUDA graph.

Thousands of small launches keep a GPU waiting, hundreds of them to cast weights
and gradients. Two means against that, each usable without the other: `Copies`
casts all weights to 16 bits at once, and a `CapturedStep` records forward and
backward pass, to be replayed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

# Weights with fewer numbers an output are read by the kernels, in float32.
_LEAST_INPUTS = 8
_WARM_UP = 2


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


class CapturedStep:
    """Forward and backward pass of one shape, recorded once and replayed.

    A replay reads the `inputs` given at first, so new ones are copied into
    them, and it overwrites the gradients of all parameters. Random numbers
    differ from replay to replay.

    Parameters
    ----------
    loss : Callable
        Computes the scalar to differentiate from `inputs`; must not wait for
        the GPU, nor depend on the inputs' values in any other way.
    inputs : sequence of Tensor
        On one GPU.
    parameters : sequence of nn.Parameter
        Their gradients are dropped, and replaced by those of the replay.
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        inputs: Sequence[Tensor],
        parameters: Sequence[nn.Parameter],
    ) -> None:
        self.inputs = [t.clone() for t in inputs]
        stream = torch.cuda.Stream(inputs[0].device)
        stream.wait_stream(torch.cuda.current_stream(inputs[0].device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                _clear(parameters)
                loss(*self.inputs).backward()
        torch.cuda.current_stream(inputs[0].device).wait_stream(stream)
        _clear(parameters)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            value = loss(*self.inputs)
            value.backward()
        self._loss = value.detach()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Replay with `inputs`; returns the loss, which the next replay overwrites."""
        for mine, new in zip(self.inputs, inputs, strict=True):
            mine.copy_(new, non_blocking=True)
        self._graph.replay()
        return self._loss


def _clear(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
