"""Deformable attention on Triton kernels: launchers, autograd, operation counts."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from affmae_kernels._launch import (
    blocks,
    next_power_of_2,
    on_device_of,
    rows_together,
    to_autocast,
)
from affmae_kernels.deformable_attention import _kernels
from affmae_kernels.neighbours import _triton as neighbours
from affmae_kernels.neighbours.token_table import TokenTable

# Queries of a program forwards. Gathering their rows keeps its warps busy.
FORWARD_BLOCK, FORWARD_WARPS = 16, 4
# Backwards, the number of nearest tokens of a program, a power of two: one for each lane of a
# warp. Of more tokens, more would be the same; but the comparisons that find those grow with the
# square of their number.
BACKWARD_ROWS, BACKWARD_WARPS = 32, 1
# Without matrix units, the products would take twice the registers that a warp has.
BACKWARD_WARPS_FLOAT32 = 2
_LEAST_ROWS = 16  # the fewest rows that the matrix units take

# The gradient of the power is added to so many sums, so that few programs wait for each other.
POWER_PARTS = 64


def deformable_attention_triton(
    values: Tensor,
    query_pos: Tensor,
    sampling: Tensor,
    power: Tensor,
    index: TokenTable,
) -> Tensor:
    """See `affmae_kernels.deformable_attention`."""
    (values,) = to_autocast(values)
    out: Tensor = deformable_attention_forward(
        rows_together(values),
        query_pos.float().contiguous(),
        rows_together(sampling),
        power,
        index.buckets.points,
        index.buckets.heads,
        index.lists,
        index.lengths,
        index.count,
    )[0]
    return out


@torch.library.custom_op("affmae::deformable_attention", mutates_args=())
def deformable_attention_forward(
    values: Tensor,
    query_pos: Tensor,
    sampling: Tensor,
    power: Tensor,
    points: Tensor,
    heads: Tensor,
    lists: Tensor,
    lengths: Tensor,
    count: int,
) -> tuple[Tensor, Tensor]:
    """Compute deformable attention; see `deformable_attention`.

    Parameters
    ----------
    points, heads, lists, lengths : Tensor
        See `TokenTable`.
    count : int
        Number of tokens that a sample is interpolated from, at most 4.

    Returns
    -------
    out : Tensor, shape (B, Q, H, D)
    near : Tensor of int32, shape (B, Q, H * P, count)
        The tokens of each sample.
    """
    batch, queries, packed = sampling.shape
    tokens, head_count, width = values.shape[1:]
    offsets = sampling[..., : packed // 3 * 2].unflatten(-1, (-1, 2))
    near = neighbours.nearest_samples(query_pos, offsets, heads, points, lists, lengths, count)
    out = values.new_empty((batch, queries, head_count, width))
    with on_device_of(values):
        parts = blocks(queries, FORWARD_BLOCK)
        _kernels._deformable_attention_fwd_kernel[head_count, parts, batch](
            values, query_pos, sampling, power, points, near, out,
            head_count, queries, tokens, *values.stride()[:3], *sampling.stride()[:2],
            **_constants(values, sampling, near), BLOCK=FORWARD_BLOCK, num_warps=FORWARD_WARPS,
        )  # fmt: skip
    return out, near


@torch.library.custom_op("affmae::deformable_attention_backward", mutates_args=())
def deformable_attention_backward(
    grad: Tensor,
    values: Tensor,
    query_pos: Tensor,
    sampling: Tensor,
    power: Tensor,
    points: Tensor,
    near: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `deformable_attention_forward`.

    The gradients of values and power are added atomically in float32, so their
    last bits differ from run to run.

    Returns
    -------
    grad_values, grad_sampling, grad_power : Tensor
    """
    batch, queries, _ = sampling.shape
    tokens, head_count, _ = values.shape[1:]
    grad = rows_together(grad)
    size = values.numel()
    # One buffer holds the sums that are added to atomically, those of the values and of the
    # power, so that one kernel sets them to zero.
    added = values.new_zeros(size + POWER_PARTS, dtype=torch.float32)
    grad_values = added[:size].view(values.shape)
    grad_sampling = sampling.new_empty(sampling.shape)
    constants = _backward_constants(values, sampling, near)
    warps = BACKWARD_WARPS_FLOAT32 if values.dtype == torch.float32 else BACKWARD_WARPS
    parts = blocks(queries, constants["BLOCK"])
    with on_device_of(values):
        _kernels._deformable_attention_bwd_kernel[head_count, parts, batch](
            values, query_pos, sampling, power, points, near, grad,
            grad_values, grad_sampling, added[size:], head_count, queries, tokens,
            *values.stride()[:3], *sampling.stride()[:2], *grad.stride()[:3],
            **constants, num_warps=warps,
        )  # fmt: skip
    grad_power = added[size:].sum().to(power.dtype)
    return grad_values.to(values.dtype), grad_sampling, grad_power


def _constants(values: Tensor, sampling: Tensor, near: Tensor) -> dict[str, int]:
    heads, width = values.shape[2:]
    return {
        "SAMPLES": sampling.shape[2] // (3 * heads),
        "COUNT": near.shape[3],
        "D": width,
        "BLOCK_D": next_power_of_2(width),
    }


def _backward_constants(values: Tensor, sampling: Tensor, near: Tensor) -> dict[str, int]:
    """Choose the sizes of a program of the backward pass."""
    constants = _constants(values, sampling, near)
    samples, count = next_power_of_2(constants["SAMPLES"]), next_power_of_2(constants["COUNT"])
    block = max(1, BACKWARD_ROWS // (samples * count), _LEAST_ROWS // (samples * count))
    return constants | {
        "BLOCK_D": max(constants["BLOCK_D"], _LEAST_ROWS),
        "BLOCK": block,
        "WIDE_SAMPLES": samples,
        "WIDE_COUNT": count,
        "GROUPS": max(block, _LEAST_ROWS),
        "POWER_PARTS": POWER_PARTS,
    }


@deformable_attention_forward.register_fake
def _(values: Tensor, _pos: Tensor, sampling: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    batch, queries, packed = sampling.shape
    out = values.new_empty((batch, queries, *values.shape[2:]))
    near = values.new_empty((batch, queries, packed // 3, others[-1]), dtype=torch.int32)
    return out, near


@deformable_attention_backward.register_fake
def _(
    _grad: Tensor, values: Tensor, _pos: Tensor, sampling: Tensor, power: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    return (
        values.new_empty(values.shape),
        sampling.new_empty(sampling.shape),
        power.new_empty(()),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], output[1])
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    values, sampling, power = deformable_attention_backward(grad, *ctx.saved_tensors)
    return (values, None, sampling, power, *[None] * 5)


deformable_attention_forward.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.affmae.deformable_attention)
def _forward_flops(
    values: tuple[int, ...], _pos: Any, sampling: tuple[int, ...], *shapes: Any,
    out_val: Any = None, **_: Any,
) -> int:  # fmt: skip
    """Count the weighted sums of the sampled rows."""
    batch, queries, packed = sampling
    return 2 * batch * queries * (packed // 3) * shapes[-1] * values[3]


@register_flop_formula(torch.ops.affmae.deformable_attention_backward)
def _backward_flops(
    _grad: Any, values: tuple[int, ...], _pos: Any, sampling: tuple[int, ...], *shapes: Any,
    out_val: Any = None, **_: Any,
) -> int:  # fmt: skip
    """Count, for each sampled row, a scalar product and an addition."""
    batch, queries, samples, count = shapes[-1]
    return 4 * batch * queries * samples * count * values[3]
