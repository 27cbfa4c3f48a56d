"""What says where crops come from and how they are changed."""

from typing import NamedTuple

import torch
from torch import Tensor

from affmae_kernels.cut_crops.arithmetic import knot_count

POOL_DTYPES = (torch.uint8, torch.int16, torch.uint16, torch.float32)


class CropPlan(NamedTuple):
    """Where each of B crops of C channels comes from, and how it is changed.

    All tensors are contiguous and on one device.

    Attributes
    ----------
    offset : Tensor of int64, shape (B,)
        Place of the block's first element in the pool.
    label_offset : Tensor of int64, shape (B,)
        Place of the block's first label; not read without labels.
    size : Tensor of int32, shape (B, 2)
        Rows and columns of the block.
    matrix : Tensor of float32, shape (B, 2, 2)
        Maps (row, column) from the crop's centre to pixels of the block.
    shift : Tensor of float32, shape (B, 2)
        Place of the crop's centre in the block, (row, column), pixels.
    knots : Tensor of float32, shape (B, 2, K, K)
        Coefficients of the displacement in rows and in columns, pixels of the
        crop: cubic B-splines, 32 px apart, K being ``ceil(crop / 32) + 3``.
    limits : Tensor of float32, shape (B, C, 4)
        Low, high, scale, offset: a value v becomes
        ``clip(v, low, high) * scale + offset``.
    light : Tensor of float32, shape (B, 5)
        Gamma, contrast, brightness, sigma of the blur (px; 0: none) and
        standard deviation of the noise (0: none).
    key : Tensor of int64, shape (B,)
        Decides the noise.
    """

    offset: Tensor
    label_offset: Tensor
    size: Tensor
    matrix: Tensor
    shift: Tensor
    knots: Tensor
    limits: Tensor
    light: Tensor
    key: Tensor


def check_arguments(pool: Tensor, plan: CropPlan, crop: int, labels: Tensor | None) -> None:
    """Refuse tensors that are not what `cut_crops` takes.

    Raises
    ------
    ValueError
        With what came and what is allowed.
    """
    if crop < 1:
        raise ValueError(f"crop must be at least 1 pixel, got {crop}")
    _check_line("pool", pool, POOL_DTYPES, pool.device)
    if labels is not None:
        _check_line("labels", labels, (torch.uint8,), pool.device)
    batch = len(plan.offset)
    channels = plan.limits.shape[1] if plan.limits.ndim == 3 else 1
    knots = knot_count(crop)
    wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "offset": (torch.int64, (batch,)),
        "label_offset": (torch.int64, (batch,)),
        "size": (torch.int32, (batch, 2)),
        "matrix": (torch.float32, (batch, 2, 2)),
        "shift": (torch.float32, (batch, 2)),
        "knots": (torch.float32, (batch, 2, knots, knots)),
        "limits": (torch.float32, (batch, channels, 4)),
        "light": (torch.float32, (batch, 5)),
        "key": (torch.int64, (batch,)),
    }
    for name, tensor in zip(CropPlan._fields, plan, strict=True):
        dtype, shape = wanted[name]
        if tensor.dtype != dtype or tensor.shape != shape:
            raise ValueError(
                f"plan.{name} of {batch} crops of {crop} px must be {dtype} of shape {shape}, "
                f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        _check_memory(f"plan.{name}", tensor, pool.device)


def _check_line(
    name: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...], device: torch.device
) -> None:
    if tensor.ndim != 1 or tensor.dtype not in dtypes:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(
            f"{name} must be a 1-D tensor of {allowed}, "
            f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    _check_memory(name, tensor, device)


def _check_memory(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device} and the pool on {device}; move one of them")
    if not tensor.is_contiguous():
        raise ValueError(
            f"{name} must be contiguous, got strides {tensor.stride()}; use contiguous()"
        )
