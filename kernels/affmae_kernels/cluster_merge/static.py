"""Adaptive merging with sizes that follow from shapes alone, for graphs that are exported."""

from torch import Tensor
from torch.nn import functional as F

from affmae_kernels.neighbours import Neighbourhood
from affmae_kernels.neighbours.static_keys import StaticKeys


def merge_statically(
    neighbourhood: Neighbourhood,
    x: Tensor,
    importance: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
) -> Tensor:
    """Merge gathered tokens, giving (B, Q, maps * C); see `affmae_kernels.cluster_merge`."""
    keys = StaticKeys.of(neighbourhood, x.dtype)
    mapped = F.layer_norm(keys.geometry @ weight.mT + bias, bias.shape, norm_weight, norm_bias)
    weights = F.gelu(mapped) * keys.take(importance)  # (B, Q, K, maps)
    weights = weights.masked_fill(keys.hidden.unsqueeze(-1), 0)
    return (weights.mT @ keys.take(x)).flatten(2)
