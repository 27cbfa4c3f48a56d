"""Losses of pretraining and segmentation, in float32 whatever the precision around them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from affmae_kernels import dice_focal
from napari_affmae.config import IGNORE_INDEX


def reconstruction_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean squared error over hidden patches.

    Parameters
    ----------
    predictions, targets : Tensor
        (B, n_masked, p * p * C), floating point.

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    with torch.autocast(predictions.device.type, enabled=False):
        return F.mse_loss(predictions.float(), targets.float())


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    class_weights: Tensor | None = None,
    gamma: float = 2.0,
) -> Tensor:
    """Compute Dice plus focal loss over the labelled pixels.

    Dice is taken for each image and each class but the first (the background),
    with smoothing 1, and averaged. The focal loss is the sum over labelled
    pixels, weighted by class, divided by their number. Pixels that are
    `IGNORE_INDEX` enter neither; without any labelled pixel the loss and its
    gradient are zero.

    Parameters
    ----------
    logits : Tensor
        (B, classes, H, W), at least two classes.
    target : Tensor
        (B, H, W) int64, class indices or `IGNORE_INDEX`.
    class_weights : Tensor, optional
        (classes,), factors of the focal loss.
    gamma : float
        Focusing exponent; 0 is cross-entropy.

    Returns
    -------
    Tensor
        Scalar, float32.

    Raises
    ------
    ValueError
        If shapes do not fit each other.
    """
    _check_shapes(logits, target, class_weights)
    with torch.autocast(logits.device.type, enabled=False):
        return dice_focal(logits, target, class_weights, gamma, IGNORE_INDEX)


def _check_shapes(logits: Tensor, target: Tensor, class_weights: Tensor | None) -> None:
    batch, classes, height, width = logits.shape
    if classes < 2:
        raise ValueError(f"segmentation needs logits of at least 2 classes, got {classes}")
    if target.shape != (batch, height, width):
        raise ValueError(
            f"target must be (B, H, W) = {(batch, height, width)} like the logits, "
            f"got {tuple(target.shape)}"
        )
    if class_weights is not None and class_weights.shape != (classes,):
        raise ValueError(
            f"class_weights must hold one number for each of {classes} classes, "
            f"got shape {tuple(class_weights.shape)}"
        )
