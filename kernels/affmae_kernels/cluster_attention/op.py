"""The public op."""

from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend
from affmae_kernels.cluster_attention.reference import cluster_attention_reference
from affmae_kernels.neighbours import Neighbourhood


def cluster_attention(
    query_key_value: Tensor,
    projection_bias: Tensor | None,
    blank_k: Tensor,
    blank_v: Tensor,
    bias_weight: Tensor,
    bias: Tensor,
    neighbourhood: Neighbourhood,
    backend: Backend = "auto",
) -> Tensor:
    """Attend from every query to the keys of its clusters and to a blank key.

    The logit of key j is ``q k_j / sqrt(D) + w g_ij + b``, with the relative
    geometry g of `relative_geometry`; the blank key has no geometry term. One
    softmax runs over all of them (AutoFocusFormer, arXiv 2304.12406, section 3).

    Parameters
    ----------
    query_key_value : Tensor of float, shape (B, N, 3, H, D)
        Queries, keys and values of the tokens, sorted by cluster. They come in one
        tensor because one layer computes them; so does their gradient.
    projection_bias : Tensor of float, shape (3, H, D), or None
        The bias of the layer that made `query_key_value`, if that did not add it.
        It is added here because its gradient then costs nothing.
    blank_k, blank_v : Tensor of float, shape (H, D)
        The learned key and value that let a query attend to nothing.
    bias_weight : Tensor of float, shape (H, 5)
    bias : Tensor of float, shape (H,)
        The geometry term's linear map.
    neighbourhood : Neighbourhood
        The clusters of each token.
    backend : {"auto", "triton", "torch"}
        What computes.

    Returns
    -------
    Tensor, shape (B, N, H, D), dtype of `query_key_value`
        Accumulated in float32, or in float64 for float64 inputs.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    """
    small = (projection_bias, blank_k, blank_v, bias_weight, bias)
    if choose_backend(backend, query_key_value.device, query_key_value.dtype) == "triton":
        from affmae_kernels.cluster_attention._triton import cluster_attention_triton

        return cluster_attention_triton(query_key_value, *small, neighbourhood)
    return cluster_attention_reference(query_key_value, *small, neighbourhood)
