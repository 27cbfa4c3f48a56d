"""Embedded positions, added to tokens."""

from affmae_kernels.add_positions.op import add_positions

__all__ = ["add_positions"]
