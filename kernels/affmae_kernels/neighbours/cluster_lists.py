"""Lists of clusters and of queries for the Triton kernels of attention and merging."""

from dataclasses import dataclass
from functools import partial
from typing import Self

from torch import Tensor

from affmae_kernels._launch import side_by_side
from affmae_kernels.neighbours import _triton


@dataclass(frozen=True)
class ClusterLists:
    """Clusters of each tile of queries, and queries of each cluster.

    Sizes follow from shapes alone; places that a list does not use are not written.

    Attributes
    ----------
    query_pos, key_pos : Tensor of float32, shapes (B, Q, 2) and (B, N, 2)
    ids : Tensor of int32, shape (B, tiles, U)
        The different clusters of each tile.
    bits : Tensor of int32, shape (B, tiles, U)
        Bit i is set where query i of the tile attends to the cluster.
    lengths : Tensor of int32, shape (B, tiles)
        Clusters of each tile.
    queries : Tensor of int32, shape (B * Q * M,)
        The queries of each cluster, list after list.
    bounds : Tensor of int32, shape (2, B * clusters)
        Where the list of each cluster starts and ends.
    """

    query_pos: Tensor
    key_pos: Tensor
    ids: Tensor
    bits: Tensor
    lengths: Tensor
    queries: Tensor
    bounds: Tensor

    @classmethod
    def build(
        cls, query_pos: Tensor, key_pos: Tensor, clusters: Tensor, cluster_count: int
    ) -> Self:
        """List the `clusters` (B, Q, M) of queries among `cluster_count` an image."""
        builders = [
            partial(_triton.tile_lists, clusters, cluster_count),
            partial(_triton.query_lists, clusters, cluster_count),
        ]
        (ids, bits, lengths), (queries, bounds) = side_by_side(clusters.device, builders)
        positions = (query_pos.float().contiguous(), key_pos.float().contiguous())
        return cls(*positions, ids, bits, lengths, queries, bounds)
