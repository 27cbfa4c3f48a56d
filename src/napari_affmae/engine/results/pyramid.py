"""Smaller copies of labels and probabilities, which viewers show from afar."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import block_reduce


def most_frequent(
    labels: NDArray[Any], factors: Sequence[int], values: Sequence[int]
) -> NDArray[Any]:
    """Take the most frequent value of each group of pixels.

    Of values that are equally frequent the largest is taken, so that thin structures
    do not vanish in what is around them.

    Parameters
    ----------
    labels : ndarray
        Values among `values`.
    factors : sequence of int
        Pixels of a group along each axis; the last group may be cut.
    values : sequence of int
        All values that there are.

    Returns
    -------
    ndarray, as `labels`
        An element a group.
    """
    factors = tuple(factors)
    groups = tuple(-(-size // factor) for size, factor in zip(labels.shape, factors, strict=True))
    best = np.zeros(groups, np.intp)
    result = np.zeros(groups, labels.dtype)
    for value in sorted(values):
        # What is beyond the border counts as False.
        count = block_reduce(labels == value, factors, np.sum)
        more = count >= np.maximum(best, 1)
        result[more] = value
        best[more] = count[more]
    return result


def average(values: NDArray[Any], factors: Sequence[int]) -> NDArray[Any]:
    """Take the mean of each group of pixels.

    Parameters
    ----------
    values : ndarray
        Numbers.
    factors : sequence of int
        Pixels of a group along each axis; the last group may be cut.

    Returns
    -------
    ndarray, as `values`
        An element a group; integers are rounded.
    """
    factors = tuple(factors)
    sums = block_reduce(values.astype(np.float32), factors, np.sum)
    means = sums / block_reduce(np.ones(values.shape, np.float32), factors, np.sum)
    if values.dtype.kind in "ui":
        means = np.rint(means)
    result: NDArray[Any] = means.astype(values.dtype)
    return result
