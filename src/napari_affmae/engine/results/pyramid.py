"""Smaller copies of labels and probabilities, which viewers show from afar."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    best = np.zeros(groups, np.uint16)
    result = np.zeros(groups, labels.dtype)
    for value in sorted(values):
        count = _sums(labels == value, factors, np.dtype(np.uint16))
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
    single = np.dtype(np.float32)
    means = _sums(values, factors, single) / _sums(np.ones(values.shape, bool), factors, single)
    if values.dtype.kind in "ui":
        means = np.rint(means)
    result: NDArray[Any] = means.astype(values.dtype)
    return result


def _sums(values: NDArray[Any], factors: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Sum each group. Whole slices are added, which scikit-image's block_reduce does not do."""
    groups = tuple(-(-size // factor) for size, factor in zip(values.shape, factors, strict=True))
    total = np.zeros(groups, dtype)
    for place in product(*map(range, factors)):
        part = values[tuple(slice(n, None, f) for n, f in zip(place, factors, strict=True))]
        total[tuple(map(slice, part.shape))] += part
    return total
