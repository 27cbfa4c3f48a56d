"""The public op."""

from torch import Tensor

from affmae_kernels.deformable_attention.reference import deformable_attention_reference
from affmae_kernels.neighbours import TokenIndex


def deformable_attention(
    values: Tensor,
    query_pos: Tensor,
    offsets: Tensor,
    weights: Tensor,
    power: Tensor,
    index: TokenIndex,
) -> Tensor:
    """Sum values sampled around each query (AFFMAE, arXiv 2602.16249).

    The value at ``query_pos + offset`` is interpolated from the tokens nearest
    to it with the weights ``softmax(-power * (d + 1e-6))``; the samples of a
    head are summed by `weights`. Offsets get a gradient through the distances
    (zero where d = 0), none through the choice of tokens.

    Parameters
    ----------
    values : Tensor of float, shape (B, N, H, D)
    query_pos : Tensor of float, shape (B, Q, 2)
        Positions (x, y), cells.
    offsets : Tensor of float, shape (B, Q, H, P, 2)
        Sampling offsets (x, y), cells.
    weights : Tensor of float, shape (B, Q, H, P)
        Weights of the sampling points.
    power : Tensor of float, shape ()
        Sharpness of the interpolation, clamped at 1e-6.
    index : TokenIndex
        The positions of the N tokens; its `count` is the number interpolated.

    Returns
    -------
    Tensor, shape (B, Q, H, D), dtype of `values`
        Accumulated in float32, or in float64 for float64 inputs.
    """
    return deformable_attention_reference(values, query_pos, offsets, weights, power, index)
