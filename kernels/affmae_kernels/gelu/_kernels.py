"""Triton kernels of GELU: some columns of some rows a program."""

import triton
import triton.language as tl

from affmae_kernels._gauss import gauss


@triton.jit(do_not_specialize=["rows"])
def _gelu_fwd_kernel(
    x, bias, out, rows, columns, BIASED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column_real = column < columns
    real = (row < rows)[:, None] & column_real[None, :]
    place = row.to(tl.int64)[:, None] * columns + column[None, :]
    value = tl.load(x + place, mask=real, other=0.0).to(tl.float32)
    if BIASED:
        value += tl.load(bias + column, mask=column_real, other=0.0).to(tl.float32)[None, :]
    share, _density = gauss(value)
    tl.store(out + place, (value * share).to(out.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["rows", "steps"])
def _gelu_bwd_kernel(
    grad, x, bias, grad_x, partial, rows, columns, steps,
    BIASED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of `x`, and a program's part of the gradient of the bias."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(1)
    column_real = column < columns
    shift = tl.zeros([COLUMNS], tl.float32)
    if BIASED:
        shift = tl.load(bias + column, mask=column_real, other=0.0).to(tl.float32)
    summed = tl.zeros([ROWS, COLUMNS], tl.float32)
    for step in range(steps):
        row = (part * steps + step) * ROWS + tl.arange(0, ROWS)
        real = (row < rows)[:, None] & column_real[None, :]
        place = row.to(tl.int64)[:, None] * columns + column[None, :]
        value = tl.load(x + place, mask=real, other=0.0).to(tl.float32) + shift[None, :]
        through = tl.load(grad + place, mask=real, other=0.0).to(tl.float32)
        share, density = gauss(value)
        through *= share + value * density
        tl.store(grad_x + place, through.to(grad_x.dtype.element_ty), mask=real)
        summed += through
    if BIASED:
        tl.store(partial + part * columns + column, tl.sum(summed, axis=0), mask=column_real)
