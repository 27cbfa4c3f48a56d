"""Triton kernels of dropout.

Whether an element is kept follows from its place and the call's seed.
"""

import triton
import triton.language as tl

from affmae_kernels._hash_kernels import GOLDEN, hashed


@triton.jit
def dropped(values, start, place, seed, threshold, scale):
    """Zero the values whose hash is below `threshold`, of 2**24, and scale the others.

    The place of a value is the sum of `start` and `place`, of which 32 bits count.
    """
    noise = (hashed(place, seed + start * GOLDEN) >> 8).to(tl.int32)
    return tl.where(noise >= threshold, values * scale, 0.0)


@triton.jit(do_not_specialize=["rows", "threshold"])
def _relu_dropout_fwd_kernel(
    x, bias, seed, out, rows, columns, threshold, scale,
    BIASED: tl.constexpr, DROP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.program_id(1) * ROWS
    row = tl.arange(0, ROWS)
    column_real = column < columns
    real = (first + row < rows)[:, None] & column_real[None, :]
    start = first.to(tl.int64) * columns
    place = row[:, None] * columns + column[None, :]
    value = tl.load(x + start + place, mask=real, other=0.0).to(tl.float32)
    if BIASED:
        value += tl.load(bias + column, mask=column_real, other=0.0).to(tl.float32)[None, :]
    if DROP:
        value = dropped(value, start, place, tl.load(seed), threshold, scale)
    tl.store(out + start + place, tl.maximum(value, 0.0).to(out.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["rows", "steps"])
def _relu_dropout_bwd_kernel(
    grad, out, grad_x, partial, rows, columns, scale, steps,
    BIASED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of `x`, and a program's part of the gradient of the bias."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(1)
    column_real = column < columns
    summed = tl.zeros([ROWS, COLUMNS], tl.float32)
    for step in range(steps):
        row = (part * steps + step) * ROWS + tl.arange(0, ROWS)
        real = (row < rows)[:, None] & column_real[None, :]
        place = row.to(tl.int64)[:, None] * columns + column[None, :]
        # Elements that are positive were kept.
        kept = tl.load(out + place, mask=real, other=0.0) > 0
        through = tl.load(grad + place, mask=real, other=0.0).to(tl.float32)
        through = tl.where(kept, through * scale, 0.0)
        tl.store(grad_x + place, through.to(grad_x.dtype.element_ty), mask=real)
        summed += through
    if BIASED:
        tl.store(partial + part * columns + column, tl.sum(summed, axis=0), mask=column_real)
