"""Features of every cell of the token canvas, for classifiers that do not train the network."""

import torch
from torch import Tensor

from napari_affmae.config import ModelConfig
from napari_affmae.model.mae import canvas_of
from napari_affmae.model.parts.decoder import Decoder
from napari_affmae.model.parts.encoder import Encoder
from napari_affmae.model.tokens.patches import check_images, pad_to_patches
from napari_affmae.model.tokens.positions import canvas_ids, positions_of


def cell_channels(config: ModelConfig) -> int:
    """Return the number of features of a cell."""
    return config.channels[0] + len(config.channels) * config.decoder_width


@torch.no_grad()
def cell_features(
    config: ModelConfig, encoder: Encoder, decoder: Decoder, images: Tensor
) -> Tensor:
    """Compute what a network says of each cell when nothing is hidden.

    Parameters
    ----------
    config : ModelConfig
        Shape of the network.
    encoder : Encoder
        In evaluation mode.
    decoder : Decoder
        In evaluation mode.
    images : Tensor
        (B, C, H, W) float, normalised; at least 64 px a side.

    Returns
    -------
    Tensor
        (B, `cell_channels`, rows, columns) float32: the finest tokens, and the decoder's
        stages. The last cells may reach beyond the image.

    Raises
    ------
    ValueError
        If the images do not fit the network.
    """
    check_images(images, config.in_channels)
    padded = pad_to_patches(images, config.patch_size)
    canvas = canvas_of(padded, config.patch_size)
    levels = encoder(padded, canvas)
    finest = levels[0]
    ids = (finest.pos[..., 1] * canvas[1] + finest.pos[..., 0]).long()
    on_grid = torch.empty_like(finest.x)
    on_grid.scatter_(1, ids.unsqueeze(-1).expand_as(finest.x), finest.x)
    pos = positions_of(canvas_ids(len(images), canvas, images.device), canvas)
    decoded = decoder(levels, pos, canvas)
    tokens = torch.cat([part.float() for part in (on_grid, *decoded)], dim=-1)
    return tokens.transpose(1, 2).unflatten(2, canvas)
