"""GELU of a layer's output whose bias is still to be added."""

from affmae_kernels.gelu.op import gelu

__all__ = ["gelu"]
