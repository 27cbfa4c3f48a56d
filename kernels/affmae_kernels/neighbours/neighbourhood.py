"""The keys that each query attends to, and how queries share them.

Tokens of a stage are sorted by cluster, so consecutive queries want nearly the
same clusters. They are therefore worked on in tiles of `TILE` queries against
the union of the tile's clusters, as dense matrix products under a mask, rather
than with one gather a query.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from affmae_kernels._dispatch import Backend, choose_backend, is_exported
from affmae_kernels.neighbours.static_search import StaticSearch
from affmae_kernels.neighbours.token_index import TokenIndex, compact

if TYPE_CHECKING:
    from affmae_kernels.neighbours.cluster_lists import ClusterLists

TILE = 16
# A group has so many tiles: enough for the matrix units, few enough for the cache.
_TILES_AT_ONCE = 16


@dataclass(frozen=True)
class TileGroup:
    """Some consecutive tiles and the clusters that their queries need.

    Here n is the number of tiles, T the queries of a tile, and K the keys of
    the group: the largest union of clusters times the cluster size.

    Attributes
    ----------
    tiles : slice
        Where the tiles stand among all tiles of the batch.
    clusters : Tensor of int64, shape (n * K / cluster_size,)
        Clusters of each tile, counted through the batch.
    hidden : Tensor of bool, shape (n, T, K)
        Keys that a query does not attend to.
    query_pos : Tensor of float, shape (n, T, 1, 2)
    key_pos : Tensor of float, shape (n, 1, K, 2)
        Their positions.
    """

    tiles: slice
    clusters: Tensor
    hidden: Tensor
    query_pos: Tensor
    key_pos: Tensor

    def geometry(self, dtype: torch.dtype) -> Tensor:
        """Compute the relative geometry of every key seen from every query.

        It takes little time to compute and much memory to keep, so it is not kept.

        Returns
        -------
        Tensor of `dtype`, shape (5, n, T, K)
        """
        return relative_geometry(self.query_pos.to(dtype), self.key_pos.to(dtype))


@dataclass(frozen=True)
class Neighbourhood:
    """The clusters of keys that each query attends to.

    Attributes
    ----------
    query_pos : Tensor of float, shape (B, Q, 2)
        Positions (x, y) of the queries, cells.
    key_pos : Tensor of float, shape (B, N, 2)
        Positions of the keys, sorted by cluster.
    clusters : Tensor of int64, shape (B, Q, M)
        Each query's clusters, in any order.
    cluster_size : int
        Cluster c holds the keys from c * cluster_size on; the last may be short.
    """

    query_pos: Tensor
    key_pos: Tensor
    clusters: Tensor
    cluster_size: int

    @property
    def cluster_count(self) -> int:
        """Number of clusters of an image."""
        return -(-self.key_pos.shape[1] // self.cluster_size)

    @property
    def tile_count(self) -> int:
        """Number of tiles of an image."""
        return -(-self.query_pos.shape[1] // TILE)

    def select(self, queries: Tensor) -> "Neighbourhood":
        """Keep some queries and all keys.

        Parameters
        ----------
        queries : Tensor of int64, shape (B, Q')
        """

        def take(rows: Tensor) -> Tensor:
            return rows.gather(1, queries.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))

        return Neighbourhood(
            take(self.query_pos), self.key_pos, take(self.clusters), self.cluster_size
        )

    @cached_property
    def lists(self) -> "ClusterLists":
        """The lists that the Triton kernels take instead of `groups`."""
        from affmae_kernels.neighbours.cluster_lists import ClusterLists  # needs Triton

        return ClusterLists.build(self.query_pos, self.key_pos, self.clusters, self.cluster_count)

    @cached_property
    def groups(self) -> list[TileGroup]:
        """All tiles of the batch, image after image."""
        return list(self._build_groups())

    def _build_groups(self) -> Iterator[TileGroup]:
        wanted = self.split_queries(self.clusters).flatten(0, 1)
        union, slots = _union(wanted, self.cluster_count)
        query_pos = self.split_queries(self.query_pos).flatten(0, 1)
        key_pos = self.split_clusters(self.key_pos).flatten(0, 1)
        real = self.split_clusters(self.key_pos.new_ones(self.key_pos.shape[:2]))
        real = real.flatten(0, 1).bool()
        first = torch.arange(len(union), device=union.device) // self.tile_count
        for start in range(0, len(union), _TILES_AT_ONCE):
            tiles = slice(start, min(start + _TILES_AT_ONCE, len(union)))
            width = int(slots[tiles].max()) + 1
            ids = union[tiles, :width]
            owned = torch.zeros(
                (*wanted[tiles].shape[:2], width), dtype=torch.bool, device=union.device
            ).scatter_(-1, slots[tiles], value=True)
            # A padded place points at cluster 0, and no query owns it.
            ids = torch.where(ids < self.cluster_count, ids, 0)
            ids = ids + first[tiles, None] * self.cluster_count
            visible = owned[..., None] & real[ids][:, None]
            pos = key_pos[ids].flatten(1, 2)
            yield TileGroup(
                tiles,
                ids.flatten(),
                ~visible.flatten(2),
                query_pos[tiles, :, None],
                pos[:, None],
            )

    def split_queries(self, values: Tensor) -> Tensor:
        """Cut (B, Q, ...) into tiles (B, tiles, TILE, ...), the last one zero-padded."""
        return _split(values, self.tile_count, TILE)

    def split_clusters(self, values: Tensor) -> Tensor:
        """Cut (B, N, ...) into clusters (B, clusters, size, ...), zero-padded."""
        return _split(values, self.cluster_count, self.cluster_size)


def find_neighbourhood(
    pos: Tensor,
    canvas: tuple[int, int],
    neighbourhood: int,
    cluster_size: int,
    backend: Backend = "auto",
) -> Neighbourhood:
    """Give every token the clusters nearest to it (ties to the lower index).

    Parameters
    ----------
    pos : Tensor of float, shape (B, N, 2)
        Tokens sorted by cluster.
    canvas : tuple of int
        Rows and columns of the token canvas, cells.
    neighbourhood : int
        Tokens to attend to; all of them where there are no more than that.
    cluster_size : int
        Tokens in a cluster; the last may be short.
    backend : {"auto", "triton", "torch"}
        What searches.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run, or not for so many clusters.
    """
    batch, n, _ = pos.shape
    count = -(-n // cluster_size)
    if neighbourhood >= n:
        clusters = torch.arange(count, device=pos.device).expand(batch, n, count)
    else:
        wanted = max(1, min(round(neighbourhood / cluster_size), count))
        clusters = _nearest_clusters(pos, canvas, wanted, cluster_size, backend)
    return Neighbourhood(pos, pos, clusters, cluster_size)


def _nearest_clusters(
    pos: Tensor, canvas: tuple[int, int], wanted: int, cluster_size: int, backend: Backend
) -> Tensor:
    if choose_backend(backend, pos.device, limit=("clusters of a query", wanted, 8)) == "torch":
        parts = -(-pos.shape[1] // cluster_size)
        sizes = _split(torch.ones_like(pos[..., :1]), parts, cluster_size).sum(2)
        centres = _split(pos, parts, cluster_size).sum(2) / sizes
        if is_exported():
            return StaticSearch.build(centres, canvas, wanted, whole=False).nearest(pos)
        return TokenIndex.build(centres, canvas, wanted).nearest(pos)
    from affmae_kernels.neighbours._triton import cluster_centres, nearest_clusters

    return nearest_clusters(cluster_centres(pos, cluster_size), pos, canvas, wanted)


def relative_geometry(query_pos: Tensor, key_pos: Tensor) -> Tensor:
    """Compute (dx, dy, d, dy/d, dx/d) of keys seen from queries (paper section 3).

    Parameters
    ----------
    query_pos, key_pos : Tensor of float, shapes (..., 2)
        Broadcast against each other.

    Returns
    -------
    Tensor of float, shape (5, ...)
        The last two are zero where the distance is.
    """
    # Not torch.broadcast_shapes, whose first call imports sympy.
    shape = torch.broadcast_tensors(query_pos, key_pos)[0].shape[:-1]
    out = query_pos.new_empty((5, *shape))
    dx, dy, d, sine, cosine = out
    for axis, offset in enumerate((dx, dy)):
        torch.sub(key_pos[..., axis], query_pos[..., axis], out=offset)
    torch.hypot(dx, dy, out=d)
    # Where the distance is zero, the offsets are too, so the scale may be any finite number.
    scale = d.clamp(min=torch.finfo(d.dtype).tiny).reciprocal_()
    torch.mul(dy, scale, out=sine)
    torch.mul(dx, scale, out=cosine)
    return out


def _split(values: Tensor, parts: int, size: int) -> Tensor:
    missing = parts * size - values.shape[1]
    padded = F.pad(values, (0, 0) * (values.ndim - 2) + (0, missing)) if missing else values
    return padded.unflatten(1, (parts, size))


def _union(wanted: Tensor, fill: int) -> tuple[Tensor, Tensor]:
    """Find the different clusters of each tile, and each query's places among them.

    Parameters
    ----------
    wanted : Tensor of int64, shape (tiles, T, M)
        Clusters of each query.
    fill : int
        Number that pads the shorter unions; larger than any cluster.

    Returns
    -------
    union : Tensor of int64, shape (tiles, U), ascending
    slots : Tensor of int64, shape (tiles, T, M)
    """
    flat = wanted.flatten(1)
    ordered = flat.sort(-1).values
    fresh = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True)
    union = compact(ordered, fresh, fill)
    return union, torch.searchsorted(union, flat).view_as(wanted)
