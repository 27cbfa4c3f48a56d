"""Dropout in plain PyTorch."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from affmae_kernels.drawing import generator_of


def dropout(x: Tensor, rate: float) -> Tensor:
    """Zero elements at random and scale the others up.

    `torch.nn.Dropout` keeps the float noise on a CPU, four times as much as
    needed, and takes most of its time to draw it.

    Parameters
    ----------
    x : Tensor of float
    rate : float
        Share of elements zeroed; 0 returns `x` itself.
    """
    if rate == 0:
        return x
    if not x.is_cpu:
        kept = torch.rand(x.shape, device=x.device, generator=generator_of(x.device)) >= rate
        return torch.where(kept, x, 0) * (1 / (1 - rate))
    out: Tensor = _Dropout.apply(x, rate)
    return out


def relu_dropout_reference(x: Tensor, bias: Tensor | None, rate: float) -> Tensor:
    """See `affmae_kernels.relu_dropout`.

    On a CPU it keeps only its result for the backward pass: no gradient passes where
    that is zero.
    """
    if bias is not None:
        x = x + bias
    if rate > 0 and x.is_cpu:
        out: Tensor = _ReLUDropout.apply(x, rate)
        return out
    # Dropout only scales, so it may come first, and ReLU then works in place.
    return F.relu(dropout(x, rate), inplace=True)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        kept, ctx.scale = _draw_kept(x, rate), 1 / (1 - rate)
        ctx.save_for_backward(kept)
        return torch.where(kept, x, 0).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return torch.where(kept, grad, 0).mul_(ctx.scale), None


class _ReLUDropout(torch.autograd.Function):
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
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(
        -(2**63), None, generator=generator_of(x.device)
    )
    noise = words.view(torch.int16)[: x.numel()].view(x.shape)
    return noise >= round(rate * 2**16) - 2**15
