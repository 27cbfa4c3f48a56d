"""Where a plane is labelled, by the squares of a grid."""

import numpy as np
from numpy.typing import NDArray


def labelled_squares(
    labelled: NDArray[np.bool_], side: int, corner: tuple[int, int] = (0, 0)
) -> NDArray[np.bool_]:
    """Find the squares of a plane's grid that hold a labelled pixel.

    Parameters
    ----------
    labelled : ndarray, (rows, columns), bool
        Whether each pixel of the plane, or of a rectangle of it, is labelled.
    side : int
        Side of a square, pixels. The grid begins at the plane's first pixel.
    corner : (int, int)
        Row and column of the plane where `labelled` begins.

    Returns
    -------
    ndarray, (rows, columns), bool
        One element a square, from the square that holds the corner on. Squares at
        the end of `labelled` may reach beyond it.
    """
    squares = labelled
    for axis, start in enumerate(corner):
        edges = np.arange(-(start % side), labelled.shape[axis], side)
        squares = np.logical_or.reduceat(squares, edges.clip(0), axis=axis)
    return squares
