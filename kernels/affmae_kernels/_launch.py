"""What all launchers of Triton kernels share."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Make a tensor's GPU the current one, as a launch needs it."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def interpreted() -> bool:
    """Tell whether Triton runs its interpreter, whose cost is the number of programs."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def next_power_of_2(n: int) -> int:
    """Round up to a power of two."""
    return 1 << max(n - 1, 0).bit_length()


def blocks(n: int, size: int) -> int:
    """Count the blocks of `size` that cover `n`."""
    return -(-n // size)


def rows_together(x: Tensor) -> Tensor:
    """Copy a tensor only where its last axis is not contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def to_autocast(*tensors: Tensor) -> list[Tensor]:
    """Bring an op's large inputs to one type: autocast's, where it is on."""
    device = tensors[0].device.type
    dtype = tensors[0].dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return [t.to(dtype) for t in tensors]
