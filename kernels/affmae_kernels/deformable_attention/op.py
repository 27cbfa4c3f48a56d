"""The public op."""

import torch
from torch import Tensor

from affmae_kernels._dispatch import Backend, BackendUnavailableError, choose_backend
from affmae_kernels.deformable_attention.reference import deformable_attention_reference
from affmae_kernels.neighbours import TokenSearch


def deformable_attention(
    values: Tensor,
    query_pos: Tensor,
    sampling: Tensor,
    power: Tensor,
    index: TokenSearch,
    backend: Backend = "auto",
) -> Tensor:
    """Sum values sampled around each query (AFFMAE, arXiv 2602.16249).

    The value at ``query_pos + offset`` is interpolated from the tokens nearest
    to it with the weights ``softmax(-power * (d + 1e-6))``; the P samples of a
    head are summed with the softmax of their logits. Offsets get a gradient
    through the distances (zero where d = 0), none through the choice of tokens.

    Parameters
    ----------
    values : Tensor of float, shape (B, N, H, D)
    query_pos : Tensor of float, shape (B, Q, 2)
        Positions (x, y), cells.
    sampling : Tensor of float, shape (B, Q, H * P * 3)
        Sampling offsets (H, P, 2), being (x, y) in cells, then the sampling
        points' logits (H, P): the output of a linear layer, as it is.
    power : Tensor of float, shape ()
        Sharpness of the interpolation, clamped at 1e-6.
    index : TokenSearch
        The positions of the N tokens (see `index_tokens`); its `count` is the
        number interpolated. The Triton kernels take a `TokenTable`.
    backend : {"auto", "triton", "torch"}
        What computes. Where PyTorch has to be deterministic, ``"auto"`` takes
        PyTorch, since Triton adds up the values' gradients atomically.

    Returns
    -------
    Tensor, shape (B, Q, H, D), dtype of `values`
        Accumulated in float32, or in float64 for float64 inputs.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    ValueError
        If `sampling` does not hold the same number of points for every head.
    """
    heads, packed = values.shape[2], sampling.shape[-1]
    if packed % (3 * heads):
        raise ValueError(
            f"sampling holds x, y and a logit for the points of {heads} heads; its last dimension "
            f"must be a multiple of {3 * heads}, got {packed}"
        )
    if backend == "auto" and torch.are_deterministic_algorithms_enabled():
        backend = "torch"
    if choose_backend(backend, values.device, values.dtype) == "triton":
        from affmae_kernels.deformable_attention._triton import deformable_attention_triton
        from affmae_kernels.neighbours.token_table import TokenTable

        if isinstance(index, TokenTable):
            return deformable_attention_triton(values, query_pos, sampling, power, index)
        if backend == "triton":
            raise BackendUnavailableError(
                f"the Triton kernels look tokens up in a TokenTable, got a {type(index).__name__}; "
                "build it with index_tokens(..., backend='triton')"
            )
    return deformable_attention_reference(values, query_pos, sampling, power, index)
