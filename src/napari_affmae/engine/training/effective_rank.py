"""How many directions the features of a network spread over."""

import torch
from torch import Tensor, nn
from vit import ViTMAE

from napari_affmae.model import AFFMAE
from napari_affmae.model.mae import canvas_of
from napari_affmae.model.patches import pad_to_patches, patchify
from napari_affmae.model.positions import canvas_ids, positions_of


def effective_rank(features: Tensor) -> float:
    """Compute the exponential of the entropy of the singular values.

    1 where all features lie on one line, the number of channels where they
    spread evenly over all directions (Roy and Vetterli, 2007), of features
    whose mean is subtracted.

    Parameters
    ----------
    features : Tensor
        (N, C), of any floating type.

    Returns
    -------
    float
        From 1 to min(N, C); 0 where all features are equal.
    """
    centred = features.double() - features.double().mean(0)
    values = torch.linalg.svdvals(centred)
    total = values.sum()
    # What is left of equal features is rounding.
    if total <= 1e-12 * max(1.0, features.abs().max().item()) * len(features):
        return 0.0
    shares = values / total
    return torch.special.entr(shares).sum().exp().item()


@torch.no_grad()
def stage_ranks(module: nn.Module, images: Tensor) -> list[float]:
    """Compute the effective rank of each encoder stage's features, nothing hidden.

    Parameters
    ----------
    module : AFFMAE or ViTMAE
        The pretrained network, in evaluation mode.
    images : Tensor
        (B, C, H, W), normalised, on the network's device.

    Returns
    -------
    list of float
        Four stages of AFFMAE, from the image upwards; the ViT's encoder is one.
    """
    assert isinstance(module, AFFMAE | ViTMAE)
    size = module.config.patch_size
    padded = pad_to_patches(images, size)
    canvas = canvas_of(padded, size)
    if isinstance(module, AFFMAE):
        stages = [level.x for level in module.encoder(padded, canvas)]
    else:
        pos = positions_of(canvas_ids(len(padded), canvas, padded.device), canvas)
        stages = [module.encoder(patchify(padded, size), pos)]
    return [effective_rank(stage.flatten(0, 1).float().cpu()) for stage in stages]
