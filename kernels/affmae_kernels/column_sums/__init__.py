"""Sums over all rows of a matrix, as the gradient of a bias needs them."""

from affmae_kernels.column_sums.op import column_sums

__all__ = ["column_sums"]
