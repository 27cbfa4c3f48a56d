"""Deformable attention that samples tokens which lie off any grid."""

from affmae_kernels.deformable_attention.op import deformable_attention

__all__ = ["deformable_attention"]
