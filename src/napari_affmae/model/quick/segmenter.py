"""Segmentation by a light head on features of a frozen network, for training within seconds."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_affmae.config import ModelConfig
from napari_affmae.model.mae import AFFMAE
from napari_affmae.model.parts.decoder import Decoder
from napari_affmae.model.parts.encoder import Encoder
from napari_affmae.model.quick.cells import cell_channels, cell_features
from napari_affmae.model.quick.local_features import gaussian_blur, local_channels, local_features
from napari_affmae.model.segmenter import AFFSegmenter

COMPONENTS = 24
DROPOUT, CELL_DROPOUT = 0.2, 0.4
_SMALLEST_DEVIATION = 1e-3
_NEVER = -1e4


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


class ClassHead(nn.Sequential):
    """A perceptron with two hidden layers.

    Parameters
    ----------
    inputs, hidden, outputs : int
        Channels.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__(
            nn.Linear(inputs, hidden),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, outputs),
        )


class QuickHead(nn.Module):
    """Classify pixels by their own features and by those of the network's cells around them.

    Two branches vote: one sees the pixel's features alone, the other both
    kinds. With a few strokes the first is the surer one, with many the second.
    Cell features are projected to their principal components first: a few
    hundred painted pixels, most of them neighbours, cannot tell which of
    hundreds of channels matter.

    Parameters
    ----------
    cell_channels, pixel_channels : int
        Channels D and F of the features.
    num_classes : int
        Classes.
    hidden : int
        Hidden channels.

    Attributes
    ----------
    learned : Tensor
        (classes,) bool, classes that were painted; the others are never predicted.
    """

    learned: Tensor
    projection: Tensor
    offset: Tensor
    pixel_mean: Tensor
    pixel_scale: Tensor

    def __init__(
        self, cell_channels: int, pixel_channels: int, num_classes: int, hidden: int
    ) -> None:
        super().__init__()
        self.register_buffer("learned", torch.ones(num_classes, dtype=torch.bool))
        self.register_buffer("projection", torch.zeros(COMPONENTS, cell_channels))
        self.register_buffer("offset", torch.zeros(COMPONENTS))
        self.register_buffer("pixel_mean", torch.zeros(pixel_channels))
        self.register_buffer("pixel_scale", torch.ones(pixel_channels))
        self.local = ClassHead(pixel_channels, hidden, num_classes)
        self.joint = ClassHead(COMPONENTS + pixel_channels, hidden, num_classes)
        self.cell_dropout, self.pixel_dropout = nn.Dropout(CELL_DROPOUT), nn.Dropout(DROPOUT)

    def reset_parameters(self) -> None:
        """Draw the weights anew; what `adapt` has set stays."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    @torch.no_grad()
    def adapt(self, cells: Tensor, pixels: Tensor) -> None:
        """Fit standardisation and principal components to samples of the features.

        Parameters
        ----------
        cells : Tensor
            (n, D).
        pixels : Tensor
            (m, F).
        """
        mean = cells.mean(0)
        scale = cells.std(0).clamp(min=_SMALLEST_DEVIATION)
        standard = (cells - mean) / scale
        # On the CPU: not every device has eigenvectors.
        values, vectors = torch.linalg.eigh((standard.T @ standard / len(cells)).cpu())
        deviation = values.clamp(min=0).sqrt().flip(0)[:COMPONENTS].to(cells)
        components = vectors.T.flip(0)[:COMPONENTS].to(cells)
        # Components that the samples do not have, for instance of an empty image, stay 0.
        components = components / deviation.clamp(min=_SMALLEST_DEVIATION)[:, None] / scale
        self.projection.copy_(components * (deviation > _SMALLEST_DEVIATION)[:, None])
        self.offset.copy_(self.projection @ mean)
        self.pixel_mean.copy_(pixels.mean(0))
        self.pixel_scale.copy_(pixels.std(0).clamp(min=_SMALLEST_DEVIATION))

    def standardise(self, cells: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Bring features of single pixels, (n, D) and (n, F), to what `forward` takes."""
        projected = cells @ self.projection.T - self.offset
        return projected, (pixels - self.pixel_mean) / self.pixel_scale

    def forward(self, cells: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Let each branch classify standardised features.

        Parameters
        ----------
        cells, pixels : Tensor
            (..., components) and (..., F).

        Returns
        -------
        tuple of Tensor
            Log-probabilities (..., classes) of the local and of the joint branch.
        """
        pixels = self.pixel_dropout(pixels)
        both = torch.cat([self.cell_dropout(cells), pixels], dim=-1)
        # Not infinity, which a blur would spread.
        local, joint = (
            logits.masked_fill(~self.learned, _NEVER).log_softmax(-1)
            for logits in (self.local(pixels), self.joint(both))
        )
        return local, joint

    def loss(self, cells: Tensor, pixels: Tensor, classes: Tensor) -> Tensor:
        """Sum the branches' cross-entropies over standardised features of pixels."""
        losses = [F.nll_loss(branch, classes) for branch in self(cells, pixels)]
        return torch.stack(losses).sum()

    def classify(self, features: QuickFeatures, patch_size: int) -> Tensor:
        """Classify whole images: log-probabilities (B, classes, H, W), averaged over branches.

        The projection, being linear, precedes the upsampling.
        """
        height, width = features.pixels.shape[-2:]
        cells = torch.einsum("kd,bdhw->bkhw", self.projection, features.cells)
        cells = cells - self.offset[:, None, None]
        cells = F.interpolate(cells, scale_factor=patch_size, mode="bilinear")
        cells = cells[..., :height, :width].permute(0, 2, 3, 1)
        pixels = features.pixels.permute(0, 2, 3, 1)
        pixels = (pixels - self.pixel_mean) / self.pixel_scale
        local, joint = self(cells, pixels)
        return (torch.logaddexp(local, joint) - math.log(2)).permute(0, 3, 1, 2)


class QuickSegmenter(nn.Module):
    """Classify every pixel by a light head; encoder and decoder are frozen.

    Parameters
    ----------
    config : ModelConfig
        Shape of encoder and decoder.
    num_classes : int
        Classes, at least two.
    hidden : int
        Hidden channels of the head.
    smoothness : float
        Standard deviation, pixels, of the Gaussian that logits are blurred by.
    """

    def __init__(
        self, config: ModelConfig, num_classes: int, hidden: int, smoothness: float
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"a segmentation needs at least 2 classes, got {num_classes}")
        self.config, self.num_classes, self.smoothness = config, num_classes, smoothness
        self.encoder = Encoder(config).requires_grad_(False)
        self.decoder = Decoder(config).requires_grad_(False)
        self.cell_channels = cell_channels(config)
        self.pixel_channels = local_channels(config.in_channels)
        self.head = QuickHead(self.cell_channels, self.pixel_channels, num_classes, hidden)

    @classmethod
    def from_network(
        cls,
        network: "AFFMAE | AFFSegmenter | QuickSegmenter",
        num_classes: int,
        hidden: int,
        smoothness: float,
    ) -> Self:
        """Take encoder and decoder of a network, and a head with random weights."""
        segmenter = cls(network.config, num_classes, hidden, smoothness)
        segmenter.encoder.load_state_dict(network.encoder.state_dict())
        segmenter.decoder.load_state_dict(network.decoder.state_dict())
        return segmenter

    def train(self, mode: bool = True) -> Self:
        """Switch the head's mode; the frozen parts always stay in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        self.decoder.eval()
        return self

    @torch.no_grad()
    def features(self, images: Tensor, cells: Tensor | None = None) -> QuickFeatures:
        """Compute what the head reads, which training does not change.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W) float, normalised; at least 64 px a side.
        cells : Tensor, optional
            The features of their cells, where they are known: the network is not asked then.

        Raises
        ------
        ValueError
            If the images do not fit the network.
        """
        if cells is None:
            cells = cell_features(self.config, self.encoder, self.decoder, images)
        return QuickFeatures(cells, local_features(images))

    def classify(self, features: QuickFeatures) -> Tensor:
        """Compute logits (B, classes, H, W) from features."""
        # In float32, as the head was trained.
        with torch.autocast(features.pixels.device.type, enabled=False):
            logits = self.head.classify(features, self.config.patch_size)
            return gaussian_blur(logits, self.smoothness)

    def forward(self, images: Tensor) -> Tensor:
        """Compute class logits.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W) float, normalised; at least 64 px a side.

        Returns
        -------
        Tensor
            (B, classes, H, W).

        Raises
        ------
        ValueError
            If the images do not fit the network.
        """
        return self.classify(self.features(images))
