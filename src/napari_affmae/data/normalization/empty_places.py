"""Places of one value: borders of aligned sections, bars, and what is saturated.

They say nothing about the contrast of the tissue, but where they are large they are most of an
image's values.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

# Noise fills a tile of this side with several values, and JPEG's smooth blocks are smaller.
_TILE = 16
# Noise does not keep the lowest or highest value over so many pixels of a row or column.
_RUN = 32
# So many values must remain, or this part of them, if an image has few.
_ENOUGH = 4096
_ENOUGH_SHARE = 0.05


def in_empty_tiles(pixels: NDArray[Any], *, beside: bool = False) -> NDArray[np.bool_]:
    """Find tiles that hold one value, or none but NaN.

    Parameters
    ----------
    pixels : ndarray, (rows, columns)
        A part of one channel of a plane.
    beside : bool
        Whether the tiles around them count too. These hold the edge of a border, or
        the writing in a bar.

    Returns
    -------
    ndarray, (rows, columns), bool
        Where such tiles are.
    """
    rows, columns = (_starts(size) for size in pixels.shape)
    # These pass over NaN where there is another value.
    lowest = np.fmin.reduceat(np.fmin.reduceat(pixels, rows, axis=0), columns, axis=1)
    highest = np.fmax.reduceat(np.fmax.reduceat(pixels, rows, axis=0), columns, axis=1)
    empty: NDArray[np.bool_] = ~(lowest < highest)
    if beside:
        empty = binary_dilation(empty, np.ones((3, 3)))
    heights, widths = (
        np.diff([*starts, size]) for starts, size in zip((rows, columns), pixels.shape, strict=True)
    )
    return empty.repeat(heights, axis=0).repeat(widths, axis=1)


def telling_values(windows: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Choose the values that tell the contrast of a channel.

    Parameters
    ----------
    windows : sequence of ndarray, (rows, columns)
        Samples of the channel.

    Returns
    -------
    ndarray, (values,), bool
        Which values of all windows, one after the other, count: those that are finite,
        neither in empty tiles nor beside them, and not the lowest or highest of all if
        that fills such tiles or long runs, as of a narrow border. Where too few would
        remain, as of a mask, all outside of empty tiles count, and then all finite values.
    """
    values = np.concatenate([window.ravel() for window in windows])
    finite: NDArray[np.bool_] = np.isfinite(values)
    if not finite.any():
        return finite
    empty = _empty_of(windows, beside=False)
    telling = finite & ~_empty_of(windows, beside=True) if empty.any() else finite
    for end in (values[finite].min(), values[finite].max()):
        is_end = values == end
        if (is_end & empty).any() or any(_has_run(window == end) for window in windows):
            telling = telling & ~is_end
    enough = min(_ENOUGH, _ENOUGH_SHARE * finite.sum())
    choices = (telling, finite & ~empty)
    return next((chosen for chosen in choices if chosen.sum() >= enough), finite)


def _empty_of(windows: Sequence[NDArray[Any]], *, beside: bool) -> NDArray[np.bool_]:
    return np.concatenate([in_empty_tiles(window, beside=beside).ravel() for window in windows])


def _has_run(mask: NDArray[np.bool_]) -> bool:
    """Whether a row or a column is True over a long stretch."""
    return any(
        np.logical_and.reduceat(mask, np.arange(0, size - _RUN + 1, _RUN), axis=axis).any()
        for axis, size in enumerate(mask.shape)
        if size >= _RUN
    )


def _starts(size: int) -> NDArray[np.int64]:
    """Return where tiles begin; the last one is larger rather than another one small."""
    return np.arange(0, max(1, size - _TILE + 1), _TILE)
