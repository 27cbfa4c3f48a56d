"""The public op."""

from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend
from affmae_kernels.cluster_merge.reference import cluster_merge_reference
from affmae_kernels.neighbours import Neighbourhood


def cluster_merge(
    x: Tensor,
    importance: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    neighbourhood: Neighbourhood,
    backend: Backend = "auto",
) -> Tensor:
    """Gather each kept token's neighbourhood into it.

    Neighbour j of token i has the weights
    ``w_ij = GELU(LN(W g_ij + b)) * s_j`` (4 of them; g is the relative
    geometry, s the importance), and the result is, weight after weight,
    ``sum_j w_ij[c] x_j`` (arXiv 2304.12406, section 3).

    Parameters
    ----------
    x : Tensor of float, shape (B, N, C)
        Tokens sorted by cluster.
    importance : Tensor of float, shape (B, N, 1)
    weight : Tensor of float, shape (4, 5)
    bias, norm_weight, norm_bias : Tensor of float, shape (4,)
    neighbourhood : Neighbourhood
        The kept tokens as queries, all tokens as keys.
    backend : {"auto", "triton", "torch"}
        What computes.

    Returns
    -------
    Tensor, shape (B, Q, 4 * C), dtype of `x`
        Accumulated in float32, or in float64 for float64 inputs.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    """
    if choose_backend(backend, x.device, x.dtype) == "triton":
        from affmae_kernels.cluster_merge._triton import cluster_merge_triton

        return cluster_merge_triton(
            x, importance, weight, bias, norm_weight, norm_bias, neighbourhood
        )
    return cluster_merge_reference(
        x, importance, weight, bias, norm_weight, norm_bias, neighbourhood
    )
