"""Smaller copies of labels and probabilities, which viewers show from afar."""

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray


def most_frequent(labels: NDArray[Any], factors: Sequence[int]) -> NDArray[Any]:
    """Take the most frequent value of each group of pixels.

    Of values that are equally frequent the largest is taken, so that thin structures
    do not vanish in what is around them.

    Parameters
    ----------
    labels : ndarray
        Classes, or numbers of objects.
    factors : sequence of int
        Pixels of a group along each axis; the last group may be cut.

    Returns
    -------
    ndarray, as `labels`
        An element a group.
    """
    factors = tuple(factors)
    groups = tuple(-(-size // factor) for size, factor in zip(labels.shape, factors, strict=True))
    parts = [np.ascontiguousarray(part) for part in _slices(labels, factors)]
    counts = [np.ones(part.shape, np.min_scalar_type(len(parts))) for part in parts]
    for first, second in combinations(range(len(parts)), 2):
        shapes = zip(parts[first].shape, parts[second].shape, strict=True)
        both = tuple(slice(min(pair)) for pair in shapes)
        same = parts[first][both] == parts[second][both]
        counts[first][both] += same
        counts[second][both] += same
    best = np.zeros(groups, counts[0].dtype)
    result = np.zeros(groups, labels.dtype)
    for part, count in zip(parts, counts, strict=True):
        here = tuple(map(slice, part.shape))
        more = (count > best[here]) | ((count == best[here]) & (part > result[here]))
        np.copyto(result[here], part, where=more)
        np.copyto(best[here], count, where=more)
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
    for part in _slices(values, factors):
        total[tuple(map(slice, part.shape))] += part
    return total


def _slices(values: NDArray[Any], factors: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    """Yield the first pixels of all groups, the second ones, and so on."""
    for place in product(*map(range, factors)):
        yield values[tuple(slice(n, None, f) for n, f in zip(place, factors, strict=True))]
