"""Masks' noise on a Triton kernel: launcher."""

import torch
from torch import Tensor

from affmae_kernels._launch import blocks, either, on_device_of
from affmae_kernels.mask_noise import _kernels

BLOCK = 256


@torch.library.custom_op("affmae::mask_noise", mutates_args=())
def mask_noise_forward(keys: Tensor, cells: Tensor | None, rows: int, columns: int) -> Tensor:
    """Compute noise (B, rows, columns); see `mask_noise`. Without cells it is uniform."""
    out = keys.new_empty((len(keys), rows, columns), dtype=torch.float32)
    with on_device_of(keys):
        _kernels._mask_noise_fwd_kernel[blocks(rows * columns, BLOCK), len(keys)](
            keys, either(cells, keys), out, rows, columns,
            PERLIN=cells is not None, BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
    return out


@mask_noise_forward.register_fake
def _(keys: Tensor, _cells: Tensor | None, rows: int, columns: int) -> Tensor:
    return keys.new_empty((len(keys), rows, columns), dtype=torch.float32)
