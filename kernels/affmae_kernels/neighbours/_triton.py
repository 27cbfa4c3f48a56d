"""Launchers of the neighbour kernels.

Every buffer's size follows from the inputs' shapes, and nothing waits for the
GPU, so all of this can be captured in a CUDA graph.
"""

import math
from typing import Any

import torch
from torch import Tensor

from affmae_kernels._launch import blocks, interpreted, next_power_of_2, on_device_of
from affmae_kernels.neighbours import _kernels, _list_kernels

# Blocks up to so many cells off the canvas have lists of candidates too; and the longest list.
# Both matter only for speed: locations without a list are searched ring by ring.
MARGIN = 8
LIST_LENGTH = 64
MOST_NEIGHBOURS = 8
# A program that lists candidates looks at so many cells at once, for blocks of one cell and for
# larger blocks: about as many as it mostly needs.
CELLS = (64, 128)
# Queries of a tile. Each has a bit in the integer that tells which queries own a cluster.
TILE = 32
# A program has one warp, so that its reductions stay inside the warp. The interpreter gets larger
# programs, because its time grows with their number.
_SEARCH = {"BLOCK": 1024 if interpreted() else 32, "num_warps": 1, "enable_fp_fusion": False}


class Buckets:
    """Points of each image in square buckets.

    Parameters
    ----------
    points : Tensor of float32, shape (B, N, 2)
        Positions (x, y) in cells, within the canvas.
    canvas : tuple of int
        Rows and columns of the canvas, cells.
    side : float
        Side of a bucket, cells. With 1 and integer positions, buckets are cells.
    """

    def __init__(self, points: Tensor, canvas: tuple[int, int], side: float) -> None:
        self.points = points.float().contiguous()
        self.side = side
        self.rows, self.columns = (math.ceil(extent / side) for extent in canvas)
        self.heads, self.links = fill_buckets(self.points, self.rows, self.columns, side)

    def nearest(self, locations: Tensor, count: int, *, chained: bool) -> Tensor:
        """Find the `count` (at most 8 and N) points nearest to each of (B, Q, 2) locations.

        `chained` says that a bucket may hold several points.
        """
        found: Tensor = nearest_points(
            locations.detach().float().contiguous(),
            self.points,
            self.heads,
            self.links,
            self.side,
            count,
            chained,
        )
        return found


@torch.library.custom_op("affmae::fill_buckets", mutates_args=())
def fill_buckets(points: Tensor, rows: int, columns: int, side: float) -> tuple[Tensor, Tensor]:
    """Link every point into its bucket.

    Returns
    -------
    heads : Tensor of int32, shape (B, rows, columns)
        The first point of each bucket, or -1.
    links : Tensor of int32, shape (B, N)
        The next point in the same bucket, or -1.
    """
    batch, count, _ = points.shape
    heads = points.new_full((batch, rows, columns), -1, dtype=torch.int32)
    links = points.new_empty((batch, count), dtype=torch.int32)
    with on_device_of(points):
        _kernels._fill_buckets_kernel[blocks(count, 128), batch](
            points, heads, links, count, rows, columns, side, BLOCK=128
        )
    return heads, links


@torch.library.custom_op("affmae::nearest_points", mutates_args=())
def nearest_points(
    locations: Tensor,
    points: Tensor,
    heads: Tensor,
    links: Tensor,
    side: float,
    count: int,
    chained: bool,
) -> Tensor:
    """Search the buckets; see `Buckets.nearest`."""
    batch, queries, _ = locations.shape
    out = locations.new_empty((batch, queries, count), dtype=torch.int64)
    with on_device_of(out):
        _kernels._nearest_kernel[blocks(queries, _SEARCH["BLOCK"]), batch](
            locations, heads, links, points, out,
            queries, points.shape[1], *heads.shape[1:], side,
            COUNT=count, CHAINED=chained, **_SEARCH,
        )  # fmt: skip
    return out


@torch.library.custom_op("affmae::cluster_centres", mutates_args=())
def cluster_centres(pos: Tensor, cluster_size: int) -> Tensor:
    """Average the positions of each run of `cluster_size` tokens; the last may be short.

    Parameters
    ----------
    pos : Tensor of float, shape (B, N, 2)
    cluster_size : int

    Returns
    -------
    Tensor of float32, shape (B, clusters, 2)
    """
    batch, tokens, _ = pos.shape
    clusters = blocks(tokens, cluster_size)
    centres = pos.new_empty((batch, clusters, 2), dtype=torch.float32)
    with on_device_of(pos):
        _list_kernels._cluster_centres_kernel[blocks(clusters, 128), batch](
            pos.contiguous(), centres, tokens, clusters, cluster_size, BLOCK=128
        )
    return centres


def nearest_clusters(
    centres: Tensor, locations: Tensor, canvas: tuple[int, int], count: int
) -> Tensor:
    """Find the `count` clusters (at most 8) nearest to each location.

    Parameters
    ----------
    centres : Tensor of float, shape (B, k, 2)
        At least `count` of them.
    locations : Tensor of float, shape (B, N, 2)
    canvas : tuple of int
        Rows and columns of the canvas, cells.
    count : int

    Returns
    -------
    Tensor of int64, shape (B, N, count)
        Nearest first, ties to the lower index.
    """
    # Buckets are so large that they hold about one cluster each.
    side = max(1.0, math.sqrt(canvas[0] * canvas[1] / centres.shape[1]))
    return Buckets(centres, canvas, side).nearest(locations, count, chained=True)


def block_side(tokens: int, cells: int) -> int:
    """Choose the side of the blocks of cells that share a list of candidates.

    The sparser the tokens, the less their distance grows over a block.
    """
    side = 1
    while side < MARGIN and (2 * side) ** 2 * tokens <= cells:
        side *= 2
    return side


@torch.library.custom_op("affmae::list_candidates", mutates_args=())
def list_candidates(
    heads: Tensor, tokens: int, count: int, margin: int = MARGIN, length: int = LIST_LENGTH
) -> tuple[Tensor, Tensor]:
    """List the tokens that may be among the `count` (at most 4) nearest in each block of cells.

    Parameters
    ----------
    heads : Tensor of int32, shape (B, rows, columns)
        The token of each cell, or -1.
    tokens : int
        Tokens of an image, at least `count`.
    count : int
    margin : int
        Cells around the canvas that have lists too.
    length : int
        Length of the longest list.

    Returns
    -------
    lists : Tensor of int64, shape (B, blocks down, blocks across, length)
        Row, column and index of a token, packed into 16, 16 and 32 bits.
    lengths : Tensor of int32, shape (B, blocks down, blocks across)
        Their lengths; larger than `length` where a list is not complete.
    """
    batch, rows, columns = heads.shape
    side = block_side(tokens, rows * columns)
    lists, lengths = _new_lists(heads, tokens, margin, length)
    down, across = lengths.shape[1:]
    block = 64 if interpreted() else 1
    with on_device_of(lists):
        _kernels._list_candidates_kernel[blocks(down * across, block), batch](
            heads, lists, lengths, rows, columns, down, across,
            COUNT=count, MARGIN=margin, SIDE=side, LENGTH=length, CELLS=CELLS[side > 1],
            BLOCK=block, num_warps=1, enable_fp_fusion=False,
        )  # fmt: skip
    return lists, lengths


def _new_lists(heads: Tensor, tokens: int, margin: int, length: int) -> tuple[Tensor, Tensor]:
    batch, rows, columns = heads.shape
    side = block_side(tokens, rows * columns)
    down, across = (blocks(size + 2 * margin, side) for size in (rows, columns))
    lists = heads.new_empty((batch, down, across, length), dtype=torch.int64)
    return lists, heads.new_empty((batch, down, across))


def nearest_samples(
    query_pos: Tensor,
    offsets: Tensor,
    heads: Tensor,
    points: Tensor,
    lists: Tensor,
    lengths: Tensor,
    count: int,
    margin: int = MARGIN,
) -> Tensor:
    """Find the `count` (at most 4) tokens nearest to each sampled location.

    Parameters
    ----------
    query_pos : Tensor of float32, shape (B, Q, 2)
    offsets : Tensor of float, shape (B, Q, S, 2)
        Offsets of the S samples of each query.
    heads, points : Tensor
        See the tokens' `Buckets`.
    lists, lengths : Tensor
        See `list_candidates`.
    count : int
    margin : int
        The margin of the lists.

    Returns
    -------
    Tensor of int32, shape (B, Q, S, count)
    """
    batch, queries, samples, _ = offsets.shape
    rows, columns = heads.shape[1:]
    wide_rows, wide_columns, length = lists.shape[1:]
    out = offsets.new_empty((batch, queries, samples, count), dtype=torch.int32)
    with on_device_of(out):
        _kernels._nearest_samples_kernel[blocks(queries * samples, _SEARCH["BLOCK"]), batch](
            query_pos, offsets, heads, points, lists, lengths, out,
            queries, samples, points.shape[1], rows, columns, wide_rows, wide_columns,
            *offsets.stride()[:3],
            COUNT=count, MARGIN=margin, SIDE=block_side(points.shape[1], rows * columns),
            LENGTH=length, **_SEARCH,
        )  # fmt: skip
    return out


@torch.library.custom_op("affmae::tile_lists", mutates_args=())
def tile_lists(clusters: Tensor, cluster_count: int) -> tuple[Tensor, Tensor, Tensor]:
    """List the different clusters of each tile of `TILE` queries.

    Parameters
    ----------
    clusters : Tensor of int64, shape (B, Q, M)
    cluster_count : int
        Clusters of an image.

    Returns
    -------
    ids : Tensor of int32, shape (B, tiles, U)
        Clusters, U being the most that a tile can have; places beyond the length are not written.
    bits : Tensor of int32, shape (B, tiles, U)
        Bit i is set where query i of the tile attends to the cluster.
    lengths : Tensor of int32, shape (B, tiles)
    """
    batch, queries, wanted = clusters.shape
    tiles, width = blocks(queries, TILE), min(TILE * wanted, cluster_count)
    ids = clusters.new_empty((batch, tiles, width), dtype=torch.int32)
    bits = torch.empty_like(ids)
    lengths = clusters.new_empty((batch, tiles), dtype=torch.int32)
    with on_device_of(clusters):
        _list_kernels._tile_lists_kernel[tiles, batch](
            clusters.contiguous(), ids, bits, lengths, queries, tiles, wanted, width,
            TILE=TILE, SLOTS=next_power_of_2(wanted), CHUNK=16, num_warps=4,
        )  # fmt: skip
    return ids, bits, lengths


@torch.library.custom_op("affmae::query_lists", mutates_args=())
def query_lists(clusters: Tensor, cluster_count: int) -> tuple[Tensor, Tensor]:
    """List the queries of each cluster.

    Parameters
    ----------
    clusters : Tensor of int64, shape (B, Q, M)
    cluster_count : int
        Clusters of an image.

    Returns
    -------
    queries : Tensor of int32, shape (B * Q * M,)
        Cluster after cluster, image after image, each list ascending.
    bounds : Tensor of int32, shape (2, B * cluster_count)
        Where each list starts and ends.
    """
    batch, queries, wanted = clusters.shape
    clusters = clusters.contiguous()
    counts = clusters.new_zeros(batch * cluster_count, dtype=torch.int32)
    grid = (blocks(queries * wanted, 256), batch)
    scattered = clusters.new_empty(clusters.numel(), dtype=torch.int32)
    ordered = torch.empty_like(scattered)
    with on_device_of(clusters):
        _list_kernels._count_queries_kernel[grid](
            clusters, counts, queries, wanted, cluster_count, BLOCK=256
        )
        ends = counts.cumsum(0, dtype=torch.int32)
        cursors = ends.clone()
        _list_kernels._scatter_queries_kernel[grid](
            clusters, cursors, scattered, queries, wanted, cluster_count, BLOCK=256
        )
        # After scattering, the cursors hold the start of each list.
        _list_kernels._sort_queries_kernel[(batch * cluster_count,)](
            cursors, ends, scattered, ordered, CHUNK=64, num_warps=1
        )
    return ordered, torch.stack([cursors, ends])


@fill_buckets.register_fake
def _(points: Tensor, rows: int, columns: int, _side: float) -> tuple[Tensor, Tensor]:
    batch, count, _ = points.shape
    heads = points.new_empty((batch, rows, columns), dtype=torch.int32)
    return heads, points.new_empty((batch, count), dtype=torch.int32)


@nearest_points.register_fake
def _(locations: Tensor, *others: Any) -> Tensor:
    return locations.new_empty((*locations.shape[:2], others[4]), dtype=torch.int64)


@cluster_centres.register_fake
def _(pos: Tensor, cluster_size: int) -> Tensor:
    shape = (len(pos), blocks(pos.shape[1], cluster_size), 2)
    return pos.new_empty(shape, dtype=torch.float32)


@list_candidates.register_fake
def _(
    heads: Tensor, tokens: int, _count: int, margin: int = MARGIN, length: int = LIST_LENGTH
) -> tuple[Tensor, Tensor]:
    return _new_lists(heads, tokens, margin, length)


@tile_lists.register_fake
def _(clusters: Tensor, cluster_count: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, queries, wanted = clusters.shape
    tiles, width = blocks(queries, TILE), min(TILE * wanted, cluster_count)
    ids = clusters.new_empty((batch, tiles, width), dtype=torch.int32)
    return ids, torch.empty_like(ids), ids.new_empty((batch, tiles))


@query_lists.register_fake
def _(clusters: Tensor, cluster_count: int) -> tuple[Tensor, Tensor]:
    queries = clusters.new_empty(clusters.numel(), dtype=torch.int32)
    return queries, queries.new_empty((2, clusters.shape[0] * cluster_count))
