"""Crops on Triton kernels: launchers."""

import torch
from torch import Tensor

from affmae_kernels._launch import blocks, either, on_device_of
from affmae_kernels.cut_crops import _kernels
from affmae_kernels.cut_crops.arithmetic import SPACING
from affmae_kernels.cut_crops.plan import CropPlan

# A tile lies between two knots.
TILE = SPACING
WARPS = 4


def cut_crops_triton(
    pool: Tensor,
    plan: CropPlan,
    crop: int,
    labels: Tensor | None,
    bent: bool,
    lit: bool,
    blurry: bool,
    ignored: int,
) -> tuple[Tensor, Tensor | None]:
    """See `affmae_kernels.cut_crops`."""
    images, targets = cut_crops_forward(pool, labels, *plan, crop, bent, lit, blurry, ignored)
    return images, None if labels is None else targets


@torch.library.custom_op("affmae::cut_crops", mutates_args=())
def cut_crops_forward(
    pool: Tensor,
    labels: Tensor | None,
    offset: Tensor,
    label_offset: Tensor,
    size: Tensor,
    matrix: Tensor,
    shift: Tensor,
    knots: Tensor,
    limits: Tensor,
    light: Tensor,
    key: Tensor,
    crop: int,
    bent: bool,
    lit: bool,
    blurry: bool,
    ignored: int,
) -> tuple[Tensor, Tensor]:
    """Cut; see `cut_crops` and `CropPlan`.

    Returns
    -------
    images : Tensor of float32, shape (B, C, crop, crop)
    targets : Tensor of int64, shape (B, crop, crop)
        Empty without labels.
    """
    images, targets = _results(limits, labels, crop)
    unblurred = torch.empty_like(images) if blurry else images
    batch, channels = images.shape[:2]
    grid = (blocks(crop, TILE) ** 2, batch, channels)
    with on_device_of(pool):
        _kernels._cut_crops_fwd_kernel[grid](
            pool, either(labels, pool), offset, label_offset, size, matrix, shift, knots, limits,
            light, key, images, unblurred, targets, crop, knots.shape[-1], ignored,
            BENT=bent, LIT=lit, BLURRED=blurry, LABELLED=labels is not None,
            TILE=TILE, num_warps=WARPS,
        )  # fmt: skip
        if blurry:
            _kernels._cut_crops_blur_kernel[grid](
                unblurred, light, key, images, crop, TILE=TILE, num_warps=WARPS
            )
    return images, targets


def _results(limits: Tensor, labels: Tensor | None, crop: int) -> tuple[Tensor, Tensor]:
    batch, channels, _ = limits.shape
    images = limits.new_empty((batch, channels, crop, crop))
    shape = (0, crop, crop) if labels is None else (batch, crop, crop)
    return images, images.new_empty(shape, dtype=torch.int64)


@cut_crops_forward.register_fake
def _(
    _pool: Tensor, labels: Tensor | None, _offset: Tensor, _label_offset: Tensor, _size: Tensor,
    _matrix: Tensor, _shift: Tensor, _knots: Tensor, limits: Tensor, _light: Tensor, _key: Tensor,
    crop: int, _bent: bool, _lit: bool, _blurry: bool, _ignored: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _results(limits, labels, crop)
