"""Triton kernels that search the token canvas.

Points are kept in square buckets: `heads` has the first point of each bucket
and `links` the next one in the same bucket, both -1 at the end. A search goes
through rings of buckets around a location until no unseen point can be nearer
than what it has found; the answer does not depend on the order in a bucket.

Distance and index share one 64-bit key: non-negative floats order like their
bits, so ties go to the lower index.
"""

import triton
import triton.language as tl

_FARTHEST = tl.constexpr(0x7FFFFFFFFFFFFFFF)


@triton.jit
def _insert(key, a, b, c, d):
    """Insert `key` into four ascending keys; the last result is the largest of the five."""
    a, key = tl.minimum(a, key), tl.maximum(a, key)
    b, key = tl.minimum(b, key), tl.maximum(b, key)
    c, key = tl.minimum(c, key), tl.maximum(c, key)
    return a, b, c, tl.minimum(d, key), tl.maximum(d, key)


@triton.jit
def _key(squared, index):
    return (squared.to(tl.int32, bitcast=True).to(tl.int64) << 32) | index.to(tl.int64)


@triton.jit
def _squared_distance(key):
    return (key >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _kth(a, b, c, d, e, f, g, h, COUNT: tl.constexpr):
    """Pick the COUNT-th of eight ascending keys."""
    key = a
    if COUNT == 2:
        key = b
    if COUNT == 3:
        key = c
    if COUNT == 4:
        key = d
    if COUNT == 5:
        key = e
    if COUNT == 6:
        key = f
    if COUNT == 7:
        key = g
    if COUNT == 8:
        key = h
    return key


@triton.jit
def _ring_cell(i, ring):
    """Find the i-th bucket of a ring: its offset from the middle, in buckets."""
    length = tl.maximum(2 * ring, 1)
    side = i // length
    along = i % length - ring
    dx = tl.where(side == 0, along, tl.where(side == 1, ring, tl.where(side == 2, -along, -ring)))
    dy = tl.where(side == 0, -ring, tl.where(side == 1, along, tl.where(side == 2, ring, -along)))
    return dx, dy


@triton.jit
def _locate(x, y, rows, columns, side):
    """Find a location's bucket, and numbers that bound the distance of points not seen yet.

    Returns the bucket (the nearest one, off the canvas), the squared distance
    to the canvas, and the margin m in buckets: after ring r, an unseen point's
    squared distance is at least ``outside + ((r + m) * side)**2``.
    """
    u = (x + 0.5) / side
    v = (y + 0.5) / side
    inside_u = tl.minimum(tl.maximum(u, 0.0), columns * 1.0)
    inside_v = tl.minimum(tl.maximum(v, 0.0), rows * 1.0)
    column = tl.minimum(inside_u.to(tl.int32), columns - 1)
    row = tl.minimum(inside_v.to(tl.int32), rows - 1)
    over_u = inside_u - column.to(tl.float32)
    over_v = inside_v - row.to(tl.float32)
    margin = tl.minimum(tl.minimum(over_u, 1.0 - over_u), tl.minimum(over_v, 1.0 - over_v))
    off_u = (u - inside_u) * side
    off_v = (v - inside_v) * side
    return column, row, off_u * off_u + off_v * off_v, margin


@triton.jit
def _search(
    x, y, active, heads, links, points, rows, columns, side,
    COUNT: tl.constexpr, CHAINED: tl.constexpr,
):  # fmt: skip
    """Find the keys of the COUNT (at most 8) points nearest to each location.

    `heads`, `links` and `points` point at each location's own image.
    """
    column, row, outside, margin = _locate(x, y, rows, columns, side)
    a = tl.zeros_like(x).to(tl.int64) + _FARTHEST
    b, c, d, e, f, g, h = a, a, a, a, a, a, a
    ring = 0
    last = tl.maximum(rows, columns)
    searching = active.to(tl.int32)
    while tl.max(searching, axis=0) > 0:
        for i in range(tl.maximum(8 * ring, 1)):
            dx, dy = _ring_cell(i, ring)
            p = column + dx
            q = row + dy
            seen = (searching > 0) & (p >= 0) & (p < columns) & (q >= 0) & (q < rows)
            node = tl.load(heads + q * columns + p, mask=seen, other=-1)
            if CHAINED:
                while tl.max(node, axis=0) >= 0:
                    a, b, c, d, e, f, g, h = _visit(
                        node, x, y, points, a, b, c, d, e, f, g, h, COUNT
                    )
                    node = tl.load(links + node, mask=node >= 0, other=-1)
            else:
                a, b, c, d, e, f, g, h = _visit(node, x, y, points, a, b, c, d, e, f, g, h, COUNT)
        reach = (ring + margin) * side
        farthest = _squared_distance(_kth(a, b, c, d, e, f, g, h, COUNT))
        # The distance must be less than the bound by more than its rounding, since a point that is
        # not seen yet may tie.
        finished = farthest < (outside + reach * reach) * 0.9999
        ring += 1
        searching = tl.where(finished | (ring > last), 0, searching)
    return a, b, c, d, e, f, g, h


@triton.jit
def _visit(node, x, y, points, a, b, c, d, e, f, g, h, COUNT: tl.constexpr):
    """Insert the points `node` that are not -1 into each location's keys."""
    found = node >= 0
    px = tl.load(points + 2 * node, mask=found, other=0.0)
    py = tl.load(points + 2 * node + 1, mask=found, other=0.0)
    dx = px - x
    dy = py - y
    key = tl.where(found, _key(dx * dx + dy * dy, node), _FARTHEST)
    a, b, c, d, key = _insert(key, a, b, c, d)
    if COUNT > 4:
        e, f, g, h, key = _insert(key, e, f, g, h)
    return a, b, c, d, e, f, g, h


@triton.jit(do_not_specialize=["count", "rows", "columns"])
def _fill_buckets_kernel(
    points, heads, links, count, rows, columns, side, BLOCK: tl.constexpr
):  # fmt: skip
    """Link every point into its bucket."""
    image = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = i < count
    x = tl.load(points + (image * count + i) * 2, mask=real, other=0.0)
    y = tl.load(points + (image * count + i) * 2 + 1, mask=real, other=0.0)
    column, row, _, _ = _locate(x, y, rows, columns, side)
    bucket = image * rows * columns + row * columns + column
    before = tl.atomic_xchg(heads + bucket, i, mask=real, sem="relaxed")
    tl.store(links + image * count + i, before, mask=real)


@triton.jit(do_not_specialize=["queries", "count", "rows", "columns"])
def _nearest_kernel(
    locations, heads, links, points, out, queries, count, rows, columns, side,
    COUNT: tl.constexpr, CHAINED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the indices of each location's COUNT nearest points, nearest first."""
    image = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = i < queries
    x = tl.load(locations + (image * queries + i) * 2, mask=real, other=0.0)
    y = tl.load(locations + (image * queries + i) * 2 + 1, mask=real, other=0.0)
    a, b, c, d, e, f, g, h = _search(
        x, y, real, heads + image * rows * columns, links + image * count,
        points + image * count * 2, rows, columns, side, COUNT, CHAINED,
    )  # fmt: skip
    out += (image * queries + i) * COUNT
    for k in tl.static_range(COUNT):
        key = _kth(a, b, c, d, e, f, g, h, k + 1)
        tl.store(out + k, (key & 0xFFFFFFFF).to(out.dtype.element_ty), mask=real)


@triton.jit
def _spiral_cell(i):
    """Find the i-th cell of a square spiral: its offset from the middle."""
    ring = ((tl.sqrt_rn(i * 1.0) + 1.0) * 0.5).to(tl.int32)
    inner = tl.maximum(2 * ring - 1, 0)
    dx, dy = _ring_cell(i - inner * inner, ring)
    return dx, dy


@triton.jit
def _finished_ring(i):
    """Count the rings of the spiral that lie wholly within its first i cells, less one."""
    return ((tl.sqrt_rn(i * 1.0) - 1.0) * 0.5).to(tl.int32)


@triton.jit
def _spiral_tokens(i, column, row, searching, heads, rows, columns):
    """Look up the i-th cells of spirals around some cells: their tokens or -1, columns and rows."""
    dx, dy = _spiral_cell(i)
    p = column[:, None] + dx[None, :]
    q = row[:, None] + dy[None, :]
    seen = (searching[:, None] > 0) & (p >= 0) & (p < columns) & (q >= 0) & (q < rows)
    return tl.load(heads + q * columns + p, mask=seen, other=-1), p, q


@triton.jit(do_not_specialize=["rows", "columns", "wide_rows", "wide_columns"])
def _list_candidates_kernel(
    heads, lists, lengths, rows, columns, wide_rows, wide_columns,
    COUNT: tl.constexpr, MARGIN: tl.constexpr, SIDE: tl.constexpr, LENGTH: tl.constexpr,
    CELLS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """List for each block of cells the tokens that may be among the COUNT nearest inside it.

    From one place to another, the distance to the COUNT-th nearest token changes by
    at most the distance between the places. So none of these tokens lies farther from
    the block's centre than the COUNT-th nearest to the centre, plus the block's
    diagonal. If a list would be longer than LENGTH, only its length is written. Each
    program looks at CELLS cells of the spirals around BLOCK centres at once.
    """
    image = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = block < wide_rows * wide_columns
    x = (block % wide_columns) * SIDE + (0.5 * SIDE - 0.5 - MARGIN)
    y = (block // wide_columns) * SIDE + (0.5 * SIDE - 0.5 - MARGIN)
    column, row, outside, margin = _locate(x, y, rows, columns, 1.0)
    heads += image * rows * columns
    lane = tl.arange(0, CELLS)
    last = (2 * tl.maximum(rows, columns) + 1) * (2 * tl.maximum(rows, columns) + 1)

    a = tl.zeros_like(x).to(tl.int64) + _FARTHEST
    b, c, d = a, a, a
    start = 0
    searching = real.to(tl.int32)
    while tl.max(searching, axis=0) > 0:
        node, p, q = _spiral_tokens(start + lane, column, row, searching, heads, rows, columns)
        dx, dy = p - x[:, None], q - y[:, None]
        keys = tl.where(node >= 0, _key(dx * dx + dy * dy, node), _FARTHEST)
        nearest = tl.min(keys, axis=1)
        while tl.max((nearest < d).to(tl.int32), axis=0) > 0:
            keys = tl.where(keys == nearest[:, None], _FARTHEST, keys)
            a, b, c, d, _out = _insert(nearest, a, b, c, d)
            nearest = tl.min(keys, axis=1)
        start += CELLS
        bound = _finished_ring(start) + margin
        farthest = _squared_distance(_kth(a, b, c, d, d, d, d, d, COUNT))
        finished = farthest < (outside + bound * bound) * 0.9999
        searching = tl.where(finished | (start > last), 0, searching)

    reach = tl.sqrt(_squared_distance(_kth(a, b, c, d, d, d, d, d, COUNT))) + 1.41422 * SIDE
    reach *= reach
    lists += (image * wide_rows * wide_columns + block)[:, None] * LENGTH
    length = tl.zeros_like(block)
    start = 0
    searching = real.to(tl.int32)
    while tl.max(searching, axis=0) > 0:
        node, p, q = _spiral_tokens(start + lane, column, row, searching, heads, rows, columns)
        dx, dy = p - x[:, None], q - y[:, None]
        wanted = ((node >= 0) & (dx * dx + dy * dy <= reach[:, None])).to(tl.int32)
        slot = length[:, None] + tl.cumsum(wanted, axis=1) - 1
        packed = (q.to(tl.int64) << 48) | (p.to(tl.int64) << 32) | node.to(tl.int64)
        tl.store(lists + slot, packed, mask=(wanted > 0) & (slot < LENGTH))
        length += tl.sum(wanted, axis=1)
        start += CELLS
        bound = _finished_ring(start) + margin
        searching = tl.where((outside + bound * bound > reach) | (start > last), 0, searching)
    tl.store(lengths + image * wide_rows * wide_columns + block, length, mask=real)


@triton.jit(
    do_not_specialize=[
        "queries",
        "count",
        "rows",
        "columns",
        "wide_rows",
        "wide_columns",
        "samples",
    ]
)
def _nearest_samples_kernel(
    query_pos, offsets, heads, points, lists, lengths, out,
    queries, samples, count, rows, columns, wide_rows, wide_columns,
    stride_image, stride_query, stride_sample,
    COUNT: tl.constexpr, MARGIN: tl.constexpr, SIDE: tl.constexpr, LENGTH: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the COUNT (at most 4) nearest tokens of every sampled location.

    Locations within MARGIN of the canvas are looked up in the list of their block of
    cells. The few others, and those whose list is too long, are searched ring by ring.
    """
    image = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = i < queries * samples
    query = i // samples
    place = offsets + image * stride_image + query.to(tl.int64) * stride_query
    place += i % samples * stride_sample
    at = query_pos + (image * queries + query) * 2
    x = tl.load(at, mask=real, other=0.0) + tl.load(place, mask=real, other=0.0).to(tl.float32)
    y = tl.load(at + 1, mask=real, other=0.0)
    y += tl.load(place + 1, mask=real, other=0.0).to(tl.float32)
    column = tl.floor((x + (MARGIN + 0.5)) / SIDE)
    row = tl.floor((y + (MARGIN + 0.5)) / SIDE)
    inside = real & (column >= 0) & (row >= 0)
    inside = inside & (column < wide_columns) & (row < wide_rows)
    cell = tl.where(inside, row, 0.0).to(tl.int32) * wide_columns
    cell = image * wide_rows * wide_columns + cell + tl.where(inside, column, 0.0).to(tl.int32)
    length = tl.load(lengths + cell, mask=inside, other=LENGTH + 1)
    listed = inside & (length <= LENGTH)
    length = tl.where(listed, length, 0)
    a = tl.zeros_like(x).to(tl.int64) + _FARTHEST
    b, c, d = a, a, a
    for j in range(tl.max(length, axis=0)):
        used = j < length
        packed = tl.load(lists + cell * LENGTH + j, mask=used, other=0)
        dx = ((packed >> 32) & 0xFFFF).to(tl.float32) - x
        dy = (packed >> 48).to(tl.float32) - y
        key = _key(dx * dx + dy * dy, packed & 0xFFFFFFFF)
        a, b, c, d, key = _insert(tl.where(used, key, _FARTHEST), a, b, c, d)
    remote = real & (length == 0)
    if tl.max(remote.to(tl.int32), axis=0) > 0:
        image_heads = heads + image * rows * columns
        image_points = points + image * count * 2
        p, q, r, s, _e, _f, _g, _h = _search(
            x, y, remote, image_heads, image_heads, image_points, rows, columns, 1.0, COUNT, False
        )
        a, b = tl.where(remote, p, a), tl.where(remote, q, b)
        c, d = tl.where(remote, r, c), tl.where(remote, s, d)
    out += (image * queries * samples + i) * COUNT
    for k in tl.static_range(COUNT):
        key = _kth(a, b, c, d, d, d, d, d, k + 1)
        tl.store(out + k, (key & 0xFFFFFFFF).to(tl.int32), mask=real)
