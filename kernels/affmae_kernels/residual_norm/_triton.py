"""Residual normalisation on Triton kernels: launchers and autograd."""

from typing import Any

import torch
from torch import Tensor

from affmae_kernels._launch import blocks, next_power_of_2, on_device_of
from affmae_kernels.dropout._triton import draw_seed, noise
from affmae_kernels.residual_norm import _kernels

# Numbers that a program holds of each tensor, and the programs of a backward pass.
NUMBERS = 2048
WARPS = 2
PROGRAMS = 1024


def residual_norm_triton(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    rate: float,
    epsilon: float,
) -> Tensor:
    """See `affmae_kernels.residual_norm`."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    seed = None
    if branch is not None:
        branch = branch.contiguous()
        if rate > 0:
            seed = draw_seed(x.device)
    out: Tensor = residual_norm_forward(
        x.contiguous(), branch, weight.contiguous(), bias.contiguous(), seed, rate, epsilon, dtype
    )[0]
    return out


@torch.library.custom_op("affmae::residual_norm", mutates_args=())
def residual_norm_forward(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    seed: Tensor | None,
    rate: float,
    epsilon: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalise; see `residual_norm`.

    Parameters
    ----------
    seed : Tensor of int64, shape (1,), or None
        Of the elements that are dropped; None: drop nothing.
    dtype : torch.dtype
        Of the result.

    Returns
    -------
    out : Tensor of `dtype`, shape (..., C)
    total : Tensor of `dtype`, shape (..., C)
        The sum; empty without a branch.
    mean, inverse : Tensor of float32, shape (...)
        Of each row, its mean and one over its standard deviation.
    """
    out, total, mean, inverse = _results(x, branch, dtype)
    channels = x.shape[-1]
    rows = mean.numel()
    constants = _constants(channels, branch, seed)
    with on_device_of(x):
        _kernels._residual_norm_fwd_kernel[(blocks(rows, constants["ROWS"]),)](
            x, x if branch is None else branch, weight, bias, mean if seed is None else seed,
            out, total, mean, inverse, rows, channels, *noise(rate), epsilon, **constants,
        )  # fmt: skip
    return out, total, mean, inverse


@torch.library.custom_op("affmae::residual_norm_backward", mutates_args=())
def residual_norm_backward(
    grad: Tensor,
    total: Tensor,
    weight: Tensor,
    seed: Tensor | None,
    mean: Tensor,
    inverse: Tensor,
    rate: float,
    x_dtype: torch.dtype,
    branch_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `residual_norm_forward`.

    Returns
    -------
    grad_x : Tensor of `x_dtype`
    grad_branch : Tensor of `branch_dtype`
        Empty where that is None.
    partial : Tensor of float32, shape (programs, 2, C)
        Parts of those of weight and bias: a compiler adds them up better.
    """
    grad = grad.contiguous()
    channels, rows = total.shape[-1], mean.numel()
    grad_x, grad_branch = _gradients(total, x_dtype, branch_dtype)
    constants = _constants(channels, None if branch_dtype is None else grad_branch, seed)
    steps, programs = _split(rows, constants["ROWS"])
    partial = mean.new_empty((programs, 2, channels))
    with on_device_of(total):
        _kernels._residual_norm_bwd_kernel[(programs,)](
            grad, total, weight, mean if seed is None else seed, mean, inverse,
            grad_x, grad_branch, partial, rows, channels, *noise(rate), steps, **constants,
        )  # fmt: skip
    return grad_x, grad_branch, partial


def _results(
    x: Tensor, branch: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out = torch.empty_like(x, dtype=dtype)
    total = x.new_empty(0, dtype=dtype) if branch is None else torch.empty_like(out)
    mean = x.new_empty(x.shape[:-1], dtype=torch.float32)
    return out, total, mean, torch.empty_like(mean)


def _gradients(
    total: Tensor, x_dtype: torch.dtype, branch_dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    grad_x = torch.empty_like(total, dtype=x_dtype)
    if branch_dtype is None:
        return grad_x, total.new_empty(0, dtype=x_dtype)
    return grad_x, torch.empty_like(total, dtype=branch_dtype)


def _split(rows: int, rows_at_once: int) -> tuple[int, int]:
    """Return how often a program of the backward pass takes rows, and the programs."""
    steps = blocks(rows, rows_at_once * PROGRAMS)
    return steps, blocks(rows, rows_at_once * steps)


def _rows(channels: int) -> int:
    return max(1, NUMBERS // next_power_of_2(channels))


def _constants(channels: int, branch: Tensor | None, seed: Tensor | None) -> dict[str, Any]:
    width = next_power_of_2(channels)
    return {
        "BRANCH": branch is not None,
        "DROP": seed is not None,
        "ROWS": _rows(channels),
        "CHANNELS": width,
        "num_warps": WARPS,
    }


@residual_norm_forward.register_fake
def _(
    x: Tensor, branch: Tensor | None, _weight: Tensor, _bias: Tensor, _seed: Tensor | None,
    _rate: float, _epsilon: float, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _results(x, branch, dtype)


@residual_norm_backward.register_fake
def _(
    _grad: Tensor, total: Tensor, _weight: Tensor, _seed: Tensor | None, mean: Tensor,
    _inverse: Tensor, _rate: float, x_dtype: torch.dtype, branch_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    channels = total.shape[-1]
    _, programs = _split(mean.numel(), _rows(channels))
    return *_gradients(total, x_dtype, branch_dtype), mean.new_empty((programs, 2, channels))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, branch, weight, bias, seed, ctx.rate, _, _ = inputs
    _, total, mean, inverse = output
    ctx.mark_non_differentiable(total, mean, inverse)
    ctx.dtypes = (x.dtype, None if branch is None else branch.dtype)
    ctx.small = (weight.dtype, bias.dtype)
    ctx.save_for_backward(x if branch is None else total, weight, seed, mean, inverse)


def _differentiate(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    grad_x, grad_branch, partial = residual_norm_backward(
        grad, *ctx.saved_tensors, ctx.rate, *ctx.dtypes
    )
    branch = None if ctx.dtypes[1] is None else grad_branch
    weight, bias = (part.to(dtype) for part, dtype in zip(partial.sum(0), ctx.small, strict=True))
    return grad_x, branch, weight, bias, *[None] * 4


residual_norm_forward.register_autograd(_differentiate, setup_context=_save)
