"""Network sizes."""

from collections.abc import Mapping

from napari_affmae.config import ModelConfig

PRESETS: Mapping[str, ModelConfig] = {
    # For CPUs and quick trials: 1.7 M parameters.
    "nano": ModelConfig(
        channels=(48, 96, 128, 192),
        blocks=(1, 1, 3, 1),
        heads=(3, 6, 8, 12),
        decoder_width=128,
        decoder_heads=4,
        decoder_hidden=256,
    ),
    # The paper's two sizes: 22.9 M and 65.6 M parameters.
    "small": ModelConfig(channels=(96, 192, 384, 512), blocks=(2, 3, 9, 2), heads=(3, 6, 12, 16)),
    "base": ModelConfig(
        channels=(128, 256, 512, 768), blocks=(3, 4, 16, 2), heads=(4, 8, 16, 24), mlp_ratio=3.0
    ),
}


def preset(name: str, in_channels: int = 1) -> ModelConfig:
    """Look up a network size.

    Parameters
    ----------
    name : str
        ``"nano"``, ``"small"`` or ``"base"``.
    in_channels : int
        Channels of the images.

    Raises
    ------
    ValueError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name].model_copy(update={"in_channels": in_channels})
