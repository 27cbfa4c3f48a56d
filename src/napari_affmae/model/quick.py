"""Segmentation by a light head on features of a frozen network, for training within seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_affmae.config import ModelConfig
from napari_affmae.model.decoder import Decoder
from napari_affmae.model.encoder import Encoder
from napari_affmae.model.local_features import gaussian_blur, local_channels, local_features
from napari_affmae.model.mae import AFFMAE, canvas_of
from napari_affmae.model.patches import check_images, pad_to_patches
from napari_affmae.model.positions import canvas_ids, positions_of
from napari_affmae.model.segmenter import AFFSegmenter

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
