"""Segmentation by a light head on features of a frozen network, for training within seconds."""

from dataclasses import dataclass

from torch import Tensor

_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True)
class QuickFeatures:
    """What the head reads.

    Attributes
    ----------
    cells : Tensor
        (B, D, rows, columns) float, features of every cell of the token canvas.
    pixels : Tensor
        (B, F, H, W) float32, local features of every pixel; H and W are those of
        the image, which may end within the last cells.
    """

    cells: Tensor
    pixels: Tensor
