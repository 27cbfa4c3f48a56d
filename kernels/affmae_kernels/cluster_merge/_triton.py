"""Cluster merging on Triton kernels: launchers, autograd, operation counts."""

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
from affmae_kernels.cluster_merge import _kernels
from affmae_kernels.column_sums._triton import column_sums_forward
from affmae_kernels.neighbours import Neighbourhood
from affmae_kernels.neighbours._triton import TILE

MAPS = 4
# Chosen by measurement on an H200 for 16-bit types; float32 takes twice the shared memory.
KEYS = 32
QUERIES = 16
CHANNELS = 128
FLOAT32_CHANNELS = 32
_LEAST_ROWS = 16  # the fewest rows that the matrix units take


def cluster_merge_triton(
    x: Tensor,
    importance: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    neighbourhood: Neighbourhood,
) -> Tensor:
    """See `affmae_kernels.cluster_merge`."""
    (x,) = to_autocast(x)
    lists = neighbourhood.lists
    out: Tensor = cluster_merge_forward(
        rows_together(x),
        importance.contiguous(),
        weight.contiguous(),
        bias.contiguous(),
        norm_weight.contiguous(),
        norm_bias.contiguous(),
        lists.query_pos,
        lists.key_pos,
        lists.ids,
        lists.bits,
        lists.lengths,
        lists.queries,
        lists.bounds,
        neighbourhood.cluster_size,
        neighbourhood.clusters.shape[2],
    )
    return out


@torch.library.custom_op("affmae::cluster_merge", mutates_args=())
def cluster_merge_forward(
    x: Tensor,
    importance: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    query_pos: Tensor,
    key_pos: Tensor,
    ids: Tensor,
    bits: Tensor,
    lengths: Tensor,
    query_list: Tensor,
    bounds: Tensor,
    cluster_size: int,
    wanted: int,
) -> Tensor:
    """Merge neighbourhoods; see `cluster_merge`.

    Parameters
    ----------
    query_pos, key_pos, ids, bits, lengths, query_list, bounds : Tensor
        See `ClusterLists`.
    cluster_size : int
    wanted : int
        Number of clusters of a query.
    """
    batch, keys, channels = x.shape
    queries, tiles = query_pos.shape[1], ids.shape[1]
    out = x.new_empty((batch, queries, MAPS * channels))
    part = _channels(x)
    with on_device_of(x):
        _kernels._cluster_merge_fwd_kernel[blocks(channels, part), tiles, batch](
            x, importance, weight, bias, norm_weight, norm_bias, query_pos, key_pos,
            ids, bits, lengths, out, queries, keys, tiles, ids.shape[2], channels, *x.stride()[:2],
            CLUSTER=cluster_size, TILE=TILE, KEYS=max(KEYS, next_power_of_2(cluster_size)),
            CHANNELS=part, num_warps=4,
        )  # fmt: skip
    return out


@torch.library.custom_op("affmae::cluster_merge_backward", mutates_args=())
def cluster_merge_backward(
    grad: Tensor,
    x: Tensor,
    importance: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    query_pos: Tensor,
    key_pos: Tensor,
    ids: Tensor,
    bits: Tensor,
    lengths: Tensor,
    query_list: Tensor,
    bounds: Tensor,
    cluster_size: int,
    wanted: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `cluster_merge_forward`.

    Returns
    -------
    grad_x : Tensor, shape (B, N, C)
    grad_importance : Tensor of float32, shape (B, N, 1)
    small : Tensor of float32, shape (32,)
        The gradients of the map's weights (20) and biases (4), and of the norm's
        scales (4) and shifts (4).
    """
    batch, keys, channels = x.shape
    queries = query_pos.shape[1]
    clusters = bounds.shape[1] // batch
    grad = grad.contiguous()
    grad_x = x.new_empty(x.shape)
    grad_importance = x.new_empty(importance.shape, dtype=torch.float32)
    partial = x.new_empty((batch * clusters, 32), dtype=torch.float32)
    small = (weight, bias, norm_weight, norm_bias)
    part = _channels(x)
    constants = {
        "CLUSTER": cluster_size,
        "ROWS": max(next_power_of_2(cluster_size), _LEAST_ROWS),
        "QUERIES": QUERIES,
        "CHANNELS": part,
    }

    with on_device_of(x):
        _kernels._cluster_merge_bwd_tokens_kernel[blocks(channels, part), clusters, batch](
            importance, *small, query_pos, key_pos, query_list, bounds[0], bounds[1],
            grad, grad_x, queries, keys, clusters, channels, **constants, num_warps=2,
        )  # fmt: skip
        _kernels._cluster_merge_bwd_weights_kernel[clusters, batch](
            x, importance, *small, query_pos, key_pos, query_list, bounds[0], bounds[1],
            grad, grad_importance, partial, queries, keys, clusters, channels, *x.stride()[:2],
            **constants, num_warps=2,
        )  # fmt: skip
    return grad_x, grad_importance, column_sums_forward(partial)


def _channels(x: Tensor) -> int:
    """Choose how many channels a program works on."""
    most = FLOAT32_CHANNELS if x.dtype == torch.float32 else CHANNELS
    return max(_LEAST_ROWS, min(most, next_power_of_2(x.shape[2])))


@cluster_merge_forward.register_fake
def _(x: Tensor, _importance: Tensor, *others: Any) -> Tensor:
    query_pos = others[4]
    return x.new_empty((*query_pos.shape[:2], MAPS * x.shape[2]))


@cluster_merge_backward.register_fake
def _(_grad: Tensor, x: Tensor, importance: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return (
        x.new_empty(x.shape),
        x.new_empty(importance.shape, dtype=torch.float32),
        x.new_empty(32, dtype=torch.float32),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    *tensors, ctx.cluster_size, ctx.wanted = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grad_x, grad_importance, small = cluster_merge_backward(
        grad, *tensors, ctx.cluster_size, ctx.wanted
    )
    weight, bias, norm_weight, norm_bias = small.split([20, 4, 4, 4])
    small_grads = (grad_importance, weight.view(MAPS, 5), bias, norm_weight, norm_bias)
    like = tensors[1:6]
    small_grads = tuple(g.to(t.dtype) for g, t in zip(small_grads, like, strict=True))
    return (grad_x, *small_grads, *[None] * 9)


cluster_merge_forward.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.affmae.cluster_merge)
def _forward_flops(x: tuple[int, ...], *shapes: Any, out_val: Any = None, **_: Any) -> int:
    """Count the weighted sums over each kept token's neighbourhood."""
    query_pos, (cluster_size, wanted) = shapes[5], shapes[-2:]
    return 2 * MAPS * query_pos[0] * query_pos[1] * cluster_size * wanted * x[2]


@register_flop_formula(torch.ops.affmae.cluster_merge_backward)
def _backward_flops(
    _grad: tuple[int, ...], x: tuple[int, ...], *shapes: Any, out_val: Any = None, **_: Any
) -> int:
    """Count two products, each as large as that of the forward pass."""
    return 2 * _forward_flops(x, *shapes)
