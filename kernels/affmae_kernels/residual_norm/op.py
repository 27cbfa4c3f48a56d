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
    rate: float = 0.0,
    epsilon: float = EPSILON,
    backend: Backend = "auto",
) -> Tensor:
    """Normalise ``x + dropout(branch)`` over its channels.

    Parameters
    ----------
    x : Tensor of float, shape (..., C)
    branch : Tensor of float, shape (..., C), or None
        Added to `x`.
    weight, bias : Tensor of float, shape (C,)
    rate : float
        Share of the branch's elements that are zeroed, the others being
        scaled up; drawn anew in each call.
    epsilon : float
        Added to the variance.
    backend : {"auto", "triton", "torch"}
        What computes.

    Returns
    -------
    Tensor, shape (..., C)
        Triton: of autocast's type where that is on, else that of `x`; statistics
        are float32. PyTorch: what `layer_norm` returns.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    """
    if choose_backend(backend, x.device, x.dtype) == "triton":
        from affmae_kernels.residual_norm._triton import residual_norm_triton

        return residual_norm_triton(x, branch, weight, bias, rate, epsilon)
    return residual_norm_reference(x, branch, weight, bias, rate, epsilon)
