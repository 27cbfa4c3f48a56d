"""The public operations."""

import torch
from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend
from affmae_kernels.ordering.cell_order import CellOrder


def order_tokens(pos: Tensor, columns: int, order: CellOrder, backend: Backend = "auto") -> Tensor:
    """Order tokens by the ranks of their cells.

    Parameters
    ----------
    pos : Tensor of float, shape (B, N, 2)
        Positions (x, y): whole and distinct cells of the canvas.
    columns : int
        Columns of the canvas.
    order : CellOrder
        The order of the canvas' cells, on the device of `pos`.
    backend : {"auto", "triton", "torch"}
        What computes.

    Returns
    -------
    Tensor of int64, shape (B, N)
        Indices of the tokens; those whose cells tie come in ascending order.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    """
    if choose_backend(backend, pos.device) == "triton":
        from affmae_kernels.ordering._triton import order_tokens_triton

        ordered: Tensor = order_tokens_triton(pos, columns, order)
        return ordered
    cells = (pos[..., 1] * columns + pos[..., 0]).long()
    # Each key is another, so no stable sort is needed, which graphs for ONNX do not have.
    tokens = pos.shape[1]
    keys = order.ranks[cells].long() * tokens + torch.arange(tokens, device=pos.device)
    return keys.sort(dim=1).indices


def ascending(indices: Tensor, size: int, backend: Backend = "auto") -> Tensor:
    """Sort distinct indices.

    Parameters
    ----------
    indices : Tensor of int64, shape (B, n)
        Numbers from 0 to below `size`, distinct in each row.
    size : int
    backend : {"auto", "triton", "torch"}
        What computes.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    """
    if choose_backend(backend, indices.device) == "triton":
        from affmae_kernels.ordering._triton import sort_distinct

        ordered: Tensor = sort_distinct(indices.contiguous(), size)
        return ordered
    return indices.sort(dim=1).values
