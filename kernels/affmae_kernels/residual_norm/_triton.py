"""Residual normalisation on Triton kernels: launchers and autograd."""

from typing import Any

import torch
from torch import Tensor

from affmae_kernels._launch import blocks, either, next_power_of_2, on_device_of
from affmae_kernels.column_sums._triton import sum_parts
from affmae_kernels.dropout._triton import draw_seed, noise
from affmae_kernels.residual_norm import _kernels

# A program holds so many numbers of each tensor; and the number of programs of a backward pass.
NUMBERS = 2048
WARPS = 2
PROGRAMS = 512


def residual_norm_triton(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    branch_bias: Tensor | None,
    factors: Tensor | None,
    rate: float,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    """See `affmae_kernels.residual_norm`."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    x, seed = x.contiguous(), None
    if branch is None:
        branch_bias = factors = None
    else:
        branch = branch.contiguous()
        factors = None if factors is None else factors.detach().contiguous()
        if rate > 0:
            seed = draw_seed(x.device)
    small = (weight.contiguous(), bias.contiguous(), branch_bias, factors)
    out, total, _, _ = residual_norm_forward(x, branch, *small, seed, rate, epsilon, dtype)
    return out, x if branch is None else total


@torch.library.custom_op("affmae::residual_norm", mutates_args=())
def residual_norm_forward(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    branch_bias: Tensor | None,
    factors: Tensor | None,
    seed: Tensor | None,
    rate: float,
    epsilon: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalise a sum; see `residual_norm`.

    Parameters
    ----------
    seed : Tensor of int64, shape (1,), or None
        Decides which elements are dropped; without it none are.
    dtype : torch.dtype
        Type of the results.

    Returns
    -------
    out : Tensor of `dtype`, shape (B, ..., C)
    total : Tensor of `dtype`, shape (B, ..., C)
        The sum; empty without a branch.
    mean, inverse : Tensor of float32, shape (B, ...)
        The mean of each row, and one over its standard deviation.
    """
    out, total, mean, inverse = _results(x, branch, dtype)
    constants = _constants(x.shape[-1], branch is not None, branch_bias, factors, seed)
    sizes = _sizes(mean, x.shape[-1])
    with on_device_of(x):
        _kernels._residual_norm_fwd_kernel[(blocks(sizes[0], constants["ROWS"]),)](
            x, either(branch, x), weight, bias, either(branch_bias, mean), either(factors, mean),
            either(seed, mean), out, total, mean, inverse, *sizes, *noise(rate), epsilon,
            **constants,
        )  # fmt: skip
    return out, total, mean, inverse


@torch.library.custom_op("affmae::residual_norm_backward", mutates_args=())
def residual_norm_backward(
    grad: Tensor,
    grad_total: Tensor | None,
    total: Tensor,
    weight: Tensor,
    branch_bias: Tensor | None,
    factors: Tensor | None,
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
    small : Tensor of float32, shape (2, C) or (3, C)
        The gradients of weight, bias, and the branch's bias if there is one.
    """
    channels = total.shape[-1]
    grad_x, grad_branch = _gradients(total, x_dtype, branch_dtype)
    constants = _constants(channels, branch_dtype is not None, branch_bias, factors, seed)
    sizes = _sizes(mean, channels)
    steps = blocks(sizes[0], constants["ROWS"] * PROGRAMS)
    programs = blocks(sizes[0], constants["ROWS"] * steps)
    partial = mean.new_empty((programs, 2 if branch_bias is None else 3, channels))
    with on_device_of(total):
        _kernels._residual_norm_bwd_kernel[(programs,)](
            grad.contiguous(), total if grad_total is None else grad_total.contiguous(), total,
            weight, either(factors, mean), either(seed, mean), mean, inverse, grad_x, grad_branch,
            partial, *sizes, *noise(rate), steps, CONTINUED=grad_total is not None, **constants,
        )  # fmt: skip
    return grad_x, grad_branch, sum_parts(partial)


def _sizes(mean: Tensor, channels: int) -> tuple[int, int, int]:
    """Return rows, channels, and rows of an image."""
    return mean.numel(), channels, mean.numel() // len(mean) if mean.ndim else 1


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


def _constants(
    channels: int,
    branch: bool,
    branch_bias: Tensor | None,
    factors: Tensor | None,
    seed: Tensor | None,
) -> dict[str, Any]:
    width = next_power_of_2(channels)
    return {
        "BRANCH": branch,
        "BIASED": branch_bias is not None,
        "SCALED": factors is not None,
        "DROP": seed is not None,
        "ROWS": max(1, NUMBERS // width),
        "CHANNELS": width,
        "num_warps": WARPS,
    }


@residual_norm_forward.register_fake
def _(
    x: Tensor, branch: Tensor | None, _weight: Tensor, _bias: Tensor,
    _branch_bias: Tensor | None, _factors: Tensor | None, _seed: Tensor | None,
    _rate: float, _epsilon: float, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _results(x, branch, dtype)


@residual_norm_backward.register_fake
def _(
    _grad: Tensor, _grad_total: Tensor | None, total: Tensor, _weight: Tensor,
    branch_bias: Tensor | None, _factors: Tensor | None, _seed: Tensor | None, mean: Tensor,
    _inverse: Tensor, _rate: float, x_dtype: torch.dtype, branch_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    small = mean.new_empty((2 if branch_bias is None else 3, total.shape[-1]))
    return *_gradients(total, x_dtype, branch_dtype), small


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, branch, weight, bias, branch_bias, factors, seed, ctx.rate, _, _ = inputs
    _, total, mean, inverse = output
    ctx.mark_non_differentiable(mean, inverse)
    # Without this, PyTorch would fill tensors of zeros for outputs that are not used.
    ctx.set_materialize_grads(False)
    ctx.dtypes = (x.dtype, None if branch is None else branch.dtype)
    ctx.small = (weight, bias) if branch_bias is None else (weight, bias, branch_bias)
    ctx.small = tuple(t.dtype for t in ctx.small)
    kept = x if branch is None else total
    ctx.save_for_backward(kept, weight, branch_bias, factors, seed, mean, inverse)


def _differentiate(
    ctx: Any, grad: Tensor | None, grad_total: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    total = ctx.saved_tensors[0]
    if grad is None:
        # Only the sum was used.
        grad = torch.zeros_like(total)
    grad_x, grad_branch, parts = residual_norm_backward(
        grad, grad_total, *ctx.saved_tensors, ctx.rate, *ctx.dtypes
    )
    small = [part.to(dtype) for part, dtype in zip(parts, ctx.small, strict=True)]
    branch = None if ctx.dtypes[1] is None else grad_branch
    return grad_x, branch, *small, *[None] * (8 - len(small))


residual_norm_forward.register_autograd(_differentiate, setup_context=_save)
