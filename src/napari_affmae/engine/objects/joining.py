"""Joins the pieces that were found in blocks to objects, and sums over them.

Of all pixels nothing is needed here but the sides of blocks. Memory holds some tens of bytes for
each piece, whatever the volume's size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from napari_affmae.engine.objects.pieces import (
    Pairs,
    contacts,
    joined,
    linked,
    numbered,
    pairs_of,
)
from napari_affmae.engine.objects.records import PieceRecords
from napari_affmae.engine.objects.sums import (
    Rows,
    add,
    base_columns,
    clear,
    empty_sums,
    more_columns,
)
from napari_affmae.engine.results.object_plan import ObjectPlan
from napari_affmae.engine.results.tables import Table

_PLANES = -3
_ROWS_AT_ONCE = 2**16


@dataclass(frozen=True)
class Joined:
    """The objects of a volume.

    Attributes
    ----------
    numbers : ndarray, (pieces,), uint32
        The object of each piece of all blocks; 0 where it was dropped.
    starts : ndarray, (blocks + 1,), int64
        Where the pieces of each block begin among all.
    first : ndarray, (objects,), int64
        The first pixel of each object, counted along all axes.
    """

    numbers: NDArray[np.uint32]
    starts: NDArray[np.int64]
    first: NDArray[np.int64]

    def of(self, block: int) -> NDArray[np.uint32]:
        """Return the objects of a block's pieces."""
        return self.numbers[self.starts[block] : self.starts[block + 1]]


def join(records: PieceRecords, plan: ObjectPlan) -> Joined:
    """Join pieces across the sides of blocks.

    Parameters
    ----------
    records : PieceRecords
        Complete records of all blocks.
    plan : ObjectPlan
        The blocks.

    Raises
    ------
    UnreadableFileError
        If a record is lost.
    """
    counts: list[int] = []
    known: dict[str, list[NDArray[np.int64]]] = {"class": [], "first": [], "size": []}
    for number in range(len(plan.blocks(0))):
        rows = records.rows(number)
        counts.append(len(rows))
        for name, parts in known.items():
            parts.append(rows[name].copy())
    starts = np.cumsum([0, *counts], dtype=np.int64)
    kinds, first, sizes = map(np.concatenate, known.values())
    sides = _Sides(records, plan, starts, kinds)
    linking = plan.goes_on and not plan.settings.solid
    across = (-2, -1) if linking else (_PLANES, -2, -1)
    objects = joined(len(sizes), sides.pairs(across)[0])
    if linking:
        flat = np.zeros(int(objects.max(initial=-1)) + 1, np.int64)
        np.add.at(flat, objects, sizes)
        pairs, pixels = sides.pairs((_PLANES,), inside=True)
        objects = linked(flat, objects[pairs].astype(np.int64), pixels, plan.settings.link_iou)[
            objects
        ]
    numbers, begins = numbered(objects, sizes, first, plan.settings.min_size)
    return Joined(numbers, starts, begins)


def tables(
    records: PieceRecords, plan: ObjectPlan, found: Joined, scratch: Path
) -> Iterator[Table]:
    """Measure the objects; yields parts of a table.

    Parameters
    ----------
    records : PieceRecords
        Records of all blocks.
    plan : ObjectPlan
        The blocks.
    found : Joined
        The objects.
    scratch : Path
        A file for sums over them, which may take more than memory.

    Yields
    ------
    Table
        An object a row, by ascending number; at least one part, which may be empty.
    """
    count = len(found.first)
    sums: Rows = empty_sums(0)
    if count:
        sums = open_memmap(scratch, mode="w+", dtype=sums.dtype, shape=(count,))
        for part in _parts(count):
            clear(sums[part])
            first = np.unravel_index(found.first[part], plan.extent)
            sums["reference"][part] = np.stack(first[1:], axis=1)
    for block in range(len(found.starts) - 1):
        numbers = found.of(block)
        kept = np.flatnonzero(numbers)
        add(sums, numbers[kept].astype(np.int64) - 1, records.rows(block)[kept])
    for part in _parts(count):
        yield _table(sums[part], np.arange(part.start, part.stop) + 1, plan)


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, max(count, 1), _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, count))


def _table(rows: Rows, numbers: NDArray[np.int64], plan: ObjectPlan) -> Table:
    flat = not plan.goes_on
    known = [step for step in plan.spacing[-2 if flat else -3 :] if step is not None]
    spacing = known if len(known) == 3 - flat else None
    table = base_columns(rows, numbers, spacing, "nm")
    if len(plan.shape) > 3:
        table["time"] = rows["time"]
    return {**table, **more_columns(rows, spacing, "nm", flat=flat, grey=plan.grey is not None)}


class _Sides:
    """The sides at which blocks meet."""

    def __init__(
        self,
        records: PieceRecords,
        plan: ObjectPlan,
        starts: NDArray[np.int64],
        kinds: NDArray[np.int64],
    ) -> None:
        self._records = records
        self._plan = plan
        self._starts = starts
        self._kinds = kinds

    def pairs(
        self, axes: tuple[int, ...], *, inside: bool = False
    ) -> tuple[Pairs, NDArray[np.int64]]:
        """List pieces of one class that touch each other where blocks meet along some axes.

        Pieces are counted over all blocks; with `inside`, those are among them that lie on each
        other inside a block.
        """
        parts: list[Pairs] = []
        pixels = [np.zeros(0, np.int64)]
        for block in range(len(self._starts) - 1):
            if inside:
                lying, count = self._records.overlaps(block)
                parts.append(lying - 1 + self._starts[block])
                pixels.append(count)
            for axis, behind in self._plan.neighbours(block):
                if axis in axes:
                    near = self._records.side(behind, (axis, False))
                    found, count = contacts(self._records.side(block, (axis, True)), near)
                    found = found - 1 + self._starts[[block, behind]][:, None]
                    same = self._kinds[found[0]] == self._kinds[found[1]]
                    parts.append(found[:, same])
                    pixels.append(count[same])
        return pairs_of(parts), np.concatenate(pixels)
