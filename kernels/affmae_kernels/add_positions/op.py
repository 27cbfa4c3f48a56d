"""The public op."""

from torch import Tensor

from affmae_kernels._dispatch import Backend, choose_backend
from affmae_kernels.add_positions.reference import add_positions_reference


def add_positions(
    x: Tensor,
    pos: Tensor,
    waves: tuple[Tensor, Tensor],
    backend: Backend = "auto",
) -> Tensor:
    """Add the embeddings of its column and of its row to each token.

    Parameters
    ----------
    x : Tensor of float, shape (B, N, C) or (C,)
        Tokens, or one vector that all of them share.
    pos : Tensor of float, shape (B, N, 2)
        Positions (x, y), whole cells of the canvas.
    waves : tuple of Tensor of float32, shapes (columns, C / 2) and (rows, C / 2)
        The embedding of each column, for the first half of the channels, and of
        each row, for the second; without gradient.
    backend : {"auto", "triton", "torch"}
        What computes.

    Returns
    -------
    Tensor, shape (B, N, C)
        For tokens it has the type of `x`. For one vector Triton returns autocast's
        type where that is on, and PyTorch float32.

    Raises
    ------
    BackendUnavailableError
        If ``"triton"`` was asked for and cannot run.
    """
    if choose_backend(backend, x.device, x.dtype) == "triton":
        from affmae_kernels.add_positions._triton import add_positions_triton

        return add_positions_triton(x, pos, waves)
    return add_positions_reference(x, pos, waves)
