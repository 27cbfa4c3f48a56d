"""The loss of segmentation."""

from affmae_kernels.dice_focal.op import dice_focal

__all__ = ["dice_focal"]
