"""Triton kernels that list the clusters of each tile of queries, and the queries of clusters."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["tokens", "clusters", "size"])
def _cluster_centres_kernel(pos, centres, tokens, clusters, size, BLOCK: tl.constexpr):
    """Average the positions of the tokens of each cluster."""
    image = tl.program_id(1).to(tl.int64)
    cluster = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.zeros([BLOCK], tl.float32)
    y, members = x, x
    for i in range(size):
        token = cluster * size + i
        real = token < tokens
        x += tl.load(pos + (image * tokens + token) * 2, mask=real, other=0.0)
        y += tl.load(pos + (image * tokens + token) * 2 + 1, mask=real, other=0.0)
        members += real.to(tl.float32)
    real = cluster < clusters
    out = centres + (image * clusters + cluster) * 2
    members = tl.maximum(members, 1.0)
    tl.store(out, tl.div_rn(x, members), mask=real)
    tl.store(out + 1, tl.div_rn(y, members), mask=real)


@triton.jit(do_not_specialize=["queries", "tiles", "wanted", "width"])
def _tile_lists_kernel(
    clusters, ids, bits, lengths, queries, tiles, wanted, width,
    TILE: tl.constexpr, SLOTS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """List the different clusters of each tile of queries.

    With every cluster goes one bit for each of the tile's queries that attends
    to it. Clusters come in the order of their first appearance.
    """
    tile = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64)
    clusters += image * queries * wanted
    entry = tl.arange(0, TILE * SLOTS)
    query = tile * TILE + entry // SLOTS
    real = (query < queries) & (entry % SLOTS < wanted)
    mine = tl.load(clusters + query * wanted + entry % SLOTS, mask=real, other=-1).to(tl.int32)
    earlier = tl.zeros_like(entry)
    owners = tl.zeros_like(entry)
    for start in range(0, TILE * SLOTS, CHUNK):
        other = start + tl.arange(0, CHUNK)
        other_query = tile * TILE + other // SLOTS
        there = (other_query < queries) & (other % SLOTS < wanted)
        theirs = tl.load(clusters + other_query * wanted + other % SLOTS, mask=there, other=-1).to(
            tl.int32
        )
        # A thread holds whole columns, so it can sum them without the others.
        same = theirs[:, None] == mine[None, :]
        earlier += tl.sum((same & (other[:, None] < entry[None, :])).to(tl.int32), axis=0)
        bit = (tl.zeros_like(other) + 1) << (other // SLOTS)
        # A query has each cluster only once, so the sum of its bits is their union.
        owners += tl.sum(tl.where(same, bit[:, None], 0), axis=0)
    first = real & (earlier == 0)
    slot = tl.cumsum(first.to(tl.int32), axis=0) - 1
    place = (image * tiles + tile) * width + slot
    tl.store(ids + place, mine, mask=first)
    tl.store(bits + place, owners, mask=first)
    tl.store(lengths + image * tiles + tile, tl.sum(first.to(tl.int32), axis=0))


@triton.jit(do_not_specialize=["queries", "wanted", "cluster_count"])
def _count_queries_kernel(
    clusters, counts, queries, wanted, cluster_count, BLOCK: tl.constexpr
):  # fmt: skip
    """Count the queries that attend to each cluster."""
    image = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = i < queries * wanted
    cluster = tl.load(clusters + image * queries * wanted + i, mask=real, other=0)
    tl.atomic_add(counts + image * cluster_count + cluster, 1, mask=real, sem="relaxed")


@triton.jit(do_not_specialize=["queries", "wanted", "cluster_count"])
def _scatter_queries_kernel(
    clusters, cursors, scattered, queries, wanted, cluster_count, BLOCK: tl.constexpr
):  # fmt: skip
    """Write each query into the lists of its clusters, in any order.

    `cursors` hold the end of each list at first, and its start when all is written.
    """
    image = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = i < queries * wanted
    cluster = tl.load(clusters + image * queries * wanted + i, mask=real, other=0)
    cursor = cursors + image * cluster_count + cluster
    slot = tl.atomic_add(cursor, -1, mask=real, sem="relaxed") - 1
    tl.store(scattered + slot, i // wanted, mask=real)


@triton.jit(do_not_specialize=[])
def _sort_queries_kernel(starts, ends, scattered, ordered, CHUNK: tl.constexpr):
    """Bring the queries of each cluster's list into ascending order."""
    cluster = tl.program_id(0)
    begin = tl.load(starts + cluster)
    end = tl.load(ends + cluster)
    for start in range(begin, end, CHUNK):
        i = start + tl.arange(0, CHUNK)
        mine = tl.load(scattered + i, mask=i < end, other=0)
        rank = tl.zeros_like(i)
        for other in range(begin, end, CHUNK):
            j = other + tl.arange(0, CHUNK)
            theirs = tl.load(scattered + j, mask=j < end, other=0x7FFFFFFF)
            rank += tl.sum((theirs[None, :] < mine[:, None]).to(tl.int32), axis=1)
        tl.store(ordered + begin + rank, mine, mask=i < end)
