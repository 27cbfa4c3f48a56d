"""Triton kernels that order by marking places in a table and listing the marked ones.

One program lists the marked places of an image. That takes a few microseconds,
where sorting takes tens.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["count", "cells", "columns"])
def _mark_cells_kernel(pos, places, table, count, cells, columns, BLOCK: tl.constexpr):
    """Write each token's index to the place of its cell."""
    image = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = i < count
    at = pos + (image * count + i) * 2
    x = tl.load(at, mask=real, other=0.0).to(tl.int32)
    y = tl.load(at + 1, mask=real, other=0.0).to(tl.int32)
    place = tl.load(places + y * columns + x, mask=real, other=0)
    tl.store(table + image * cells + place, i, mask=real)


@triton.jit(do_not_specialize=["count", "size"])
def _mark_indices_kernel(indices, table, count, size, BLOCK: tl.constexpr):
    """Write each index to the place that it names."""
    image = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = i < count
    index = tl.load(indices + image * count + i, mask=real, other=0).to(tl.int32)
    tl.store(table + image * size + index, index, mask=real)


@triton.jit(do_not_specialize=["count", "size"])
def _list_marked_kernel(
    table, found, at, count, size, PLACED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """List the numbers of a table that are not -1, in order; PLACED: also list their places."""
    image = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    before = 0
    for start in range(0, size, BLOCK):
        place = start + lane
        value = tl.load(table + image * size + place, mask=place < size, other=-1)
        marked = (value >= 0).to(tl.int32)
        slot = image * count + before + tl.cumsum(marked, axis=0) - 1
        tl.store(found + slot, value.to(found.dtype.element_ty), mask=marked > 0)
        if PLACED:
            tl.store(at + slot, place, mask=marked > 0)
        before += tl.sum(marked, axis=0)


@triton.jit(do_not_specialize=["count", "reach"])
def _settle_ties_kernel(found, at, ranks_by_place, order, count, reach, BLOCK: tl.constexpr):
    """Put tokens whose ranks tie in ascending order; a tie reaches over `reach` places at most."""
    image = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = i < count
    found += image * count
    at += image * count
    token = tl.load(found + i, mask=real, other=0)
    rank = tl.load(ranks_by_place + tl.load(at + i, mask=real, other=0), mask=real, other=-1)
    slot = i
    for step in range(1, reach + 1):
        there = real & (i >= step)
        other = tl.load(ranks_by_place + tl.load(at + i - step, mask=there, other=0))
        later = tl.load(found + i - step, mask=there, other=-1) > token
        slot -= (there & (other == rank) & later).to(tl.int32)
        there = i + step < count
        other = tl.load(ranks_by_place + tl.load(at + i + step, mask=there, other=0))
        earlier = tl.load(found + i + step, mask=there, other=0) < token
        slot += (there & (other == rank) & earlier).to(tl.int32)
    tl.store(order + image * count + slot, token.to(tl.int64), mask=real)
