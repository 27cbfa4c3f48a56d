"""Cluster attention on Triton kernels: launchers, autograd, operation counts."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from affmae_kernels._launch import (
    either,
    next_power_of_2,
    on_device_of,
    rows_together,
    to_autocast,
)
from affmae_kernels.cluster_attention import _kernels
from affmae_kernels.neighbours import Neighbourhood
from affmae_kernels.neighbours._triton import TILE

# Chosen by measurement on an H200. A tile of queries meets so many keys at once, with so many
# warps, forwards and backwards; a cluster of keys meets so many queries at once.
FORWARD_KEYS, FORWARD_WARPS = 32, 1
BACKWARD_KEYS, BACKWARD_WARPS = 32, 1
QUERIES = 32
# The number of parts of the small gradients that a program adds up at once.
SUMMED_ROWS = 64
_LEAST_ROWS = 16  # the fewest rows that the matrix units take


def cluster_attention_triton(
    query_key_value: Tensor,
    projection_bias: Tensor | None,
    blank_k: Tensor,
    blank_v: Tensor,
    bias_weight: Tensor,
    bias: Tensor,
    neighbourhood: Neighbourhood,
) -> Tensor:
    """See `affmae_kernels.cluster_attention`."""
    (query_key_value,) = to_autocast(query_key_value)
    lists = neighbourhood.lists
    out: Tensor = cluster_attention_forward(
        rows_together(query_key_value),
        None if projection_bias is None else projection_bias.contiguous(),
        blank_k.contiguous(),
        blank_v.contiguous(),
        bias_weight.contiguous(),
        bias.contiguous(),
        lists.query_pos,
        lists.key_pos,
        lists.ids,
        lists.bits,
        lists.lengths,
        lists.queries,
        lists.bounds,
        neighbourhood.cluster_size,
        neighbourhood.clusters.shape[2],
    )[0]
    return out


@torch.library.custom_op("affmae::cluster_attention", mutates_args=())
def cluster_attention_forward(
    query_key_value: Tensor,
    projection_bias: Tensor | None,
    blank_k: Tensor,
    blank_v: Tensor,
    bias_weight: Tensor,
    bias: Tensor,
    query_pos: Tensor,
    key_pos: Tensor,
    ids: Tensor,
    bits: Tensor,
    lengths: Tensor,
    query_list: Tensor,
    bounds: Tensor,
    cluster_size: int,
    wanted: int,
) -> tuple[Tensor, Tensor]:
    """Compute cluster attention; see `cluster_attention`.

    Parameters
    ----------
    query_pos, key_pos, ids, bits, lengths, query_list, bounds : Tensor
        See `ClusterLists`.
    cluster_size : int
    wanted : int
        Number of clusters of a query.

    Returns
    -------
    out : Tensor, shape (B, N, H, D)
    log_sum : Tensor of float32, shape (B, N, H)
        Binary logarithm of each softmax's denominator.
    """
    q, k, v = query_key_value.unbind(2)
    batch, queries, heads, width = q.shape
    out = q.new_empty(q.shape)
    log_sum = q.new_empty(q.shape[:3], dtype=torch.float32)
    tiles = ids.shape[1]
    with on_device_of(q):
        _kernels._cluster_attention_fwd_kernel[heads, tiles, batch](
            q, k, v, either(projection_bias, bias), blank_k, blank_v, bias_weight, bias,
            query_pos, key_pos, ids, bits, lengths,
            out, log_sum, heads, queries, k.shape[1], tiles, ids.shape[2], width**-0.5,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
            **_tile_constants(width, cluster_size, FORWARD_KEYS),
            BIASED=projection_bias is not None, num_warps=FORWARD_WARPS,
        )  # fmt: skip
    return out, log_sum


@torch.library.custom_op("affmae::cluster_attention_backward", mutates_args=())
def cluster_attention_backward(
    grad: Tensor,
    query_key_value: Tensor,
    projection_bias: Tensor | None,
    blank_k: Tensor,
    blank_v: Tensor,
    bias_weight: Tensor,
    bias: Tensor,
    query_pos: Tensor,
    key_pos: Tensor,
    ids: Tensor,
    bits: Tensor,
    lengths: Tensor,
    query_list: Tensor,
    bounds: Tensor,
    out: Tensor,
    log_sum: Tensor,
    cluster_size: int,
    wanted: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of `cluster_attention_forward`.

    Returns
    -------
    grad_query_key_value : Tensor, shape (B, N, 3, H, D)
    grad_projection_bias : Tensor of float32, shape (3, H, D)
    grad_weight, grad_bias : Tensor of float32, shapes (H, 5) and (H,)
    grad_blank_k, grad_blank_v : Tensor of float32, shape (H, D)
    """
    q, k, v = query_key_value.unbind(2)
    batch, queries, heads, width = q.shape
    keys, tiles = k.shape[1], ids.shape[1]
    clusters = bounds.shape[1] // batch
    grad = rows_together(grad)
    grads = q.new_empty(query_key_value.shape)
    grad_q, grad_k, grad_v = grads.unbind(2)
    small = _small_gradients(q)
    partial = q.new_empty((batch * tiles, heads, 6 + 4 * width), dtype=torch.float32)
    shift = torch.empty_like(log_sum)
    strides = [*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *grad.stride()[:3]]
    vectors = (either(projection_bias, bias), blank_k, blank_v)
    biased = projection_bias is not None
    with on_device_of(q):
        _kernels._cluster_attention_bwd_queries_kernel[heads, tiles, batch](
            q, k, v, *vectors, bias_weight, bias, query_pos, key_pos, ids, bits, lengths,
            out, log_sum, grad, grad_q, shift, partial, heads, queries, keys, tiles, ids.shape[2],
            width**-0.5, *strides, **_tile_constants(width, cluster_size, BACKWARD_KEYS),
            BIASED=biased, num_warps=BACKWARD_WARPS,
        )  # fmt: skip
        _kernels._cluster_attention_bwd_keys_kernel[heads, clusters, batch](
            q, k, v, vectors[0], bias_weight, bias, query_pos, key_pos, query_list,
            bounds[0], bounds[1], log_sum, shift, grad, grad_k, grad_v,
            heads, queries, keys, clusters, width**-0.5, *strides,
            **_cluster_constants(width, cluster_size), BIASED=biased,
        )  # fmt: skip
        _kernels._sum_partials_kernel[heads, 4](
            partial, *small, len(partial), heads,
            D=width, BLOCK_D=_lanes(width), ROWS=SUMMED_ROWS, num_warps=8,
        )  # fmt: skip
    return grads, *small


def _small_gradients(q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    heads, width = q.shape[2:]
    shapes = ((3, heads, width), (heads, 5), (heads,), (heads, width), (heads, width))
    projection, weight, bias, blank_k, blank_v = (
        q.new_empty(s, dtype=torch.float32) for s in shapes
    )
    return projection, weight, bias, blank_k, blank_v


def _lanes(width: int) -> int:
    return max(next_power_of_2(width), _LEAST_ROWS)


def _tile_constants(width: int, cluster_size: int, keys: int) -> dict[str, int]:
    """Choose the sizes of a program that works on a tile of queries."""
    return {
        "D": width,
        "BLOCK_D": _lanes(width),
        "CLUSTER": cluster_size,
        "TILE": TILE,
        "KEYS": max(keys, next_power_of_2(cluster_size)),
    }


def _cluster_constants(width: int, cluster_size: int) -> dict[str, int]:
    """Choose the sizes of a program that works on a cluster of keys."""
    return {
        "D": width,
        "BLOCK_D": _lanes(width),
        "CLUSTER": cluster_size,
        "ROWS": max(next_power_of_2(cluster_size), _LEAST_ROWS),
        "QUERIES": QUERIES,
        "num_warps": 1,
    }


@cluster_attention_forward.register_fake
def _(query_key_value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    q = query_key_value.select(2, 0)
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


@cluster_attention_backward.register_fake
def _(_grad: Tensor, query_key_value: Tensor, *_: Any) -> tuple[Tensor, ...]:
    large = query_key_value.new_empty(query_key_value.shape)
    return large, *_small_gradients(query_key_value.select(2, 0))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.cluster_size, ctx.wanted = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
    # Without this, PyTorch would fill tensors of zeros for outputs that have no gradient.
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    large, projection, weight, bias, blank_k, blank_v = cluster_attention_backward(
        grad, *tensors, ctx.cluster_size, ctx.wanted
    )
    small = zip((projection, blank_k, blank_v, weight, bias), tensors[1:6], strict=True)
    return (large, *(None if t is None else g.to(t.dtype) for g, t in small), *[None] * 9)


cluster_attention_forward.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.affmae.cluster_attention)
def _forward_flops(
    query_key_value: tuple[int, ...], *shapes: Any, out_val: Any = None, **_: Any
) -> int:
    """Count the two products of each query with its keys and the blank key."""
    cluster_size, wanted = shapes[-2:]
    batch, tokens, _three, heads, width = query_key_value
    return 4 * batch * tokens * heads * width * (cluster_size * wanted + 1)


@register_flop_formula(torch.ops.affmae.cluster_attention_backward)
def _backward_flops(
    _grad: tuple[int, ...], query_key_value: tuple[int, ...], *shapes: Any, **_: Any
) -> int:
    """Count the five products of the backward pass; one computes the logits again."""
    return _forward_flops(query_key_value, *shapes) * 5 // 2
