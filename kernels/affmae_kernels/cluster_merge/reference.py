"""Adaptive merging in PyTorch: the definition, and the path without Triton."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from affmae_kernels._dispatch import is_exported
from affmae_kernels.cluster_merge.static import merge_statically
from affmae_kernels.neighbours import Neighbourhood
from affmae_kernels.neighbours.neighbourhood import TILE, TileGroup


def cluster_merge_reference(
    x: Tensor,
    importance: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    neighbourhood: Neighbourhood,
) -> Tensor:
    """See `affmae_kernels.cluster_merge`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        tensors = (t.to(dtype) for t in (x, importance, weight, bias, norm_weight, norm_bias))
        if is_exported():
            out = merge_statically(neighbourhood, *tensors)
        else:
            out = _ClusterMerge.apply(neighbourhood, *tensors)
    return out.to(x.dtype)


class _ClusterMerge(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, neighbourhood: Neighbourhood, x: Tensor, importance: Tensor, *small: Tensor
    ) -> Tensor:
        rows, scores = (_cluster_rows(t, neighbourhood) for t in (x, importance))
        batch, queries = neighbourhood.query_pos.shape[:2]
        maps, channels = len(small[0]), x.shape[2]
        out = x.new_empty((batch * neighbourhood.tile_count, TILE, maps, channels))
        for group in neighbourhood.groups:
            weights = _weights(group, *small) * _take(scores, group).mT[:, None]
            merged = weights.flatten(1, 2) @ _take(rows, group)
            out[group.tiles] = merged.view(-1, maps, TILE, channels).transpose(1, 2)
        ctx.neighbourhood = neighbourhood
        ctx.save_for_backward(x, importance, *small)
        out = out.view(batch, -1, maps * channels)[:, :queries]
        return out.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, importance, *small = ctx.saved_tensors
        neighbourhood: Neighbourhood = ctx.neighbourhood
        maps, channels = len(small[0]), x.shape[2]
        rows, scores = (_cluster_rows(t, neighbourhood) for t in (x, importance))
        d_rows, d_scores = torch.zeros_like(rows), torch.zeros_like(scores)
        d_small = [torch.zeros_like(t) for t in small]
        tiles = neighbourhood.split_queries(grad.unflatten(-1, (maps, channels)))
        tiles = tiles.flatten(0, 1).transpose(1, 2).flatten(1, 2)
        for group in neighbourhood.groups:
            grads, keys = tiles[group.tiles], _take(rows, group)
            score = _take(scores, group).mT[:, None]
            with torch.enable_grad():
                leaves = [t.detach().requires_grad_() for t in small]
                geometric = _weights(group, *leaves)
            weights = (geometric.detach() * score).flatten(1, 2)
            _put(d_rows, weights.mT @ grads, group)
            d_weights = (grads @ keys.mT).view_as(geometric)
            _put(d_scores, (d_weights * geometric.detach()).sum((1, 2)), group)
            for total, part in zip(
                d_small, torch.autograd.grad(geometric, leaves, d_weights * score), strict=True
            ):
                total.add_(part)
        return (None, _uncluster(d_rows, x), _uncluster(d_scores, importance), *d_small)


def _weights(
    group: TileGroup, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor
) -> Tensor:
    """Compute GELU(LN(W g + b)) of shape (n, maps, T, K), zero where hidden."""
    geometry = group.geometry(weight.dtype)
    mapped = torch.addmm(bias[:, None], weight, geometry.flatten(1))
    centred = mapped - mapped.mean(0)
    normed = centred * torch.rsqrt(centred.square().mean(0) + 1e-5)
    weights = F.gelu(normed * norm_weight[:, None] + norm_bias[:, None])
    weights = weights.view(-1, *geometry.shape[1:]).transpose(0, 1)
    return weights.masked_fill(group.hidden[:, None], 0)


def _cluster_rows(x: Tensor, neighbourhood: Neighbourhood) -> Tensor:
    """Lay (B, N, C) out as clusters (B * clusters, size * C)."""
    return neighbourhood.split_clusters(x).flatten(0, 1).flatten(1)


def _uncluster(rows: Tensor, like: Tensor) -> Tensor:
    batch, tokens, channels = like.shape
    return rows.view(batch, -1, channels)[:, :tokens].contiguous()


def _take(rows: Tensor, group: TileGroup) -> Tensor:
    """Gather a group's keys from cluster rows, giving (n, K, C)."""
    n, _, keys = group.hidden.shape
    return rows.index_select(0, group.clusters).view(n, keys, -1)


def _put(rows: Tensor, values: Tensor, group: TileGroup) -> None:
    """Add (n, K, C) onto cluster rows; the transpose of `_take`."""
    rows.index_add_(0, group.clusters, values.reshape(-1, rows.shape[1]))
