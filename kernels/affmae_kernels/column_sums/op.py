"""The public op."""

import torch
from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend


def column_sums(x: Tensor, backend: Backend = "auto") -> Tensor:
    """Add up the rows of a tensor, in float32 and always in the same order.

    Parameters
    ----------
    x : Tensor of float, shape (..., C)
    backend : {"auto", "triton", "torch"}
        What computes.

    Returns
    -------
    Tensor of float32, shape (C,)
        Or of float64, if `x` is.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    """
    rows = x.reshape(-1, x.shape[-1])
    if choose_backend(backend, x.device, x.dtype) == "triton":
        from affmae_kernels.column_sums._triton import column_sums_forward

        out: Tensor = column_sums_forward(rows.contiguous())
        return out
    return rows.sum(0, dtype=torch.promote_types(x.dtype, torch.float32))
