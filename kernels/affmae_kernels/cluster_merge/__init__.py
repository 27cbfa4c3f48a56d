"""Merging of neighbourhoods into the tokens that are kept."""

from affmae_kernels.cluster_merge.op import cluster_merge

__all__ = ["cluster_merge"]
