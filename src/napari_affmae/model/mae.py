"""Masked-autoencoder pretraining (AFFMAE, arXiv 2602.16249)."""

from collections.abc import Mapping

from torch import Tensor, nn

from napari_affmae.config import ModelConfig
from napari_affmae.model.losses import reconstruction_loss
from napari_affmae.model.parts.decoder import Decoder
from napari_affmae.model.parts.encoder import Encoder
from napari_affmae.model.parts.heads import Head
from napari_affmae.model.parts.layers import Linear, Norm, initialise
from napari_affmae.model.parts.outputs import Level, MAEOutput
from napari_affmae.model.tokens.masking import draw_keys, draw_masks
from napari_affmae.model.tokens.patches import check_images, pad_to_patches, patchify, take_tokens
from napari_affmae.model.tokens.positions import index_later, positions_of

# Deep supervision: without it the sparse stages collapse.
LOSS_WEIGHTS: Mapping[str, float] = {"res2": 1.0, "res4": 0.12, "res5": 0.05}
# Which of the decoder's stages each head reads.
HEAD_STAGES: Mapping[str, int] = {"res5": 0, "res4": 1, "res2": 3}


class AFFMAE(nn.Module):
    """Predict the pixels of hidden patches from the visible ones.

    Parameters
    ----------
    config : ModelConfig
        Shape of the network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.heads = build_heads(config, config.in_channels)

    def forward(
        self, images: Tensor, ids_keep: Tensor | None = None, ids_masked: Tensor | None = None
    ) -> MAEOutput:
        """Reconstruct hidden patches.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W) float, normalised; at least 64 px a side.
        ids_keep, ids_masked : Tensor, optional
            (B, n) int64 row-major indices of visible and hidden patches; drawn
            (Perlin noise, half hidden) if left out.

        Returns
        -------
        MAEOutput
            The loss is ``res2 + 0.12 res4 + 0.05 res5``.

        Raises
        ------
        ValueError
            If the images do not fit the network, or only one of the two index
            tensors is given.
        """
        check_images(images, self.config.in_channels)
        images = pad_to_patches(images, self.config.patch_size)
        canvas = canvas_of(images, self.config.patch_size)
        if ids_keep is None or ids_masked is None:
            if ids_keep is not ids_masked:
                raise ValueError("give both ids_keep and ids_masked, or neither")
            keys = draw_keys(len(images), device=images.device)
            ids_keep, ids_masked = draw_masks(keys, canvas)
        query_pos = positions_of(ids_masked, canvas)
        query_index = index_later(query_pos, canvas)
        levels = self.encoder(images, canvas, ids_keep)
        predictions = self._apply_heads(self.decoder(levels, query_pos, canvas, query_index))
        targets = take_tokens(patchify(images, self.config.patch_size), ids_masked)
        losses = {name: reconstruction_loss(p, targets) for name, p in predictions.items()}
        loss = sum(
            (LOSS_WEIGHTS[name] * part for name, part in losses.items()),
            start=targets.new_zeros(()),
        )
        return MAEOutput(loss, losses, predictions, levels)

    def predict(
        self, levels: list[Level], ids: Tensor, canvas: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Predict the pixels of patches `ids` (B, n) from encoder features."""
        return self._apply_heads(self.decoder(levels, positions_of(ids, canvas), canvas))

    def _apply_heads(self, decoded: list[Tensor]) -> dict[str, Tensor]:
        return {name: self.heads[name](decoded[stage]) for name, stage in HEAD_STAGES.items()}


def build_heads(config: ModelConfig, channels: int) -> nn.ModuleDict:
    """Build a norm and a linear layer to ``p * p * channels`` for each supervised stage."""
    width, pixels = config.decoder_width, config.patch_size**2 * channels
    heads = nn.ModuleDict({name: Head(Norm(width), Linear(width, pixels)) for name in HEAD_STAGES})
    return heads.apply(initialise)


def canvas_of(images: Tensor, patch_size: int) -> tuple[int, int]:
    """Count rows and columns of patches of padded images (B, C, H, W)."""
    return images.shape[-2] // patch_size, images.shape[-1] // patch_size
