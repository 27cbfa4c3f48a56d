"""How unsure a prediction is, pixel by pixel."""

import numpy as np
from numpy.typing import NDArray


def uncertainty(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the entropy of each pixel's classes over the largest possible one.

    Parameters
    ----------
    probabilities : ndarray
        (classes, rows, columns) float32, at least two classes; sum to 1.

    Returns
    -------
    ndarray
        (rows, columns) float32, from 0 (one class is certain) to 1 (all are equally likely).

    Raises
    ------
    ValueError
        If there are fewer than two classes.
    """
    classes = len(probabilities)
    if classes < 2:
        raise ValueError(f"uncertainty is between at least 2 classes, got {classes}")
    total = np.zeros(probabilities.shape[1:], np.float32)
    for part in probabilities:
        # 0 log 0 is 0; the smallest positive number replaces 0 to avoid NaN.
        total -= part * np.log(np.maximum(part, np.finfo(np.float32).tiny))
    result: NDArray[np.float32] = np.clip(total / np.float32(np.log(classes)), 0, 1)
    return result
