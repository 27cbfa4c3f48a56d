"""The definition, in plain PyTorch."""

import torch
from torch import Tensor


def add_positions_reference(x: Tensor, pos: Tensor, waves: tuple[Tensor, Tensor]) -> Tensor:
    """See `affmae_kernels.add_positions`."""
    cells = pos.long().unbind(-1)
    embedded = torch.cat([table[cell] for table, cell in zip(waves, cells, strict=True)], dim=-1)
    return x + embedded.to(x.dtype)
