"""Results that are looked at while they are computed, as arrays with the axes of their image."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.data.sources.layout import plane_number
from napari_affmae.engine.results.plan import Shape
from napari_affmae.engine.results.volume import Volume


class GrowingArray:
    """A level of a volume's labels, or of a class's probabilities, for viewers.

    Where a block of the level is missing, what there is of the level below it is shown;
    where there is nothing yet, 0. Each look reads what is complete by then.

    Parameters
    ----------
    volume : Volume
        The result. What others have completed of it is known after `Ledger.reload`.
    level : int
        Level of the pyramid.
    lead : tuple of int
        The image's axes before rows and columns.
    number : int, optional
        Which class's probabilities; labels without it.

    Attributes
    ----------
    shape : tuple of int
        Axes of the image; those of planes too are smaller at levels that halve planes.
    dtype : numpy.dtype
        Type of the elements.
    ndim : int
        Number of axes.
    """

    def __init__(self, volume: Volume, level: int, lead: Shape, number: int | None = None) -> None:
        plan = volume.plan
        self._volume, self._level, self._number = volume, level, number
        *planes, height, width = plan.blocks(level).shape
        # The result's own axes may be merged, or be those of a single plane.
        self._same = lead == plan.planes
        self._lead = (
            tuple(planes[plan.order.index(axis)] for axis in range(len(lead)))
            if (self._same)
            else lead
        )
        self.shape = (*self._lead, height, width)
        self.ndim = len(self.shape)
        self.dtype: np.dtype[Any] = plan.label_type
        if number is not None:
            self.dtype = np.dtype(plan.probabilities)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a part, by integers and slices."""
        parts = _expanded(key, self.shape)
        chosen = [
            range(part, part + 1) if isinstance(part, int) else range(*part.indices(size))
            for part, size in zip(parts, self.shape, strict=True)
        ]
        *lead, rows, columns = chosen
        out = np.zeros([len(part) for part in chosen], self.dtype)
        for place in product(*(enumerate(part) for part in lead)):
            position = self._position([index for _, index in place])
            out[tuple(number for number, _ in place)] = self._plane(position, rows, columns)
        dropped = (0 if isinstance(part, int) else slice(None) for part in parts)
        return np.asarray(out[tuple(dropped)])

    def _position(self, indices: Sequence[int]) -> Shape:
        """Convert a position on the image's axes to one on the result's."""
        plan = self._volume.plan
        if self._same:
            return tuple(indices[axis] for axis in plan.order)
        return plan.position(plane_number(indices, self._lead))

    def _plane(self, position: Shape, rows: range, columns: range) -> NDArray[Any]:
        """Read from the smallest box that holds what is wanted."""
        if not rows or not columns:
            return np.zeros((len(rows), len(columns)), self.dtype)
        box = [slice(min(part), max(part) + 1) for part in (rows, columns)]
        whole = _read(self._volume, self._level, position, box, self._number, self.dtype)
        down, across = (
            np.subtract(part, span.start) for part, span in zip((rows, columns), box, strict=True)
        )
        found: NDArray[Any] = whole[np.ix_(down, across)]
        return found


def levels_for_viewer(volume: Volume, lead: Shape, number: int | None = None) -> list[GrowingArray]:
    """Return the levels of a result that have all of an image's planes, the largest first.

    Parameters
    ----------
    volume, lead, number
        See `GrowingArray`.
    """
    plan = volume.plan
    same = lead == plan.planes
    return [
        GrowingArray(volume, level, lead, number)
        for level, step in enumerate(plan.steps)
        if same or math.prod(lead) == 1 or set(step[:-2]) == {1}
    ]


def _read(
    volume: Volume,
    level: int,
    position: Shape,
    box: Sequence[slice],
    number: int | None,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """Read a part of a plane at a level, block by block."""
    plan = volume.plan
    blocks, first = plan.blocks(level), plan.first(level)
    out = np.zeros([part.stop - part.start for part in box], dtype)
    lead = tuple(at // side for at, side in zip(position, blocks.block, strict=False))
    spans = [
        range(part.start // side, -(-part.stop // side))
        for part, side in zip(box, blocks.block[-2:], strict=True)
    ]
    for place in product(*spans):
        part = [
            slice(max(wanted.start, at * side), min(wanted.stop, (at + 1) * side))
            for wanted, at, side in zip(box, place, blocks.block[-2:], strict=True)
        ]
        inside = tuple(
            slice(p.start - wanted.start, p.stop - wanted.start)
            for p, wanted in zip(part, box, strict=True)
        )
        if volume.ledger.has(first + int(np.ravel_multi_index((*lead, *place), blocks.counts))):
            out[inside] = volume.read(level, (*position, *part), number)
        elif level:
            steps = zip(plan.steps[level], plan.steps[level - 1], strict=True)
            *planes, down, across = (step // below for step, below in steps)
            shape = plan.blocks(level - 1).shape[-2:]
            finer = [
                slice(p.start * factor, min(size, p.stop * factor))
                for p, factor, size in zip(part, (down, across), shape, strict=True)
            ]
            below = tuple(at * factor for at, factor in zip(position, planes, strict=True))
            found = _read(volume, level - 1, below, finer, number, dtype)
            out[inside] = found[::down, ::across]
    return out


def _expanded(key: Any, shape: Shape) -> list[int | slice]:
    """Give every axis an integer from 0 on, or a slice.

    Raises
    ------
    IndexError
        If there is something else, or a place is not there.
    """
    parts = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    parts += [slice(None)] * (len(shape) - len(parts))
    found: list[int | slice] = []
    for part, size in zip(parts, shape, strict=True):
        if isinstance(part, slice):
            found.append(part)
            continue
        number = int(part)
        if not -size <= number < size:
            raise IndexError(f"there are {size} places on the axis, asked for {number}")
        found.append(number % size)
    return found
