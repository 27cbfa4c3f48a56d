"""Column sums on Triton kernels: launchers."""

import torch
from torch import Tensor

from affmae_kernels._launch import blocks, on_device_of
from affmae_kernels.column_sums import _kernels

# A program adds up ROWS x COLUMNS numbers at once; the rows are cut into MOST_PARTS parts at
# most. FEW and MANY are the sizes of the programs that add up few parts or many.
ROWS, COLUMNS = 32, 64
MOST_PARTS = 128
FEW = {"ROWS": MOST_PARTS, "COLUMNS": 16, "num_warps": 4}
MANY = {"ROWS": 512, "COLUMNS": 16, "num_warps": 8}


@torch.library.custom_op("affmae::column_sums", mutates_args=())
def column_sums_forward(x: Tensor) -> Tensor:
    """Sum the rows of a contiguous (rows, C); see `column_sums`."""
    rows, columns = x.shape
    steps = blocks(rows, ROWS * MOST_PARTS)
    parts = blocks(rows, ROWS * steps)
    partial = x.new_empty((parts, columns), dtype=torch.float32)
    with on_device_of(x):
        _kernels._column_sums_kernel[blocks(columns, COLUMNS), parts](
            x, partial, rows, columns, steps, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4
        )
    return sum_parts(partial)


def sum_parts(partial: Tensor) -> Tensor:
    """Sum the rows of a float32 tensor (parts, ...) of about a thousand parts at most."""
    out = partial.new_empty(partial.shape[1:])
    parts, columns = len(partial), out.numel()
    constants = FEW if parts <= MOST_PARTS else MANY
    with on_device_of(out):
        _kernels._column_sums_kernel[blocks(columns, constants["COLUMNS"]), 1](
            partial, out, parts, columns, blocks(parts, constants["ROWS"]), **constants
        )
    return out


@column_sums_forward.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1], dtype=torch.float32)
