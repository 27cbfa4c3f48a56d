"""Cluster attention with sizes that follow from shapes alone, for graphs that are exported."""

import torch
from torch import Tensor

from affmae_kernels.neighbours import Neighbourhood
from affmae_kernels.neighbours.static_keys import StaticKeys


def attend_statically(
    neighbourhood: Neighbourhood,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blank_k: Tensor,
    blank_v: Tensor,
    bias_weight: Tensor,
    bias: Tensor,
) -> Tensor:
    """Attend from queries (B, N, H, D) to gathered keys; see `affmae_kernels.cluster_attention`."""
    keys = StaticKeys.of(neighbourhood, q.dtype)
    queries = (q * q.shape[-1] ** -0.5).unsqueeze(3)  # (B, N, H, 1, D)
    logits = queries @ keys.take(k).permute(0, 1, 3, 4, 2)
    offset = (keys.geometry @ bias_weight.mT + bias).transpose(-1, -2)  # (B, N, H, K)
    logits = (logits.squeeze(3) + offset).masked_fill(keys.hidden.unsqueeze(2), -torch.inf)
    blank = (queries.squeeze(3) * blank_k).sum(-1, keepdim=True)
    weights = torch.cat([logits, blank], dim=-1).softmax(-1)
    seen = weights[..., :-1].unsqueeze(3) @ keys.take(v).transpose(2, 3)
    return seen.squeeze(3) + weights[..., -1:] * blank_v
