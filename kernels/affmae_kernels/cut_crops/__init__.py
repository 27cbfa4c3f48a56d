"""Training crops, cut out of a pool of decoded image."""

from affmae_kernels.cut_crops.op import cut_crops
from affmae_kernels.cut_crops.plan import CropPlan

__all__ = ["CropPlan", "cut_crops"]
