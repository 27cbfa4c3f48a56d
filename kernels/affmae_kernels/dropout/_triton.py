"""Dropout on Triton kernels: launchers and autograd."""

from typing import Any

import torch
from torch import Tensor

from affmae_kernels._launch import SummedTiling, Tiling, either, on_device_of
from affmae_kernels.column_sums._triton import sum_parts
from affmae_kernels.drawing import generator_of
from affmae_kernels.dropout import _kernels

_NOISE = 2**24


def draw_seed(device: torch.device) -> Tensor:
    """Draw the seed of one call, on the device: nothing waits for it."""
    return torch.randint(2**31, (1,), device=device, generator=generator_of(device))


def noise(rate: float) -> tuple[int, float]:
    """Return below which hash an element is dropped, and the factor of the others."""
    return round(rate * _NOISE), 1 / (1 - rate)


def relu_dropout_triton(x: Tensor, bias: Tensor | None, rate: float) -> Tensor:
    """See `affmae_kernels.relu_dropout`."""
    seed = draw_seed(x.device) if rate > 0 else None
    out: Tensor = relu_dropout_forward(x.contiguous(), bias, seed, rate)
    return out


@torch.library.custom_op("affmae::relu_dropout", mutates_args=())
def relu_dropout_forward(
    x: Tensor, bias: Tensor | None, seed: Tensor | None, rate: float
) -> Tensor:
    """Apply ReLU and dropout; see `relu_dropout`. `seed` is (1,) int64; None drops nothing."""
    out = torch.empty_like(x)
    tiling = Tiling(x)
    with on_device_of(x):
        _kernels._relu_dropout_fwd_kernel[tiling.grid](
            x, either(bias, x), either(seed, x), out,
            *tiling.shape, *noise(rate),
            BIASED=bias is not None, DROP=seed is not None, **tiling.constants,
        )  # fmt: skip
    return out


@torch.library.custom_op("affmae::relu_dropout_backward", mutates_args=())
def relu_dropout_backward(
    grad: Tensor, out: Tensor, rate: float, biased: bool
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of `relu_dropout_forward`.

    Returns
    -------
    grad_x : Tensor, shape and dtype of `out`
    grad_bias : Tensor of float32, shape (C,)
        Empty unless `biased`.
    """
    grad_x = torch.empty_like(out)
    tiling = SummedTiling(out)
    partial = out.new_empty((tiling.parts, out.shape[-1] * biased), dtype=torch.float32)
    with on_device_of(out):
        _kernels._relu_dropout_bwd_kernel[tiling.grid](
            grad.contiguous(), out, grad_x, partial, *tiling.shape, noise(rate)[1],
            tiling.steps, BIASED=biased, **tiling.constants,
        )  # fmt: skip
    return grad_x, sum_parts(partial) if biased else partial[0]


@relu_dropout_forward.register_fake
def _(x: Tensor, _bias: Tensor | None, _seed: Tensor | None, _rate: float) -> Tensor:
    return torch.empty_like(x)


@relu_dropout_backward.register_fake
def _(_grad: Tensor, out: Tensor, _rate: float, biased: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(out), out.new_empty(out.shape[-1] * biased, dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, bias, _, ctx.rate = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(output)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    biased = ctx.bias_dtype is not None
    grad_x, grad_bias = relu_dropout_backward(grad, *ctx.saved_tensors, ctx.rate, biased)
    return grad_x, grad_bias.to(ctx.bias_dtype) if biased else None, None, None


relu_dropout_forward.register_autograd(_differentiate, setup_context=_save)
