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

# Queries of a program. The rows that one program gathers keep its warps busy.
FORWARD_BLOCK, FORWARD_WARPS = 16, 4
BACKWARD_BLOCK, BACKWARD_WARPS = 4, 1


def deformable_attention_triton(
    values: Tensor,
    query_pos: Tensor,
    offsets: Tensor,
    weights: Tensor,
    power: Tensor,
    index: TokenTable,
) -> Tensor:
    """See `affmae_kernels.deformable_attention`."""
    (values,) = to_autocast(values)
    out: Tensor = deformable_attention_forward(
        rows_together(values),
        query_pos.float().contiguous(),
        rows_together(offsets),
        weights,
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
    offsets: Tensor,
    weights: Tensor,
    power: Tensor,
    points: Tensor,
    heads: Tensor,
    lists: Tensor,
    lengths: Tensor,
    count: int,
) -> tuple[Tensor, Tensor]:
    """Sample; see `deformable_attention`.

    Parameters
    ----------
    points, heads, lists, lengths : Tensor
        See `TokenTable`.
    count : int
        Tokens that a sample is interpolated from, at most 4.

    Returns
    -------
    out : Tensor, shape (B, Q, H, D)
    near : Tensor of int32, shape (B, Q, H * P, count)
        The tokens of each sample.
    """
    batch, queries, head_count, samples = weights.shape
    near = neighbours.nearest_samples(
        query_pos, _by_sample(offsets), heads, points, lists, lengths, count
    )
    width = values.shape[3]
    out = values.new_empty((batch, queries, head_count, width))
    with on_device_of(values):
        parts = blocks(queries, FORWARD_BLOCK)
        _kernels._deformable_attention_fwd_kernel[head_count, parts, batch](
            values, query_pos, offsets, weights, power, points, near, out,
            head_count, queries, values.shape[1], *values.stride()[:3], *offsets.stride()[:4],
            *weights.stride(), **_constants(samples, count, width),
            BLOCK=FORWARD_BLOCK, num_warps=FORWARD_WARPS,
        )  # fmt: skip
    return out, near


@torch.library.custom_op("affmae::deformable_attention_backward", mutates_args=())
def deformable_attention_backward(
    grad: Tensor,
    values: Tensor,
    query_pos: Tensor,
    offsets: Tensor,
    weights: Tensor,
    power: Tensor,
    points: Tensor,
    near: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of `deformable_attention_forward`.

    Those of the values are added atomically in float32, so their last bits
    differ from run to run.

    Returns
    -------
    grad_values, grad_offsets, grad_weights, grad_power : Tensor
    """
    batch, queries, head_count, samples = weights.shape
    grad = rows_together(grad)
    width = values.shape[3]
    grad_values = values.new_zeros(values.shape, dtype=torch.float32)
    grad_offsets = offsets.new_empty(offsets.shape)
    grad_weights = weights.new_empty(weights.shape)
    parts = blocks(queries, BACKWARD_BLOCK)
    partial = values.new_empty((batch, parts, head_count), dtype=torch.float32)
    with on_device_of(values):
        _kernels._deformable_attention_bwd_kernel[head_count, parts, batch](
            values, query_pos, offsets, weights, power, points, near, grad,
            grad_values, grad_offsets, grad_weights, partial,
            head_count, queries, values.shape[1], *values.stride()[:3], *offsets.stride()[:4],
            *weights.stride(), *grad.stride()[:3],
            **_constants(samples, near.shape[-1], width),
            BLOCK=BACKWARD_BLOCK, num_warps=BACKWARD_WARPS,
        )  # fmt: skip
    return grad_values.to(values.dtype), grad_offsets, grad_weights, partial.sum().to(power.dtype)


def _constants(samples: int, count: int, width: int) -> dict[str, int]:
    return {
        "SAMPLES": samples,
        "COUNT": count,
        "D": width,
        "BLOCK_D": next_power_of_2(width),
    }


def _by_sample(offsets: Tensor) -> Tensor:
    """View offsets (B, Q, H, P, 2) as (B, Q, H * P, 2); copies only if it has to."""
    return offsets.flatten(2, 3)


@deformable_attention_forward.register_fake
def _(
    values: Tensor, _pos: Tensor, _offsets: Tensor, weights: Tensor, *others: Any
) -> tuple[Tensor, Tensor]:
    batch, queries, heads, samples = weights.shape
    out = values.new_empty((batch, queries, heads, values.shape[3]))
    near = values.new_empty((batch, queries, heads * samples, others[-1]), dtype=torch.int32)
    return out, near


@deformable_attention_backward.register_fake
def _(
    _grad: Tensor, values: Tensor, _pos: Tensor, offsets: Tensor, weights: Tensor,
    power: Tensor, *_: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    return (
        values.new_empty(values.shape),
        offsets.new_empty(offsets.shape),
        weights.new_empty(weights.shape),
        power.new_empty(()),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:6], output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    values, offsets, weights, power = deformable_attention_backward(grad, *ctx.saved_tensors)
    return (values, None, offsets, weights, power, *[None] * 5)


deformable_attention_forward.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.affmae.deformable_attention)
def _forward_flops(
    values: tuple[int, ...], _pos: Any, offsets: tuple[int, ...], *shapes: Any,
    out_val: Any = None, **_: Any,
) -> int:  # fmt: skip
    """Count the weighted sums of the sampled rows."""
    batch, queries, heads, samples, _xy = offsets
    return 2 * batch * queries * heads * samples * shapes[-1] * values[3]


@register_flop_formula(torch.ops.affmae.deformable_attention_backward)
def _backward_flops(
    _grad: Any, values: tuple[int, ...], _pos: Any, offsets: tuple[int, ...], *shapes: Any,
    out_val: Any = None, **_: Any,
) -> int:  # fmt: skip
    """Count, for each sampled row, a scalar product and an addition."""
    near = shapes[-1]
    batch, queries, heads, samples, _xy = offsets
    return 4 * batch * queries * heads * samples * near[-1] * values[3]
