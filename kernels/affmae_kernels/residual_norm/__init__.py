"""Layer normalisation of a sum, one part of which is dropped at random."""

from affmae_kernels.residual_norm.op import residual_norm

__all__ = ["residual_norm"]
