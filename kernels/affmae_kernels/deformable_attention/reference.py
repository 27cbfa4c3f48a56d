"""Off-grid deformable attention in PyTorch: the definition, and the path without Triton."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from affmae_kernels.neighbours import TokenSearch


def deformable_attention_reference(
    values: Tensor,
    query_pos: Tensor,
    offsets: Tensor,
    weights: Tensor,
    power: Tensor,
    index: TokenSearch,
) -> Tensor:
    """See `affmae_kernels.deformable_attention`."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    with torch.autocast(values.device.type, enabled=False):
        tensors = (t.to(dtype) for t in (query_pos, values, offsets, weights, power))
        out: Tensor = _DeformableAttention.apply(index, *tensors)
    return out.to(values.dtype)


class _DeformableAttention(torch.autograd.Function):
    """Weighted sums of value rows, without a copy of the gathered rows.

    `embedding_bag` is that sum, fused. Its own backward pass for the rows is
    slow, but their gradient is another such sum, over the transposed index.
    Of the sampling, only the nearest tokens are kept for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        index: TokenSearch,
        query_pos: Tensor,
        values: Tensor,
        offsets: Tensor,
        weights: Tensor,
        power: Tensor,
    ) -> Tensor:
        locations = query_pos[:, :, None, None] + offsets
        near = index.nearest(locations.flatten(1, 3)).unflatten(1, offsets.shape[1:4])
        shares = _shares(near, index, query_pos, offsets, weights, power)
        out = F.embedding_bag(
            _rows(near, values), _table(values), mode="sum", per_sample_weights=_bags(shares)
        )
        ctx.index = index
        ctx.save_for_backward(query_pos, values, offsets, weights, power, near.to(torch.int32))
        return out.view(*offsets.shape[:3], values.shape[3])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query_pos, values, offsets, weights, power, near = ctx.saved_tensors
        near = near.long()
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_() for t in (offsets, weights, power)]
            shares = _shares(near, ctx.index, query_pos, *leaves)
        grad, rows = grad.reshape(-1, values.shape[3]), _rows(near, values)
        d_values = _transposed_bag_sum(grad, rows, shares.detach(), len(_table(values)))
        with torch.enable_grad():
            leaf = _bags(shares).detach().requires_grad_()
            out = F.embedding_bag(rows, _table(values), mode="sum", per_sample_weights=leaf)
        (d_shares,) = torch.autograd.grad(out, leaf, grad)
        d_leaves = torch.autograd.grad(shares, leaves, d_shares.view_as(shares))
        return (None, None, d_values.view_as(values), *d_leaves)


def _shares(
    near: Tensor,
    index: TokenSearch,
    query_pos: Tensor,
    offsets: Tensor,
    weights: Tensor,
    power: Tensor,
) -> Tensor:
    """Compute each sampled token's share of a query's sum, (B, Q, H, P, nearest)."""
    image = torch.arange(len(near), device=near.device).view(-1, 1, 1, 1, 1)
    locations = query_pos[:, :, None, None] + offsets
    tokens = index.points[image, near].to(locations.dtype)
    # The norm's gradient is defined as zero where the distance is zero.
    distance = torch.linalg.vector_norm(locations[..., None, :] - tokens, dim=-1)
    interpolation = (-power.clamp(min=1e-6) * (distance + 1e-6)).softmax(-1)
    return interpolation * weights[..., None]


def _table(values: Tensor) -> Tensor:
    """View values (B, N, H, D) as rows (B * N * H, D)."""
    return values.detach().reshape(-1, values.shape[3])


def _bags(shares: Tensor) -> Tensor:
    """View (B, Q, H, P, nearest) as one bag for each query and head."""
    return shares.flatten(3).flatten(0, 2)


def _rows(near: Tensor, values: Tensor) -> Tensor:
    """Turn token indices into rows of the table, a bag for each query and head."""
    batch, tokens, heads, _ = values.shape
    image = torch.arange(batch, device=near.device).view(-1, 1, 1, 1, 1)
    head = torch.arange(heads, device=near.device).view(1, 1, -1, 1, 1)
    return _bags((image * tokens + near) * heads + head)


def _transposed_bag_sum(grad: Tensor, rows: Tensor, shares: Tensor, table_rows: int) -> Tensor:
    """Sum each table row's share of the gradients of the bags that it is in."""
    ordered, order = rows.flatten().to(torch.int32).sort(stable=True)
    starts = torch.searchsorted(
        ordered, torch.arange(table_rows, device=rows.device, dtype=torch.int32)
    )
    return F.embedding_bag(
        order // rows.shape[1],
        grad,
        starts,
        mode="sum",
        per_sample_weights=shares.flatten()[order],
    )
