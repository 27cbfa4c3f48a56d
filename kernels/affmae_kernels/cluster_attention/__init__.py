"""Attention of tokens to the clusters around them."""

from affmae_kernels.cluster_attention.op import cluster_attention

__all__ = ["cluster_attention"]
