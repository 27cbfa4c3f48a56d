"""The Triton kernel of column sums."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows", "steps"])
def _column_sums_kernel(
    x, out, rows, columns, steps, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Sum some columns of `steps` times ROWS consecutive rows."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    column_real = column < columns
    part = tl.program_id(1)
    summed = tl.zeros([ROWS, COLUMNS], tl.float32)
    for step in range(steps):
        row = (part * steps + step) * ROWS + tl.arange(0, ROWS)
        real = (row < rows)[:, None] & column_real[None, :]
        place = row.to(tl.int64)[:, None] * columns + column[None, :]
        summed += tl.load(x + place, mask=real, other=0.0).to(tl.float32)
    tl.store(out + part * columns + column, tl.sum(summed, axis=0), mask=column_real)
