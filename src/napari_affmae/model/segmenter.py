"""Segmentation with the pretrained encoder and decoder."""

from copy import deepcopy
from typing import Literal, Self, cast, overload

from torch import Tensor, nn

from napari_affmae.config import ModelConfig
from napari_affmae.model.mae import AFFMAE, HEAD_STAGES, build_heads, canvas_of
from napari_affmae.model.parts.decoder import Decoder
from napari_affmae.model.parts.encoder import Encoder
from napari_affmae.model.parts.heads import Head, class_head
from napari_affmae.model.parts.layers import Linear, Norm
from napari_affmae.model.tokens.patches import check_images, pad_to_patches, unpatchify
from napari_affmae.model.tokens.positions import canvas_ids, index_later, positions_of


class AFFSegmenter(nn.Module):
    """Classify every pixel: nothing is masked, and every patch is queried.

    Parameters
    ----------
    config : ModelConfig
        Shape of the network.
    num_classes : int
        Classes, at least two.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"a segmentation needs at least 2 classes, got {num_classes}")
        self.config, self.num_classes = config, num_classes
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.heads = build_heads(config, num_classes)

    @classmethod
    def from_pretrained(cls, mae: AFFMAE, num_classes: int) -> Self:
        """Start from a pretrained network.

        Encoder, decoder and query carry over; each class head starts as the
        pixel head (see `heads.class_head`).
        """
        segmenter = cls.from_body(mae.config, mae.encoder, mae.decoder, num_classes)
        for name, head in mae.heads.items():
            norm, linear = cast("tuple[Norm, Linear]", tuple(head.children()))
            classes = class_head(linear, mae.config.in_channels, num_classes)
            segmenter.heads[name] = Head(deepcopy(norm), cast("Linear", classes))
        return segmenter

    @classmethod
    def from_body(
        cls, config: ModelConfig, encoder: Encoder, decoder: Decoder, num_classes: int
    ) -> Self:
        """Start from the encoder and decoder of a network, with random heads."""
        segmenter = cls(config, num_classes)
        segmenter.encoder.load_state_dict(encoder.state_dict())
        segmenter.decoder.load_state_dict(decoder.state_dict())
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
        """Compute class logits.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W) float, normalised; at least 64 px a side.
        auxiliary : bool
            Also return the logits of the decoder's first two stages.

        Returns
        -------
        Tensor, or tuple of Tensor and dict
            Logits (B, classes, H, W); the auxiliary ones alike, as ``res5``
            and ``res4``.

        Raises
        ------
        ValueError
            If the images do not fit the network.
        """
        check_images(images, self.config.in_channels)
        height, width = images.shape[-2:]
        padded = pad_to_patches(images, self.config.patch_size)
        canvas = canvas_of(padded, self.config.patch_size)
        # Every patch is queried.
        query_pos = positions_of(canvas_ids(len(padded), canvas, padded.device), canvas)
        query_index = index_later(query_pos, canvas)
        decoded = self.decoder(self.encoder(padded, canvas), query_pos, canvas, query_index)
        wanted = HEAD_STAGES if auxiliary else ("res2",)
        logits = {
            name: unpatchify(
                self.heads[name](decoded[HEAD_STAGES[name]]),
                canvas,
                self.config.patch_size,
                self.num_classes,
            )[..., :height, :width]
            for name in wanted
        }
        final = logits.pop("res2")
        return (final, logits) if auxiliary else final
