"""The public op."""

from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend
from affmae_kernels.dropout.reference import relu_dropout_reference


def relu_dropout(x: Tensor, rate: float, backend: Backend = "auto") -> Tensor:
    """Zero what is negative, and of the rest a share at random.

    Parameters
    ----------
    x : Tensor of float, any shape
        May be overwritten.
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
    if rate > 0 and choose_backend(backend, x.device, x.dtype) == "triton":
        from affmae_kernels.dropout._triton import relu_dropout_triton

        return relu_dropout_triton(x, rate)
    return relu_dropout_reference(x, rate)
