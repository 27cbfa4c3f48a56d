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

from napari_affmae.model.layers import Linear

# Weights with fewer numbers an output are read by the kernels, in float32.
_LEAST_INPUTS = 8
_WARM_UP = 2


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
        torch._foreach_copy_(copies, parameters)
        for layer, weight, bias in zip(self._layers, copies[::2], copies[1::2], strict=True):
            layer.copies = weight, bias
        try:
            return self.model(*inputs, **options)
        finally:
            for layer in self._layers:
                layer.copies = None


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
