"""Weights that keep rare classes from being overlooked."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def class_weights(
    rule: Literal["frequency", "equal"] | tuple[float, ...], pixels: NDArray[np.int64]
) -> Tensor | None:
    """Compute the focal loss's weights.

    Parameters
    ----------
    rule : "frequency", "equal" or tuple of float
        ``"frequency"``: one over the square root of a class's share of the
        labelled pixels, scaled to a mean of 1 (the full inverse would let a
        handful of pixels rule the loss); a class without pixels gets the
        largest weight of the others. A tuple is taken as it is.
    pixels : ndarray
        (classes,) labelled pixels of each class.

    Returns
    -------
    Tensor or None
        (classes,) float32; None where all weigh the same.

    Raises
    ------
    ValueError
        If weights are given for another number of classes, or are negative.
    """
    if rule == "equal":
        return None
    if rule == "frequency":
        inverse = 1 / np.sqrt(np.maximum(pixels, 1))
        inverse[pixels == 0] = inverse[pixels > 0].max()
        return torch.from_numpy(inverse / inverse.mean()).float()
    if len(rule) != len(pixels) or min(rule) < 0:
        raise ValueError(
            f"class_weights must be {len(pixels)} numbers of at least 0, one for each class, "
            f"got {rule}"
        )
    return torch.tensor(rule)
