"""Cluster attention in PyTorch: the definition, and the path without Triton.

Tiles of queries attend to the union of their clusters (see
`affmae_kernels.neighbours`). Both passes go through the tiles in groups and
keep nothing of the logits' size: the backward pass computes them again from
the saved log-sum-exp, so memory grows with the tokens alone.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from affmae_kernels._dispatch import is_exported
from affmae_kernels.cluster_attention.static import attend_statically
from affmae_kernels.neighbours import Neighbourhood
from affmae_kernels.neighbours.neighbourhood import TileGroup


def cluster_attention_reference(
    query_key_value: Tensor,
    projection_bias: Tensor | None,
    blank_k: Tensor,
    blank_v: Tensor,
    bias_weight: Tensor,
    bias: Tensor,
    neighbourhood: Neighbourhood,
) -> Tensor:
    """See `affmae_kernels.cluster_attention`."""
    dtype = torch.promote_types(query_key_value.dtype, torch.float32)
    with torch.autocast(query_key_value.device.type, enabled=False):
        rows = query_key_value.to(dtype)
        if projection_bias is not None:
            rows = rows + projection_bias.to(dtype)
        q, k, v = rows.unbind(2)
        small = (t.to(dtype) for t in (blank_k, blank_v, bias_weight, bias))
        if is_exported():
            out = attend_statically(neighbourhood, q, k, v, *small)
        else:
            out = _ClusterAttention.apply(neighbourhood, q, k, v, *small)
    return out.to(query_key_value.dtype)


class _ClusterAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        neighbourhood: Neighbourhood,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        blank_k: Tensor,
        blank_v: Tensor,
        bias_weight: Tensor,
        bias: Tensor,
    ) -> Tensor:
        queries = _scaled_queries(q, neighbourhood)
        keys, values = (_cluster_rows(t, neighbourhood) for t in (k, v))
        out = torch.empty_like(queries)
        log_sum = queries.new_empty(queries.shape[:-1])
        for group in neighbourhood.groups:
            qt = queries[:, group.tiles]
            geometry = group.geometry(q.dtype)
            logits = _logits(qt, _take(keys, group), bias_weight, bias, group, geometry)
            blank = (qt @ blank_k[:, None, :, None])[..., 0]
            # logsumexp is not used, because it would compute every exponential twice.
            highest = torch.maximum(logits.amax(-1), blank)
            weights = logits.sub_(highest[..., None]).exp_()
            blank_weight = blank.sub_(highest).exp_()
            total = weights.sum(-1).add_(blank_weight)
            summed = weights @ _take(values, group)
            summed += blank_weight[..., None] * blank_v[:, None, None]
            out[:, group.tiles] = summed.div_(total[..., None])
            log_sum[:, group.tiles] = total.log_().add_(highest)
        ctx.neighbourhood = neighbourhood
        result = _untile_queries(out, q)
        ctx.save_for_backward(q, k, v, blank_k, blank_v, bias_weight, bias, result, log_sum)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, blank_k, blank_v, bias_weight, bias, result, log_sum = ctx.saved_tensors
        neighbourhood: Neighbourhood = ctx.neighbourhood
        # With P the weights, dlogits = P (dP - sum_j P_j dP_j), and the sum is <grad, result>.
        total = (grad * result).sum(-1, keepdim=True)
        queries = _scaled_queries(q, neighbourhood)
        grads, shift = (_tile_queries(t, neighbourhood) for t in (grad, total))
        keys, values = (_cluster_rows(t, neighbourhood) for t in (k, v))
        d_queries, d_keys, d_values = map(torch.zeros_like, (queries, keys, values))
        d_blank_k, d_blank_v = torch.zeros_like(blank_k), torch.zeros_like(blank_v)
        d_weight, d_bias = torch.zeros_like(bias_weight), torch.zeros_like(bias)
        for group in neighbourhood.groups:
            tiles = group.tiles
            qt, gt, st, lt = queries[:, tiles], grads[:, tiles], shift[:, tiles], log_sum[:, tiles]
            kt, vt = _take(keys, group), _take(values, group)
            geometry = group.geometry(q.dtype)
            weights = _logits(qt, kt, bias_weight, bias, group, geometry).sub_(lt[..., None]).exp_()
            _put(d_values, weights.mT @ gt, group)
            d_logits = (gt @ vt.mT).sub_(st).mul_(weights)
            _put(d_keys, d_logits.mT @ qt, group)
            blank_weight = ((qt @ blank_k[:, None, :, None])[..., 0] - lt).exp_()[..., None]
            d_blank = blank_weight * ((gt @ blank_v[:, None, :, None]) - st)
            d_queries[:, tiles] = d_logits @ kt + d_blank * blank_k[:, None, None]
            d_blank_k += (d_blank * qt).sum((1, 2))
            d_blank_v += (blank_weight * gt).sum((1, 2))
            flat = d_logits.flatten(1)
            d_weight += flat @ geometry.flatten(1).mT
            d_bias += flat.sum(1)
        return (
            None,
            _untile_queries(d_queries.mul_(q.shape[-1] ** -0.5), q),
            _uncluster_rows(d_keys, k),
            _uncluster_rows(d_values, v),
            d_blank_k,
            d_blank_v,
            d_weight,
            d_bias,
        )


def _logits(
    queries: Tensor,
    keys: Tensor,
    bias_weight: Tensor,
    bias: Tensor,
    group: TileGroup,
    geometry: Tensor,
) -> Tensor:
    """Compute the logits q k + w g + b, (H, n, T, K); those of hidden keys are minus infinity."""
    heads, shape = len(bias), geometry.shape[1:]
    offset = torch.addmm(bias[:, None], bias_weight, geometry.flatten(1)).view(heads, *shape)
    logits = torch.baddbmm(offset.flatten(0, 1), queries.flatten(0, 1), keys.flatten(0, 1).mT)
    return logits.view(heads, *shape).masked_fill_(group.hidden, -torch.inf)


def _scaled_queries(q: Tensor, neighbourhood: Neighbourhood) -> Tensor:
    """Divide queries by sqrt(D) and lay them out as tiles."""
    return _tile_queries(q, neighbourhood) * q.shape[-1] ** -0.5


def _tile_queries(x: Tensor, neighbourhood: Neighbourhood) -> Tensor:
    """Lay (B, Q, H, D) out as tiles (H, B * tiles, T, D)."""
    return neighbourhood.split_queries(x).permute(3, 0, 1, 2, 4).contiguous().flatten(1, 2)


def _untile_queries(tiles: Tensor, like: Tensor) -> Tensor:
    batch, queries = like.shape[:2]
    return (
        tiles.unflatten(1, (batch, -1))
        .flatten(2, 3)[:, :, :queries]
        .permute(1, 2, 0, 3)
        .contiguous()
    )


def _cluster_rows(x: Tensor, neighbourhood: Neighbourhood) -> Tensor:
    """Lay (B, N, H, D) out as clusters (H, B * clusters, size * D)."""
    rows = neighbourhood.split_clusters(x).permute(3, 0, 1, 2, 4)
    return rows.contiguous().flatten(1, 2).flatten(2)


def _uncluster_rows(rows: Tensor, like: Tensor) -> Tensor:
    batch, tokens, _, width = like.shape
    split = rows.unflatten(2, (-1, width)).unflatten(1, (batch, -1)).flatten(2, 3)
    return split[:, :, :tokens].permute(1, 2, 0, 3).contiguous()


def _take(rows: Tensor, group: TileGroup) -> Tensor:
    """Gather a group's keys from cluster rows, giving (H, n, K, D)."""
    n, _, keys = group.hidden.shape
    taken = rows.index_select(1, group.clusters)
    return taken.view(rows.shape[0], n, keys, -1)


def _put(rows: Tensor, values: Tensor, group: TileGroup) -> None:
    """Add (H, n, K, D) onto cluster rows; the transpose of `_take`."""
    for head, part in zip(rows, values, strict=True):
        head.index_add_(0, group.clusters, part.reshape(-1, rows.shape[2]))
