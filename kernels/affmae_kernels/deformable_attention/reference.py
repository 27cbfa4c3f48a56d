"""Off-grid deformable attention in PyTorch: the definition, and the path without Triton."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from affmae_kernels._dispatch import is_exported
from affmae_kernels.deformable_attention.static import sample_statically
from affmae_kernels.neighbours import TokenSearch

_LEAST_POWER = 1e-6


def deformable_attention_reference(
    values: Tensor,
    query_pos: Tensor,
    sampling: Tensor,
    power: Tensor,
    index: TokenSearch,
) -> Tensor:
    """See `affmae_kernels.deformable_attention`."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    heads, samples = values.shape[2], sampling.shape[2] // 3
    with torch.autocast(values.device.type, enabled=False):
        offsets, logits = sampling.to(dtype).split([2 * samples, samples], dim=-1)
        weights = logits.unflatten(-1, (heads, -1)).softmax(-1)
        tensors = (
            query_pos.to(dtype),
            values.to(dtype),
            offsets.unflatten(-1, (heads, -1, 2)),
            weights,
            power.to(dtype),
        )
        if is_exported():
            out = sample_statically(index, *tensors, _LEAST_POWER)
        else:
            out = _DeformableAttention.apply(index, *tensors)
    return out.to(values.dtype)


class _DeformableAttention(torch.autograd.Function):
    """Weighted sums of value rows, without a copy of the gathered rows.

    `embedding_bag` is that sum, fused. Its own backward pass for the rows is
    slow, but their gradient is another such sum, over the transposed index.
    The backward pass keeps nothing of the sampling but the nearest tokens.
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
        near = near.movedim(-1, 0).contiguous()
        *_, interpolation = _interpolate(near, index.points, query_pos, offsets, power)
        out = F.embedding_bag(
            _rows(near, values),
            _table(values),
            mode="sum",
            per_sample_weights=_bags(interpolation.mul_(weights)),
        )
        # Only the index's points are kept, so that its tables need not outlive the forward pass.
        ctx.save_for_backward(
            query_pos, index.points, values, offsets, weights, power, near.to(torch.int32)
        )
        return out.view(*offsets.shape[:3], values.shape[3])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query_pos, points, values, offsets, weights, power, near = ctx.saved_tensors
        near = near.long()
        dx, dy, distance, interpolation = _interpolate(near, points, query_pos, offsets, power)
        grad, rows = grad.reshape(-1, values.shape[3]), _rows(near, values)
        shares = _bags(interpolation * weights)
        d_values = _transposed_bag_sum(grad, rows, shares, len(_table(values)))
        with torch.enable_grad():
            shares.requires_grad_()
            out = F.embedding_bag(rows, _table(values), mode="sum", per_sample_weights=shares)
        (d_shares,) = torch.autograd.grad(out, shares, grad)
        d_shares = d_shares.view(*weights.shape, len(near)).movedim(-1, 0).contiguous()
        d_weights = (interpolation * d_shares).sum(0)
        # This is the gradient of the softmax's logits, -power * (distance + 1e-6).
        d_logits = d_shares.sub_(d_weights).mul_(interpolation).mul_(weights)
        d_power = -(d_logits * (distance + 1e-6)).sum() * (power >= _LEAST_POWER)
        # The distance's gradient is defined as zero where the distance is zero.
        pull = d_logits.div_(distance).masked_fill_(distance == 0, 0)
        pull = pull.mul_(-power.clamp(min=_LEAST_POWER))
        d_offsets = torch.stack([(pull * dx).sum(0), (pull * dy).sum(0)], dim=-1)
        return None, None, d_values.view_as(values), d_offsets, d_weights, d_power


def _interpolate(
    near: Tensor, points: Tensor, query_pos: Tensor, offsets: Tensor, power: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the offsets of samples from their tokens, the distances, and interpolation weights.

    All results are (nearest, B, Q, H, P): the nearest tokens come first, because short last
    dimensions are slow on a CPU.
    """
    points = points.to(offsets.dtype)
    first = torch.arange(len(points), device=near.device) * points.shape[1]
    tokens = (near + first.view(-1, 1, 1, 1)).flatten()
    dx, dy = (
        query_pos[:, :, None, None, axis]
        + offsets[..., axis]
        - points[..., axis].flatten().index_select(0, tokens).view(near.shape)
        for axis in (0, 1)
    )
    distance = torch.hypot(dx, dy)
    interpolation = ((distance + 1e-6) * -power.clamp(min=_LEAST_POWER)).softmax(0)
    return dx, dy, distance, interpolation


def _table(values: Tensor) -> Tensor:
    """View values (B, N, H, D) as rows (B * N * H, D)."""
    return values.detach().reshape(-1, values.shape[3])


def _bags(shares: Tensor) -> Tensor:
    """Turn (nearest, B, Q, H, P) into one bag for each query and head."""
    return shares.movedim(0, -1).flatten(3).flatten(0, 2)


def _rows(near: Tensor, values: Tensor) -> Tensor:
    """Turn token indices into rows of the table, a bag for each query and head."""
    batch, tokens, heads, _ = values.shape
    image = torch.arange(batch, device=near.device).view(-1, 1, 1, 1)
    head = torch.arange(heads, device=near.device).view(-1, 1)
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
        per_sample_weights=shares.flatten().index_select(0, order),
    )
