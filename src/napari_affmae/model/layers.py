"""Small layers that encoder and decoder share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class MLP(nn.Module):
    """Linear, GELU, Linear.

    Parameters
    ----------
    width, hidden : int
        Channels outside and inside.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return recompute(_gelu_linear, self.expand(x), self.contract.weight, self.contract.bias)


class Dropout(nn.Module):
    """Dropout that remembers a byte an element.

    `torch.nn.Dropout` keeps the float noise on a CPU, four times as much, and
    takes most of its time to draw it.

    Parameters
    ----------
    rate : float
        Share of elements zeroed in training; the others are scaled up.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of `x` while training."""
        if not self.training:
            return x
        if not x.is_cpu:
            return torch.native_dropout(x, self.rate, True)[0]
        return torch.where(_draw_kept(x, self.rate), x * (1 / (1 - self.rate)), 0)


class DropoutReLU(Dropout):
    """ReLU, then dropout, or the other way round: dropout only scales.

    On a CPU it remembers nothing but its result, whose zeros are where no
    gradient passes.

    Parameters
    ----------
    rate : float
        Share of elements zeroed in training; the others are scaled up.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `x`, which may be overwritten."""
        if not (self.training and x.is_cpu):
            return F.relu(super().forward(x), inplace=True)
        out: Tensor = _DropoutReLU.apply(x, self.rate)
        return out


class _DropoutReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        ctx.scale = 1 / (1 - rate)
        out = torch.where(_draw_kept(x, rate), x, 0).relu_().mul_(ctx.scale)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return torch.where(out > 0, grad, 0).mul_(ctx.scale), None


def _draw_kept(x: Tensor, rate: float) -> Tensor:
    """Draw which elements of `x` dropout keeps."""
    # Each 64-bit number drawn is the noise of four elements.
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    noise = words.view(torch.int16)[: x.numel()].view(x.shape)
    return noise >= round(rate * 2**16) - 2**15


class DropPath(nn.Module):
    """Leave a residual branch out for a random part of the images (stochastic depth).

    Parameters
    ----------
    rate : float
        Share of images whose branch is left out; the others are scaled up.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        # A tensor, so that blocks of all rates share one compiled program.
        self.register_buffer("rate", torch.tensor(rate), persistent=False)
        self.rate: Tensor

    def forward(self, branch: Tensor) -> Tensor:
        """Drop images of `branch` (B, N, C) while training."""
        if not self.training:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.rate
        return branch * (kept / (1 - self.rate)).to(branch.dtype)


def recompute(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Apply `function`, and again in the backward pass instead of keeping what it computes.

    For cheap functions of large tensors: memory is what limits the image size.

    Parameters
    ----------
    function : Callable
        Draws no random numbers, and uses no other tensors that need gradients.
    *inputs : Tensor
        Its arguments, weights included.
    """
    if torch.compiler.is_compiling():
        # The compiler knows this one. On its own its first call would load the compiler,
        # 150 MiB of it.
        out: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
        return out
    recomputed: Tensor = _Recompute.apply(function, *inputs)
    return recomputed


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        device = inputs[0].device.type
        ctx.function = function
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        inputs = [
            t.detach().requires_grad_(needs)
            for t, needs in zip(ctx.saved_tensors, needed, strict=True)
        ]
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            out = ctx.function(*inputs)
        grads = iter(torch.autograd.grad(out, [t for t in inputs if t.requires_grad], grad))
        return (None, *(next(grads) if needs else None for needs in needed))


def _gelu_linear(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(F.gelu(hidden), weight, bias)


def initialise(module: nn.Module) -> None:
    """Draw a linear layer's weights from a truncated normal, std 0.02, and zero its bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
