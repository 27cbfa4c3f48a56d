"""Divides one object along a line that is drawn across it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt
from skimage.measure import label
from skimage.segmentation import watershed

# Crumbs at a crooked line, of less than this part of the largest piece, are no pieces.
_CRUMB = 0.02


def split_object(
    inside: NDArray[np.bool_], line: NDArray[np.bool_], plane: int = 0
) -> NDArray[np.int32]:
    """Divide an object along a line on one of its planes.

    On that plane the pieces at both sides of the line are told apart; a watershed of the
    distance to the border carries the division through the other planes.

    Parameters
    ----------
    inside : ndarray, (H, W) or (P, H, W), bool
        The object, in a box that holds it.
    line : ndarray, (H, W), bool
        Pixels of the line, which may go on diagonally: pieces hang together by sides alone.
    plane : int
        The plane of the line.

    Returns
    -------
    ndarray, as `inside`, int32
        0 outside the object; pieces are numbered from 1, the largest first.

    Raises
    ------
    ValueError
        If shapes do not fit, or the line does not divide the object.
    """
    if inside.ndim not in (2, 3) or line.shape != inside.shape[-2:]:
        raise ValueError(
            f"the object must be (H, W) or (P, H, W) and the line (H, W), got shapes "
            f"{inside.shape} and {line.shape}"
        )
    volume = inside.reshape(-1, *line.shape)
    markers = np.zeros(volume.shape, np.int32)
    markers[plane] = _sides(volume[plane], line)
    if markers.max(initial=0) < 2:
        raise ValueError(
            "the stroke does not divide the object: begin it outside, and draw across to the "
            "other side"
        )
    pieces = watershed(-distance_transform_edt(volume), markers, mask=volume)
    # What does not hang together with the plane of the line stays with the first piece.
    pieces[volume & (pieces == 0)] = 1
    return _largest_first(pieces).reshape(inside.shape)


def _sides(inside: NDArray[np.bool_], line: NDArray[np.bool_]) -> NDArray[np.integer[Any]]:
    """Give numbers to the pieces of a plane (H, W) that lie along a line."""
    pieces: NDArray[np.integer[Any]] = label(inside & ~line, connectivity=1)
    beside = np.unique(pieces[binary_dilation(line)])
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    least = _CRUMB * sizes[beside].max(initial=0)
    kept = beside[(beside > 0) & (sizes[beside] >= least)]
    numbers = np.zeros(len(sizes), np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    sides: NDArray[np.integer[Any]] = numbers[pieces]
    return sides


def _largest_first(pieces: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    sizes = np.bincount(pieces.ravel())[1:]
    numbers = np.zeros(len(sizes) + 1, np.int32)
    numbers[np.argsort(-sizes, kind="stable") + 1] = np.arange(1, len(sizes) + 1)
    ordered: NDArray[np.int32] = numbers[pieces]
    return ordered
