"""The public op."""

from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend
from affmae_kernels.residual_norm.reference import residual_norm_reference

EPSILON = 1e-5


def residual_norm(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    branch_bias: Tensor | None = None,
    factors: Tensor | None = None,
    rate: float = 0.0,
    epsilon: float = EPSILON,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Normalise ``x + factors * dropout(branch + branch_bias)`` over its channels.

    `branch_bias` is the bias of the layer that made the branch. Adding it here costs
    nothing, and its gradient is summed where the branch's is computed.

    Parameters
    ----------
    x : Tensor of float, shape (B, ..., C)
    branch : Tensor of float, shape (B, ..., C), or None
        Added to `x`.
    weight, bias : Tensor of float, shape (C,)
    branch_bias : Tensor of float, shape (C,), optional
    factors : Tensor of float, shape (B,), optional
        Factors by which the branch of each image is multiplied, as stochastic
        depth does; they get no gradient.
    rate : float
        Share of the branch's elements that are zeroed, the others being
        scaled up; drawn anew in each call.
    epsilon : float
        Added to the variance.
    backend : {"auto", "triton", "torch"}
        What computes.

    Returns
    -------
    normed : Tensor, shape (B, ..., C)
        Triton returns autocast's type where that is on, else that of `x`, and
        computes statistics in float32. PyTorch returns the type of `layer_norm`.
    total : Tensor, shape (B, ..., C)
        The sum, of the same type; `x` itself without a branch.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    """
    options = (weight, bias, branch_bias, factors, rate, epsilon)
    if choose_backend(backend, x.device, x.dtype) == "triton":
        from affmae_kernels.residual_norm._triton import residual_norm_triton

        return residual_norm_triton(x, branch, *options)
    return residual_norm_reference(x, branch, *options)
