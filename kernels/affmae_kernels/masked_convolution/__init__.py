"""A convolution that leaves hidden patches empty, normalised and activated."""

from affmae_kernels.masked_convolution.op import masked_convolution
from affmae_kernels.masked_convolution.reference import hide

__all__ = ["hide", "masked_convolution"]
