"""Elements zeroed at random."""

from affmae_kernels.dropout.op import relu_dropout
from affmae_kernels.dropout.reference import dropout

__all__ = ["dropout", "relu_dropout"]
