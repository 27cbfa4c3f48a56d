"""How many directions the features of a network spread over."""

import torch
from torch import Tensor

from napari_affmae.model import AFFMAE
from napari_affmae.model.mae import canvas_of
from napari_affmae.model.tokens.patches import pad_to_patches


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
    # On the CPU: not every device has eigenvalues, or numbers of 64 bits.
    centred = features.cpu().double()
    largest = max(1.0, centred.abs().max().item())
    centred = centred - centred.mean(0)
    values = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0).sqrt()
    total = values.sum()
    # What is left of equal features is rounding.
    if total <= 1e-12 * largest * len(features):
        return 0.0
    rank: float = torch.special.entr(values / total).sum().exp().item()
    return rank


@torch.no_grad()
def stage_ranks(module: AFFMAE, images: Tensor) -> list[float]:
    """Compute the effective rank of each encoder stage's features, nothing hidden.

    Parameters
    ----------
    module : AFFMAE
        The network, in evaluation mode.
    images : Tensor
        (B, C, H, W), normalised, on the network's device.

    Returns
    -------
    list of float
        One for each stage, from the image upwards.
    """
    padded = pad_to_patches(images, module.config.patch_size)
    levels = module.encoder(padded, canvas_of(padded, module.config.patch_size))
    return [effective_rank(level.x.flatten(0, 1).float()) for level in levels]
