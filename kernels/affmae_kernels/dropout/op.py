"""The public op."""

from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend
from affmae_kernels.dropout.reference import relu_dropout_reference


def relu_dropout(x: Tensor, bias: Tensor | None, rate: float, backend: Backend = "auto") -> Tensor:
    """Zero the negative elements of ``x + bias``, and a random share of the others.

    Parameters
    ----------
    x : Tensor of float, shape (..., C)
        May be overwritten.
    bias : Tensor of float, shape (C,), or None
        The bias of the layer that made `x`, which did not add it; see `residual_norm`.
    rate : float
        Share zeroed, the others being scaled up; 0 is a ReLU.
    backend : {"auto", "triton", "torch"}
        What computes.

    Returns
    -------
    Tensor, shape and dtype of `x`

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    """
    if choose_backend(backend, x.device, x.dtype) == "triton":
        from affmae_kernels.dropout._triton import relu_dropout_triton

        return relu_dropout_triton(x, bias, rate)
    return relu_dropout_reference(x, bias, rate)
