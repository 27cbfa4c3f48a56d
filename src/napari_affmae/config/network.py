"""The shape of the network."""

from pydantic import Field, model_validator

from napari_affmae.config.base import FourInts, Settings


class ModelConfig(Settings):
    """Shape of an AFFMAE network (paper section 3; presets in `model.presets`)."""

    in_channels: int = Field(1, ge=1, title="Channels", description="Channels of the input image.")
    patch_size: int = Field(8, ge=2, title="Patch size", description="Side of a patch, pixels.")
    channels: FourInts = Field(title="Widths", description="Channels of the four encoder stages.")
    blocks: FourInts = Field(title="Depths", description="Attention blocks of each stage.")
    heads: FourInts = Field(title="Heads", description="Attention heads of each stage.")
    mlp_ratio: float = Field(2.0, gt=0, title="MLP ratio", description="Hidden over block width.")
    neighbourhood: int = Field(
        64, ge=1, title="Neighbourhood", description="Tokens that one token attends to."
    )
    cluster_size: int = Field(8, ge=1, title="Cluster size", description="Tokens in a cluster.")
    merge_ratio: float = Field(
        0.4, gt=0, le=1, title="Merging ratio", description="Share of tokens kept after a stage."
    )
    drop_path: float = Field(0.1, ge=0, lt=1, title="Drop path", description="Rate at the end.")
    decoder_width: int = Field(384, ge=4, title="Decoder width", description="Decoder channels.")
    decoder_heads: int = Field(6, ge=1, title="Decoder heads", description="Decoder heads.")
    decoder_hidden: int = Field(768, ge=1, title="Decoder hidden", description="FFN channels.")
    decoder_points: int = Field(
        4, ge=1, title="Sampling points", description="Locations a decoder head samples."
    )
    decoder_dropout: float = Field(0.1, ge=0, lt=1, title="Dropout", description="In the decoder.")

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> "ModelConfig":
        widths = (*self.channels, self.decoder_width)
        for width, heads in zip(widths, (*self.heads, self.decoder_heads), strict=True):
            if width % heads:
                raise ValueError(f"width {width} cannot be split over {heads} heads")
        if self.patch_size & (self.patch_size - 1):
            raise ValueError(f"patch_size must be a power of two, got {self.patch_size}")
        if self.decoder_width % 4:
            raise ValueError(f"decoder_width must divide by 4, got {self.decoder_width}")
        return self
