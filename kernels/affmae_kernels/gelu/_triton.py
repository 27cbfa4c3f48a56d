"""GELU on Triton kernels: launchers and autograd."""

from typing import Any

import torch
from torch import Tensor

from affmae_kernels._launch import SummedTiling, Tiling, either, on_device_of
from affmae_kernels.column_sums._triton import sum_parts
from affmae_kernels.gelu import _kernels


@torch.library.custom_op("affmae::gelu", mutates_args=())
def gelu_forward(x: Tensor, bias: Tensor | None) -> Tensor:
    """Activate; see `gelu`. `x` is contiguous."""
    out = torch.empty_like(x)
    tiling = Tiling(x)
    with on_device_of(x):
        _kernels._gelu_fwd_kernel[tiling.grid](
            x, either(bias, x), out, *tiling.shape,
            BIASED=bias is not None, **tiling.constants,
        )  # fmt: skip
    return out


@torch.library.custom_op("affmae::gelu_backward", mutates_args=())
def gelu_backward(grad: Tensor, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute the gradients of `gelu_forward`.

    Returns
    -------
    grad_x : Tensor, shape and dtype of `x`
    grad_bias : Tensor of float32, shape (C,)
        Empty without a bias.
    """
    grad_x = torch.empty_like(x)
    tiling = SummedTiling(x)
    columns = 0 if bias is None else x.shape[-1]
    partial = x.new_empty((tiling.parts, columns), dtype=torch.float32)
    with on_device_of(x):
        _kernels._gelu_bwd_kernel[tiling.grid](
            grad.contiguous(), x, either(bias, x), grad_x, partial,
            *tiling.shape, tiling.steps, BIASED=bias is not None, **tiling.constants,
        )  # fmt: skip
    return grad_x, partial[0] if bias is None else sum_parts(partial)


@gelu_forward.register_fake
def _(x: Tensor, _bias: Tensor | None) -> Tensor:
    return torch.empty_like(x)


@gelu_backward.register_fake
def _(_grad: Tensor, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    columns = 0 if bias is None else x.shape[-1]
    return torch.empty_like(x), x.new_empty(columns, dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
    x, bias = ctx.saved_tensors
    grad_x, grad_bias = gelu_backward(grad, x, bias)
    return grad_x, None if bias is None else grad_bias.to(bias.dtype)


gelu_forward.register_autograd(_differentiate, setup_context=_save)
