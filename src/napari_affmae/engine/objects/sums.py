"""Sums over the pixels of objects, which can be added up from their pieces.

Sizes, places, boxes and moments add up; of integer images the grey values do, too. What does
not (perimeter, convex hull, median) is measured where an object is in memory as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.engine.results.tables import Table

#: A row a piece, or an object. Places are (plane, row, column) in the whole volume; `first` is
#: the first pixel, counted along all axes, `low` and `high` the box, `products` the sums of the
#: products of axes, seen from `reference`; `grey` the sums of grey values and of their squares,
#: and `least` and `most` their range.
SUMS = np.dtype(
    [
        ("class", np.int64),
        ("time", np.int64),
        ("first", np.int64),
        ("size", np.int64),
        ("low", np.int64, 3),
        ("high", np.int64, 3),
        ("total", np.int64, 3),
        ("reference", np.int64, 3),
        ("products", np.float64, 6),
        ("grey", np.float64, 2),
        ("least", np.float64),
        ("most", np.float64),
    ]
)
_PRODUCTS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
_NONE = np.iinfo(np.int64).max
Rows = NDArray[Any]


@dataclass(frozen=True)
class Position:
    """Where a block lies.

    Attributes
    ----------
    start : (int, int, int, int)
        Its first time, plane, row and column.
    extent : (int, int, int, int)
        Size of the whole.
    """

    start: tuple[int, int, int, int]
    extent: tuple[int, int, int, int]


def sums_of(
    numbers: NDArray[np.integer[Any]],
    classes: NDArray[np.integer[Any]],
    position: Position,
    grey: NDArray[Any] | None = None,
) -> Rows:
    """Sum over the pixels of each piece.

    Parameters
    ----------
    numbers : ndarray, (P, H, W), integer
        Numbers of pieces, 0 for none.
    classes : ndarray, as `numbers`
        Class values.
    position : Position
        Where the block lies.
    grey : ndarray, as `numbers`, optional
        Grey values.

    Returns
    -------
    ndarray, (count,), SUMS
        Row 0 is piece 1.
    """
    starts, lengths = _runs(numbers)
    number = numbers.ravel()[starts]
    inside = number > 0
    index = number[inside].astype(np.int64) - 1
    rows = empty_sums(int(index.max(initial=-1)) + 1)
    if grey is not None:
        _add_greys(rows, index, inside, starts, grey)
    starts, lengths = starts[inside], lengths[inside]
    place = np.stack(np.unravel_index(starts, numbers.shape), axis=1)
    _add_runs(rows, index, place, lengths)
    rows["class"][index] = classes.ravel()[starts]
    start = np.array(position.start[1:])
    filled = rows["size"] > 0
    for name in ("low", "high", "reference"):
        rows[name][filled] += start
    rows["total"] += rows["size"][:, None] * start
    rows["time"] = position.start[0]
    begins = np.full(len(rows), _NONE)
    wide = place + start
    np.minimum.at(begins, index, np.ravel_multi_index(tuple(wide.T), position.extent[1:]))
    rows["first"] = begins
    rows["first"][filled] += position.start[0] * int(np.prod(position.extent[1:], dtype=np.int64))
    return rows


def empty_sums(count: int) -> Rows:
    """Make rows to which sums can be added."""
    rows = np.zeros(count, SUMS)
    clear(rows)
    return rows


def clear(rows: Rows) -> None:
    """Set rows of zeros to sums over no pixels."""
    rows["first"], rows["low"] = _NONE, _NONE
    rows["least"], rows["most"] = np.inf, -np.inf


def add(rows: Rows, index: NDArray[np.int64], pieces: Rows) -> None:
    """Add sums of pieces to those of the objects that they belong to.

    Parameters
    ----------
    rows : ndarray, (objects,), SUMS
        Changed in place; their references are those that products are to be seen from.
    index : ndarray, (pieces,), int64
        The row of each piece.
    pieces : ndarray, (pieces,), SUMS
        The sums.
    """
    size, shift = pieces["size"], pieces["reference"] - rows["reference"][index]
    relative = pieces["total"] - size[:, None] * pieces["reference"]
    products = pieces["products"].copy()
    for number, (a, b) in enumerate(_PRODUCTS):
        crossed = shift[:, b] * relative[:, a] + shift[:, a] * relative[:, b]
        products[:, number] += crossed + size * shift[:, a] * shift[:, b]
    for name in ("size", "total", "grey"):
        np.add.at(rows[name], index, pieces[name])
    np.add.at(rows["products"], index, products)
    for name in ("first", "low", "least"):
        np.minimum.at(rows[name], index, pieces[name])
    for name in ("high", "most"):
        np.maximum.at(rows[name], index, pieces[name])
    for name in ("class", "time"):
        rows[name][index] = pieces[name]


def base_columns(
    rows: Rows, numbers: NDArray[np.integer[Any]], spacing: Sequence[float] | None, unit: str
) -> dict[str, NDArray[Any]]:
    """Return the number, centroid, size and class of objects; see `measure_objects`."""
    centroid = rows["total"] / rows["size"][:, None]
    table: dict[str, NDArray[Any]] = {"label": numbers}
    table |= dict(zip(("plane", "row", "column"), centroid.T, strict=True))
    table["size_px"] = rows["size"]
    if spacing is not None:
        name = f"area_{unit}2" if len(spacing) == 2 else f"volume_{unit}3"
        table[name] = rows["size"] * float(np.prod(spacing))
    table["class"] = rows["class"]
    return table


def more_columns(
    rows: Rows, spacing: Sequence[float] | None, unit: str, *, flat: bool, grey: bool
) -> Table:
    """Return boxes, lengths and grey values of objects.

    Parameters
    ----------
    rows : ndarray, (count,), SUMS
        The objects.
    spacing : sequence of two or three float, or None
        Size of a pixel or voxel.
    unit : str
        Its unit.
    flat : bool
        Whether each object lies in one plane.
    grey : bool
        Whether there are grey values.

    Returns
    -------
    dict of str to ndarray, (count,)
        The first and last plane, row and column of each object; ``length_UNIT``, the longest
        axis of the ellipse or ellipsoid of the same moments, in pixels where the spacing is
        not known; for flat objects ``width_UNIT``, its shortest axis; ``mean_grey``,
        ``sd_grey``, ``least_grey`` and ``most_grey``.
    """
    table: dict[str, NDArray[Any]] = {}
    for axis, name in enumerate(("plane", "row", "column")):
        table[f"{name}_first"] = rows["low"][:, axis]
        table[f"{name}_last"] = rows["high"][:, axis]
    # Ascending. An ellipse has 4, an ellipsoid twice the root of 5 times the deviation along it.
    spread = np.sqrt(np.maximum(np.linalg.eigvalsh(_covariance(rows, spacing, flat=flat)), 0))
    known = unit if spacing is not None else "px"
    table[f"length_{known}"] = (4 if flat else 2 * np.sqrt(5)) * spread[:, -1]
    if flat:
        table[f"width_{known}"] = 4 * spread[:, 0]
    if grey:
        mean, square = (rows["grey"] / rows["size"][:, None]).T
        table["mean_grey"] = mean
        table["sd_grey"] = np.sqrt(np.maximum(square - mean**2, 0))
        table["least_grey"], table["most_grey"] = rows["least"], rows["most"]
    return table


def _covariance(rows: Rows, spacing: Sequence[float] | None, *, flat: bool) -> NDArray[np.float64]:
    """Return the covariance of the places of each object's pixels, in the unit of the spacing."""
    size = rows["size"]
    mean = rows["total"] / size[:, None] - rows["reference"]
    matrix = np.empty((len(rows), 3, 3))
    for number, (a, b) in enumerate(_PRODUCTS):
        value = rows["products"][:, number] / size - mean[:, a] * mean[:, b]
        matrix[:, a, b] = matrix[:, b, a] = value
    used = slice(1, None) if flat else slice(None)
    steps = np.ones(3) if spacing is None else np.array([1.0, *spacing][-3:])
    scaled: NDArray[np.float64] = (matrix * np.outer(steps, steps))[:, used, used]
    return scaled


def _runs(numbers: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return first pixels and lengths of the parts of rows that have one number."""
    begins = np.empty(numbers.shape, bool)
    begins[..., :1] = True
    np.not_equal(numbers[..., 1:], numbers[..., :-1], out=begins[..., 1:])
    starts = np.flatnonzero(begins)
    return starts, np.diff(starts, append=numbers.size)


def _add_runs(
    rows: Rows, index: NDArray[np.int64], place: NDArray[np.int64], lengths: NDArray[np.int64]
) -> None:
    """Add parts of rows of pixels, by closed formulas, to sums that are seen from the block."""
    last = place.copy()
    last[:, 2] += lengths - 1
    np.minimum.at(rows["low"], index, place)
    np.maximum.at(rows["high"], index, last)
    filled = np.zeros(len(rows), bool)
    filled[index] = True
    rows["reference"][filled] = rows["low"][filled]
    np.add.at(rows["size"], index, lengths)
    from_one = lengths * (lengths - 1) // 2
    ordinary = place * lengths[:, None]
    ordinary[:, 2] += from_one
    np.add.at(rows["total"], index, ordinary)
    relative = place - rows["reference"][index]
    firsts = relative * lengths[:, None]
    firsts[:, 2] += from_one
    squares = (lengths - 1) * lengths * (2 * lengths - 1) // 6
    for number, (a, b) in enumerate(_PRODUCTS):
        product = relative[:, a] * firsts[:, b]
        if a == b == 2:
            product += relative[:, 2] * from_one + squares
        rows["products"][:, number] = np.bincount(index, product, len(rows))


def _add_greys(
    rows: Rows,
    index: NDArray[np.int64],
    inside: NDArray[np.bool_],
    starts: NDArray[np.int64],
    grey: NDArray[Any],
) -> None:
    """Add grey values; plane by plane, as sums need wide numbers."""
    pixels = grey[0].size
    cuts = np.searchsorted(starts, np.arange(len(grey) + 1) * pixels)
    found = np.empty((4, len(starts)))
    for number, plane in enumerate(grey):
        part = slice(cuts[number], cuts[number + 1])
        values, places = plane.ravel().astype(np.float64), starts[part] - number * pixels
        found[0, part] = np.add.reduceat(values, places)
        found[1, part] = np.add.reduceat(values**2, places)
        found[2, part] = np.minimum.reduceat(values, places)
        found[3, part] = np.maximum.reduceat(values, places)
    found = found[:, inside]
    for number in range(2):
        rows["grey"][:, number] = np.bincount(index, found[number], len(rows))
    np.minimum.at(rows["least"], index, found[2])
    np.maximum.at(rows["most"], index, found[3])
