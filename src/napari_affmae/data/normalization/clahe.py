"""Contrast-limited adaptive histogram equalisation that does not see the crop.

scikit-image lays its grid of blocks at the array's corner and stretches values
to the array's own range. Here a region on the plane's grid is equalised, with a
block of context on each side and beside a strip of known content; by the two
ends of that strip the stretching is undone. So a pixel's value depends on the
plane alone, not on the crop or tile that it is read in.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.exposure import equalize_adapthist

_BLOCK = 64
_CLIP_LIMIT = 0.01


@dataclass(frozen=True)
class _Span:
    """One axis of an area; `read` is padded to the grid, then by whole blocks."""

    read: slice
    to_grid: tuple[int, int]
    blocks: tuple[int, int]
    inner: slice


@dataclass(frozen=True)
class Area:
    """What to read, and how to pad it where the plane ends, to equalise a part."""

    row_span: _Span
    column_span: _Span

    @property
    def rows(self) -> slice:
        """Rows to read: the part's, and context on the plane's grid."""
        return self.row_span.read

    @property
    def columns(self) -> slice:
        """Columns to read: the part's, and context on the plane's grid."""
        return self.column_span.read


def with_context(rows: slice, columns: slice, shape: tuple[int, int]) -> Area:
    """Plan what to read for equalising `rows` and `columns` of a plane of `shape`."""
    return Area(_span(rows, shape[0]), _span(columns, shape[1]))


def _span(part: slice, size: int) -> _Span:
    start, stop, _ = part.indices(size)
    first = (start // _BLOCK - 1) * _BLOCK
    last = (-(-stop // _BLOCK) + 1) * _BLOCK
    grid_end = -(-size // _BLOCK) * _BLOCK
    read = slice(max(0, first), min(size, last))
    return _Span(
        read,
        (0, min(last, grid_end) - read.stop),
        (max(0, -first), max(0, last - grid_end)),
        slice(start - first, stop - first),
    )


def equalize(values: NDArray[np.float32], area: Area) -> NDArray[np.float32]:
    """Equalise the local contrast.

    Parameters
    ----------
    values : ndarray, (rows, columns), float32
        What `area` says to read, between 0 and 1.
    area : Area
        By `with_context`.

    Returns
    -------
    ndarray, (rows, columns) of the part, float32
        0 to 1.
    """
    spans = (area.row_span, area.column_span)
    # In two steps: mirrored from what every part near this end reads too.
    region = np.pad(values, [span.to_grid for span in spans], mode="symmetric")
    region = np.pad(region, [span.blocks for span in spans], mode="symmetric")
    ramp = np.linspace(0, 1, _BLOCK, dtype=np.float32)
    strip = np.tile(ramp, (3 * _BLOCK, region.shape[1] // _BLOCK))
    joined = np.concatenate([region, strip])
    equalized = equalize_adapthist(joined, kernel_size=_BLOCK, clip_limit=_CLIP_LIMIT)
    # The middle of the strip's three rows of blocks depends on the strip alone.
    known = equalized[-3 * _BLOCK // 2]
    black, white = known.min(), known.max()
    inner = equalized[area.row_span.inner, area.column_span.inner]
    # Clipped, because a training crop's values are: a little of the image may lie beyond the strip.
    stretched: NDArray[np.float64] = np.clip((inner - black) / (white - black), 0, 1)
    return stretched.astype(np.float32)
