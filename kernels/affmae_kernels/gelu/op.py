"""The public op."""

from torch import Tensor
from torch.nn import functional as F

from affmae_kernels._dispatch import Backend, choose_backend


def gelu(x: Tensor, bias: Tensor | None = None, backend: Backend = "auto") -> Tensor:
    """Compute the GELU of ``x + bias``.

    Parameters
    ----------
    x : Tensor of float, shape (..., C)
    bias : Tensor of float, shape (C,), optional
        What a layer left to be added; see `residual_norm`.
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
        from affmae_kernels.gelu._triton import gelu_forward

        out: Tensor = gelu_forward(x.contiguous(), bias)
        return out
    return F.gelu(x if bias is None else x + bias)
