"""The plain ViT-MAE of equal parameters that AFFMAE is compared with.

A masked autoencoder after He et al. (2022, arXiv 2111.06377) with fixed sine
positions, so that it takes images of any size: the encoder sees the visible
patches alone, the decoder all patches. It has AFFMAE's signatures.
"""

from collections.abc import Mapping
from typing import Literal, Self, overload

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from napari_affmae.config import Settings
from napari_affmae.model.losses import reconstruction_loss
from napari_affmae.model.mae import canvas_of
from napari_affmae.model.parts.heads import class_head
from napari_affmae.model.parts.layers import initialise
from napari_affmae.model.parts.outputs import Level, MAEOutput
from napari_affmae.model.tokens.masking import draw_keys, draw_masks
from napari_affmae.model.tokens.patches import (
    check_images,
    pad_to_patches,
    patchify,
    take_tokens,
    unpatchify,
)
from napari_affmae.model.tokens.positions import canvas_ids, positions_of


class ViTConfig(Settings):
    """Shape of the plain ViT-MAE that AFFMAE is compared with (presets below)."""

    in_channels: int = Field(1, ge=1, title="Channels", description="Channels of the input image.")
    patch_size: int = Field(8, ge=2, title="Patch size", description="Side of a patch, pixels.")
    width: int = Field(ge=4, title="Width", description="Encoder channels.")
    blocks: int = Field(ge=1, title="Depth", description="Encoder blocks.")
    heads: int = Field(ge=1, title="Heads", description="Encoder attention heads.")
    mlp_ratio: float = Field(4.0, gt=0, title="MLP ratio", description="Hidden over block width.")
    decoder_width: int = Field(384, ge=4, title="Decoder width", description="Decoder channels.")
    decoder_blocks: int = Field(4, ge=1, title="Decoder depth", description="Decoder blocks.")
    decoder_heads: int = Field(6, ge=1, title="Decoder heads", description="Decoder heads.")

    @model_validator(mode="after")
    def _widths_divide(self) -> "ViTConfig":
        sides = ((self.width, self.heads), (self.decoder_width, self.decoder_heads))
        for width, heads in sides:
            if width % heads:
                raise ValueError(f"width {width} cannot be split over {heads} heads")
            if width % 4:
                raise ValueError(f"width must divide by 4 for its positions, got {width}")
        return self


VIT_PRESETS: Mapping[str, ViTConfig] = {
    "small": ViTConfig(width=384, blocks=8, heads=6),
    "base": ViTConfig(width=512, blocks=18, heads=8),
}


def sine_positions(pos: Tensor, width: int) -> Tensor:
    """Embed positions as MAE does: sines and cosines of x, then of y.

    Parameters
    ----------
    pos : Tensor
        (..., 2) positions (x, y) in cells.
    width : int
        Channels of the embedding, a multiple of 4.

    Returns
    -------
    Tensor
        (..., width) float32.
    """
    exponents = torch.arange(width // 4, device=pos.device) / (width // 4)
    angles = pos.float().unsqueeze(-1) / 10000**exponents
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class Attention(nn.Module):
    """Global multi-head self-attention.

    Parameters
    ----------
    width : int
        Channels C.
    heads : int
        Attention heads, a divisor of the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the tokens `x` (B, N, C)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        projected: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return projected


class Block(nn.Module):
    """Pre-norm transformer block.

    Parameters
    ----------
    width : int
        Channels C.
    heads : int
        Attention heads.
    mlp_ratio : float
        Hidden channels of the MLP over the width.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Transform the tokens `x` (B, N, C)."""
        x = x + self.attention(self.norm1(x))
        transformed: Tensor = x + self.mlp(self.norm2(x))
        return transformed


class ViTEncoder(nn.Module):
    """Transformer over patches.

    Parameters
    ----------
    config : ViTConfig
        Shape of the network.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.width = config.width
        self.patch_embed = nn.Linear(config.patch_size**2 * config.in_channels, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, patches: Tensor, pos: Tensor) -> Tensor:
        """Encode patches (B, N, p * p * C) that lie at `pos` (B, N, 2) to (B, N, width)."""
        x = self.patch_embed(patches) + sine_positions(pos, self.width)
        for block in self.blocks:
            x = block(x)
        encoded: Tensor = self.norm(x)
        return encoded

    def blocks_in_order(self) -> list[nn.Module]:
        """List the blocks from the image upwards, for rates that decay by layer."""
        return list(self.blocks)


class ViTDecoder(nn.Module):
    """Transformer over all cells of the canvas.

    Parameters
    ----------
    config : ViTConfig
        Shape of the network.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.width = config.decoder_width
        self.embed = nn.Linear(config.width, config.decoder_width)
        self.blocks = nn.ModuleList(
            Block(config.decoder_width, config.decoder_heads, config.mlp_ratio)
            for _ in range(config.decoder_blocks)
        )

    def forward(self, x: Tensor, pos: Tensor, mask_token: Tensor | None = None) -> Tensor:
        """Decode encoder tokens at the first cells of `pos`, mask tokens at the rest.

        Parameters
        ----------
        x : Tensor
            (B, N, C) encoder tokens.
        pos : Tensor
            (B, L, 2) positions, those of `x` first.
        mask_token : Tensor, optional
            (1, 1, width), stands at the L - N others; not needed where N = L.

        Returns
        -------
        Tensor
            (B, L, width) in the order of `pos`.
        """
        x = self.embed(x)
        if mask_token is not None:
            missing = pos.shape[1] - x.shape[1]
            x = torch.cat([x, mask_token.to(x.dtype).expand(len(x), missing, -1)], dim=1)
        x = x + sine_positions(pos, self.width)
        for block in self.blocks:
            x = block(x)
        return x


class ViTMAE(nn.Module):
    """Masked autoencoder with a plain vision transformer.

    Parameters
    ----------
    config : ViTConfig
        Shape of the network.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ViTEncoder(config)
        self.decoder = ViTDecoder(config)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_width))
        self.head = nn.Sequential(
            nn.LayerNorm(config.decoder_width),
            nn.Linear(config.decoder_width, config.patch_size**2 * config.in_channels),
        )
        self.apply(initialise)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self, images: Tensor, ids_keep: Tensor | None = None, ids_masked: Tensor | None = None
    ) -> MAEOutput:
        """Predict the pixels of hidden patches.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W) float, at least 64 px a side.
        ids_keep, ids_masked : Tensor, optional
            (B, n) int64, visible and hidden patches; without both, half of the
            patches is hidden by Perlin noise from torch's default generator.

        Returns
        -------
        MAEOutput
            One loss and prediction, under the name ``"res2"`` of AFFMAE's last
            stage, and one level of features.

        Raises
        ------
        ValueError
            If the images do not fit the network, or one of the two index
            tensors is missing.
        """
        check_images(images, self.config.in_channels)
        patch_size = self.config.patch_size
        padded = pad_to_patches(images, patch_size)
        canvas = canvas_of(padded, patch_size)
        if ids_keep is None or ids_masked is None:
            if ids_keep is not ids_masked:
                raise ValueError("give both ids_keep and ids_masked, or neither")
            keys = draw_keys(len(images), device=images.device)
            ids_keep, ids_masked = draw_masks(keys, canvas)

        patches = patchify(padded, patch_size)
        pos = positions_of(torch.cat([ids_keep, ids_masked], dim=1), canvas)
        visible = ids_keep.shape[1]
        encoded = self.encoder(take_tokens(patches, ids_keep), pos[:, :visible])
        decoded = self.decoder(encoded, pos, self.mask_token)
        prediction = self.head(decoded[:, visible:])
        loss = reconstruction_loss(prediction, take_tokens(patches, ids_masked))
        return MAEOutput(
            loss=loss,
            losses={"res2": loss},
            predictions={"res2": prediction},
            features=[Level(encoded, pos[:, :visible])],
        )


class ViTSegmenter(nn.Module):
    """Segmentation network with a plain vision transformer.

    Parameters
    ----------
    config : ViTConfig
        Shape of the network.
    num_classes : int
        Classes, the background included; at least 2.
    """

    def __init__(self, config: ViTConfig, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"segmentation needs at least 2 classes, got {num_classes}")
        self.config = config
        self.num_classes = num_classes
        self.encoder = ViTEncoder(config)
        self.decoder = ViTDecoder(config)
        self.head = nn.Sequential(
            nn.LayerNorm(config.decoder_width),
            nn.Linear(config.decoder_width, config.patch_size**2 * num_classes),
        )
        self.apply(initialise)

    @classmethod
    def from_pretrained(cls, mae: ViTMAE, num_classes: int) -> Self:
        """Build a segmenter on a copy of a pretrained encoder and decoder.

        Parameters
        ----------
        mae : ViTMAE
            The pretrained network.
        num_classes : int
            Classes, the background included; at least 2.

        Returns
        -------
        ViTSegmenter
            Its class logits start as the reconstructed pixels.
        """
        segmenter = cls(mae.config, num_classes)
        segmenter.encoder.load_state_dict(mae.encoder.state_dict())
        segmenter.decoder.load_state_dict(mae.decoder.state_dict())
        segmenter.head[0].load_state_dict(mae.head[0].state_dict())
        pixel_head = mae.head[1]
        assert isinstance(pixel_head, nn.Linear)
        segmenter.head[1] = class_head(pixel_head, mae.config.in_channels, num_classes)
        return segmenter

    @overload
    def forward(self, images: Tensor, auxiliary: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(
        self, images: Tensor, auxiliary: Literal[True]
    ) -> tuple[Tensor, dict[str, Tensor]]: ...
    def forward(
        self, images: Tensor, auxiliary: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Compute class logits of every pixel.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W) float, at least 64 px a side.
        auxiliary : bool
            Also return auxiliary logits, of which this network has none.

        Returns
        -------
        Tensor or (Tensor, dict)
            (B, classes, H, W), and with `auxiliary` an empty dictionary.

        Raises
        ------
        ValueError
            If the images do not fit the network.
        """
        check_images(images, self.config.in_channels)
        patch_size = self.config.patch_size
        padded = pad_to_patches(images, patch_size)
        canvas = canvas_of(padded, patch_size)
        pos = positions_of(canvas_ids(len(images), canvas, images.device), canvas)
        decoded = self.decoder(self.encoder(patchify(padded, patch_size), pos), pos)
        logits = unpatchify(self.head(decoded), canvas, patch_size, self.num_classes)
        logits = logits[..., : images.shape[-2], : images.shape[-1]]
        return (logits, {}) if auxiliary else logits
