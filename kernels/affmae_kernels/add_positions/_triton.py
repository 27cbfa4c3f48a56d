"""Added positions on a Triton kernel: launcher and autograd."""

from typing import Any

import torch
from torch import Tensor

from affmae_kernels._launch import Tiling, on_device_of
from affmae_kernels.add_positions import _kernels
from affmae_kernels.column_sums._triton import column_sums_forward


def add_positions_triton(x: Tensor, pos: Tensor, waves: tuple[Tensor, Tensor]) -> Tensor:
    """See `affmae_kernels.add_positions`."""
    device = x.device.type
    shared = x.ndim == 1 and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if shared else x.dtype
    out: Tensor = add_positions_forward(x.contiguous(), pos.contiguous(), *waves, dtype)
    return out


@torch.library.custom_op("affmae::add_positions", mutates_args=())
def add_positions_forward(
    x: Tensor, pos: Tensor, across: Tensor, down: Tensor, dtype: torch.dtype
) -> Tensor:
    """Add embedded positions; see `add_positions`. `dtype` is the type of the result."""
    out = x.new_empty((*pos.shape[:2], x.shape[-1]), dtype=dtype)
    tiling = Tiling(out)
    with on_device_of(x):
        _kernels._add_positions_kernel[tiling.grid](
            x, pos, across, down, out, *tiling.shape, across.shape[1],
            SHARED=x.ndim == 1, **tiling.constants,
        )  # fmt: skip
    return out


@add_positions_forward.register_fake
def _(x: Tensor, pos: Tensor, _across: Tensor, _down: Tensor, dtype: torch.dtype) -> Tensor:
    return x.new_empty((*pos.shape[:2], x.shape[-1]), dtype=dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.shared, ctx.dtype = inputs[0].ndim == 1, inputs[0].dtype


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if ctx.shared:
        grad = column_sums_forward(grad.flatten(0, -2).contiguous()).to(ctx.dtype)
    return grad, None, None, None, None


add_positions_forward.register_autograd(_differentiate, setup_context=_save)
