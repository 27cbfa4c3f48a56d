"""The keys of each query, gathered one by one, with sizes that follow from shapes alone.

For graphs that are exported. It computes what tiles of queries do (`Neighbourhood.groups`),
whose unions of clusters are as wide as the positions demand.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from affmae_kernels.neighbours.neighbourhood import Neighbourhood


@dataclass(frozen=True)
class StaticKeys:
    """The keys of each query.

    Attributes
    ----------
    ids : Tensor of int64, shape (B, Q, K)
        Keys; K is the number of a query's clusters times their size.
    hidden : Tensor of bool, shape (B, Q, K)
        Places of the last cluster that hold no key.
    geometry : Tensor of float, shape (B, Q, K, 5)
        See `relative_geometry`.
    """

    ids: Tensor
    hidden: Tensor
    geometry: Tensor

    @classmethod
    def of(cls, neighbourhood: Neighbourhood, dtype: torch.dtype) -> Self:
        """List the keys of a neighbourhood's queries; `dtype` is that of the geometry."""
        size, tokens = neighbourhood.cluster_size, neighbourhood.key_pos.shape[1]
        clusters = neighbourhood.clusters
        steps = torch.arange(size, device=clusters.device)
        ids = (clusters[..., None] * size + steps).flatten(2)
        hidden = ids >= tokens
        ids = ids.clamp(max=tokens - 1)
        key_pos = _gather(neighbourhood.key_pos.to(dtype), ids)
        offset = key_pos - neighbourhood.query_pos.to(dtype)[:, :, None]
        distance = offset.square().sum(-1, keepdim=True).sqrt()
        # Where the distance is zero, the offsets are too, so the divisor may be any other number.
        direction = offset / torch.where(distance > 0, distance, 1)
        geometry = torch.cat([offset, distance, direction.flip(-1)], dim=-1)
        return cls(ids, hidden, geometry)

    def take(self, rows: Tensor) -> Tensor:
        """Gather what belongs to the keys: (B, N, ...) to (B, Q, K, ...)."""
        return _gather(rows.flatten(2), self.ids).unflatten(-1, rows.shape[2:])


def _gather(rows: Tensor, ids: Tensor) -> Tensor:
    """Gather rows (B, N, C) by (B, Q, K), giving (B, Q, K, C)."""
    flat = ids.flatten(1).unsqueeze(-1).expand(-1, -1, rows.shape[-1])
    return rows.gather(1, flat).view(*ids.shape, rows.shape[-1])
