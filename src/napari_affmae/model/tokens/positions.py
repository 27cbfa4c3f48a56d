"""Token positions on the canvas, and their embedding."""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

import affmae_kernels
from affmae_kernels import TokenSearch, add_positions

NEAREST = 4  # tokens that a sample of the decoder is interpolated from


def positions_of(ids: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Turn row-major patch indices into positions.

    Parameters
    ----------
    ids : Tensor
        (B, N) int64.
    canvas : tuple[int, int]
        Rows and columns of patches.

    Returns
    -------
    Tensor
        (B, N, 2) float32, (x, y) in cells.
    """
    columns = canvas[1]
    return torch.stack([ids % columns, ids // columns], dim=-1).float()


def canvas_ids(batch: int, canvas: tuple[int, int], device: torch.device) -> Tensor:
    """List every patch of a canvas in row-major order.

    Parameters
    ----------
    batch : int
        Number of images B.
    canvas : tuple[int, int]
        Rows and columns of patches.
    device : torch.device
        Where to.

    Returns
    -------
    Tensor
        (B, rows * columns) int64.
    """
    return torch.arange(canvas[0] * canvas[1], device=device).expand(batch, -1)


def index_later(pos: Tensor, canvas: tuple[int, int]) -> Callable[[], TokenSearch]:
    """Begin to prepare positions (B, N, 2) for the decoder; see `affmae_kernels.index_later`."""
    return affmae_kernels.index_later(pos, canvas, NEAREST)


class SineEmbedding(nn.Module):
    """Embed positions, scaled to a full turn over the canvas.

    Half of the channels are for x, half for y; in each half the sines of the
    even frequencies come first, then the cosines of the odd ones.

    Parameters
    ----------
    width : int
        Channels of the embedding, a multiple of 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, pos: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Add embedded positions to `x`.

        Parameters
        ----------
        x : Tensor
            (B, N, width) tokens, or (width,), which all of them share.
        pos : Tensor
            (B, N, 2) float, (x, y), whole cells of the canvas.
        canvas : tuple[int, int]
            Rows and columns of the canvas.

        Returns
        -------
        Tensor
            (B, N, width).
        """
        rows, columns = (_waves(extent, self.width // 2, pos.device) for extent in canvas)
        return add_positions(x, pos, (columns, rows))


# Small tables for each size of image. They are never dropped, because CUDA graphs that
# were captured go on reading them.
@cache
def _waves(extent: int, width: int, device: torch.device) -> Tensor:
    """Embed the cells of one axis of the canvas, (extent, width) float32."""
    exponents = 2 * torch.div(torch.arange(width), 2, rounding_mode="floor")
    wavelengths = 10000 ** (exponents / width)
    scaled = torch.arange(extent) * (2 * math.pi / (extent - 1 + 1e-6))
    angles = scaled[:, None] / wavelengths
    return torch.cat([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=-1).to(device)
