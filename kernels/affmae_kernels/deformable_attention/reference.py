"""Off-grid deformable attention in PyTorch: the definition, and the path without Triton."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from affmae_kernels.neighbours import TokenIndex


def deformable_attention_reference(
    values: Tensor,
    query_pos: Tensor,
    offsets: Tensor,
    weights: Tensor,
    power: Tensor,
    index: TokenIndex,
) -> Tensor:
    """See `affmae_kernels.deformable_attention`."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    with torch.autocast(values.device.type, enabled=False):
        locations = query_pos[:, :, None, None].to(dtype) + offsets.to(dtype)
        near = index.nearest(locations.detach().flatten(1, 3)).unflatten(1, offsets.shape[1:4])
        image = torch.arange(len(values), device=values.device).view(-1, 1, 1, 1, 1)
        # The norm's gradient is defined as zero where the distance is zero.
        distance = torch.linalg.vector_norm(
            locations[..., None, :] - index.points[image, near].to(dtype), dim=-1
        )
        shares = (-power.to(dtype).clamp(min=1e-6) * (distance + 1e-6)).softmax(-1)
        shares = shares * weights.to(dtype)[..., None]
        tokens, heads, width = values.shape[1:]
        head = torch.arange(heads, device=values.device).view(1, 1, -1, 1, 1)
        rows = (image * tokens + near) * heads + head
        out: Tensor = _WeightedRows.apply(
            values.to(dtype).reshape(-1, width),
            rows.flatten(3).flatten(0, 2),
            shares.flatten(3).flatten(0, 2),
        )
    return out.view(*query_pos.shape[:2], heads, width).to(values.dtype)


class _WeightedRows(torch.autograd.Function):
    """Weighted sums of table rows, without a copy of the gathered rows.

    `embedding_bag` is that sum, fused. Its own backward pass for the table is
    slow, but that gradient is another such sum, over the transposed index.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, rows, weights)
        return F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, rows, weights = ctx.saved_tensors
        grad = grad.contiguous()
        ordered, order = rows.flatten().to(torch.int32).sort(stable=True)
        starts = torch.searchsorted(
            ordered, torch.arange(len(table), device=table.device, dtype=torch.int32)
        )
        d_table = F.embedding_bag(
            order // rows.shape[1],
            grad,
            starts,
            mode="sum",
            per_sample_weights=weights.flatten()[order],
        )
        with torch.enable_grad():
            leaf = weights.detach().requires_grad_()
            bags = F.embedding_bag(rows, table.detach(), mode="sum", per_sample_weights=leaf)
        return d_table, None, torch.autograd.grad(bags, leaf, grad)[0]
