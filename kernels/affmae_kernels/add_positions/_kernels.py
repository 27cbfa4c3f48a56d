"""The Triton kernel that adds embedded positions."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def _add_positions_kernel(
    x, pos, across, down, out, rows, columns, half,
    SHARED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Add the embedding of a column and of a row to each token; SHARED: `x` is one row."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column_real, row_real = column < columns, row < rows
    real = row_real[:, None] & column_real[None, :]
    place = row.to(tl.int64)[:, None] * columns + column[None, :]
    px = tl.load(pos + 2 * row, mask=row_real, other=0.0).to(tl.int32)
    py = tl.load(pos + 2 * row + 1, mask=row_real, other=0.0).to(tl.int32)
    first = (column < half)[None, :]
    wave = tl.load(across + px[:, None] * half + column[None, :], mask=real & first, other=0.0)
    wave += tl.load(
        down + py[:, None] * half + (column - half)[None, :],
        mask=real & (column >= half)[None, :], other=0.0,
    )  # fmt: skip
    if SHARED:
        value = tl.load(x + column, mask=column_real, other=0.0).to(tl.float32)[None, :]
    else:
        value = tl.load(x + place, mask=real, other=0.0).to(tl.float32)
    tl.store(out + place, (value + wave).to(out.dtype.element_ty), mask=real)
