"""Layer-wise decay of the learning rate."""

from napari_affmae.model import AFFSegmenter


def layer_scales(module: AFFSegmenter, decay: float) -> dict[str, float]:
    """Give each parameter of the encoder its factor of the learning rate.

    With n attention blocks, the last has ``decay``, the one before it
    ``decay**2``, the first and the patch embedding ``decay**n``. Merging and
    the norm of a stage's features go with the block before them. Decoder and
    heads are not listed: their factor is 1.

    Parameters
    ----------
    module : AFFSegmenter
        The network.
    decay : float
        Factor from block to block.

    Returns
    -------
    dict[str, float]
        Factor by parameter name.
    """
    encoder = module.encoder
    depth = sum(module.config.blocks)
    scales = {
        f"encoder.patch_embedding.{name}": decay**depth
        for name, _ in encoder.patch_embedding.named_parameters()
    }
    number = 0
    for index, (stage, blocks) in enumerate(zip(encoder.stages, module.config.blocks, strict=True)):
        first = number
        number += blocks
        for name, _ in stage.named_parameters():
            part, _, rest = name.partition(".")
            block = first + int(rest.split(".")[0]) if part == "blocks" else number - 1
            scales[f"encoder.stages.{index}.{name}"] = decay ** (depth - block)
    return scales
