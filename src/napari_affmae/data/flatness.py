"""Whether pixels are areas of whole numbers, as labels are and images are not."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# An image has more values.
_FEW_VALUES = 16
_MOST_VALUES = 4096
_FLAT = 0.8


def looks_like_labels(pixels: NDArray[Any]) -> bool:
    """Whether pixels are whole numbers in flat areas, as labels are and images are not.

    Parameters
    ----------
    pixels : ndarray, (rows, columns)
        A part of a plane.

    Returns
    -------
    bool
        False also for pixels of a single value, which say nothing.
    """
    if pixels.dtype.kind == "f" and not (
        np.isfinite(pixels).all() and np.array_equal(pixels, np.rint(pixels))
    ):
        return False
    values, counts = np.unique(pixels, return_counts=True)
    if not 1 < len(values) <= _MOST_VALUES:
        return False
    left, right = pixels[:, :-1], pixels[:, 1:]
    judged = np.ones(left.shape, bool)
    if len(values) > _FEW_VALUES:  # an image may have a border of one value
        common = values[counts.argmax()]
        judged = (left != common) | (right != common)
    return bool(judged.any() and (left == right)[judged].mean() >= _FLAT)
