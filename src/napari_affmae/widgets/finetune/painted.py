"""A record of where a labels layer is painted and with which values, updated at each stroke."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_affmae.data.sources.source import ImageSource
from napari_affmae.engine.events import Event
from napari_affmae.widgets.layers.edits import Edit
from napari_affmae.widgets.layers.layer_sources import LayerLabels
from napari_affmae.widgets.running.background_job import BackgroundJob

_SIDE = 256
_SETTLE_MILLISECONDS = 150


@dataclass(frozen=True, order=True)
class Square:
    """A square of a fixed grid on one plane; `row` and `column` count squares."""

    plane: int
    row: int
    column: int

    @property
    def rows(self) -> slice:
        """Rows of pixels; the last square of a plane may reach beyond it."""
        return slice(self.row * _SIDE, (self.row + 1) * _SIDE)

    @property
    def columns(self) -> slice:
        """Columns of pixels."""
        return slice(self.column * _SIDE, (self.column + 1) * _SIDE)


@dataclass(frozen=True)
class _Counted(Event):
    counts: Mapping[Square, Counter[int]]


class Painted(QObject):
    """Records the squares of a labels layer that hold labels, and their pixels of each value.

    The layer is scanned once, in the background; after that, only the squares that are
    painted, undone or redone are counted again. What a script writes into the array is
    found by another scan.

    Parameters
    ----------
    layer : napari.layers.Labels
        The layer that the user paints on.
    parent : QObject
        The record ends when this is destroyed.
    """

    stroked = Signal()
    """Labels were painted, undone, replaced, or found by a scan."""
    counted = Signal()
    """`counts` has changed."""
    touched = Signal(object, object)
    """Squares were edited, or all of them replaced: the layer, and the squares."""
    failed = Signal(object)
    """The labels cannot be read: the exception."""

    def __init__(self, layer: Labels, parent: QObject) -> None:
        super().__init__(parent)
        self.layer = layer
        self.counts: Counter[int] = Counter()
        self._squares: dict[Square, Counter[int]] = {}
        self._touched: set[Square] = set()
        self._has_found = False
        self._is_edited = False
        self._pending: set[Square] = set()
        self._counting: set[Square] = set()
        self._scan = BackgroundJob(self, loads_torch=False)
        self._count = BackgroundJob(self, loads_torch=False)
        self._scan.happened.connect(self._take_scanned)
        self._scan.ended.connect(self._end_scan)
        self._count.happened.connect(self._take_counted)
        self._count.ended.connect(self._count_pending)
        for job in (self._scan, self._count):
            job.failed.connect(self.failed)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MILLISECONDS)
        self._timer.timeout.connect(self._count_pending)
        self.source = self._open()
        layer.events.data.connect(self._look_through)
        parent.destroyed.connect(self.forget)
        self._start_scan()

    def _open(self) -> LayerLabels:
        source = LayerLabels(self.layer)
        source.edits.on_edit = self._take_edits
        return source

    def forget(self) -> None:
        """Stop recording; the `source` of a run still counts revisions."""
        self.source.edits.on_edit = None
        self.layer.events.data.disconnect(self._look_through)
        self._timer.stop()
        self._scan.stop()
        self._count.stop()

    @property
    def is_looking(self) -> bool:
        """Whether the layer is being scanned."""
        return self._scan.is_running

    @property
    def covered(self) -> float:
        """The part of the planes with labels that is covered by labels."""
        planes = {square.plane for square in self._squares}
        pixels = len(planes) * self.source.height * self.source.width
        return self.counts.total() / max(1, pixels)

    def squares(self) -> list[Square]:
        """Return the squares that hold labels or may hold some, in order."""
        return sorted(self._squares.keys() | self.pending())

    def pending(self) -> frozenset[Square]:
        """Return the squares that are not counted yet."""
        return frozenset(self._pending | self._counting)

    def recount(self) -> Callable[[], Counter[int]]:
        """Return a function that counts all that is painted now.

        Call it in a worker, for it reads labels. If fewer than two values are found, it reads
        all labels: a script may have written others.
        """
        total, squares, source = Counter(self.counts), self.pending(), self.source
        for square in squares:
            total.subtract(self._squares.get(square, {}))

        def count() -> Counter[int]:
            for square in squares:
                total.update(count_values(_read(source, square)))
            return total if len(+total) > 1 else _count_all(source)

        return count

    def erase(self, value: int) -> None:
        """Set all known pixels of a value to 0, as one edit that can be undone."""
        pending, counts = self.pending(), {}
        with self.layer.block_history():
            for square in self.squares():
                if square in pending or value in self._squares[square]:
                    block = _read(self.source, square)
                    self._set(square.plane, square.rows, square.columns, block == value, 0)
                    counts[square] = count_values(np.where(block == value, 0, block))
        self.layer.refresh()
        self._take(counts)

    def fill(self, plane: int, rows: slice, columns: slice, values: NDArray[Any]) -> None:
        """Set the unpainted pixels of a rectangle to values, as one edit that can be undone."""
        where = (self.source.read(plane, rows, columns)[0] == 0) & (values != 0)
        with self.layer.block_history():
            self._set(plane, rows, columns, where, values[where])
        self.layer.refresh()

    def take_out(self, plane: int, rows: slice, columns: slice, values: NDArray[Any]) -> None:
        """Set the pixels of a rectangle that have these values to 0, as one edit."""
        where = (self.source.read(plane, rows, columns)[0] == values) & (values != 0)
        with self.layer.block_history():
            self._set(plane, rows, columns, where, 0)
        self.layer.refresh()

    def _set(
        self,
        plane: int,
        rows: slice,
        columns: slice,
        where: NDArray[np.bool_],
        values: NDArray[Any] | int,
    ) -> None:
        down, across = np.nonzero(where)
        lead = self.layer.data.shape[:-2]
        indices = (
            *(
                np.full(down.size, index)
                for index in (np.unravel_index(plane, lead) if lead else ())
            ),
            down + rows.start,
            across + columns.start,
        )
        self.layer.data_setitem(indices, values, refresh=False)

    def _look_through(self) -> None:
        """Start again with the array that has replaced the former one."""
        self.source.edits.on_edit = None
        self.source = self._open()
        former = self.squares()
        self._squares.clear()
        for squares in (self._touched, self._pending, self._counting):
            squares.clear()
        self.counts.clear()
        self._count.stop()
        self._start_scan()
        if self._is_edited:
            self.touched.emit(self.layer, former)
        self.counted.emit()
        self.stroked.emit()

    def look_again(self) -> None:
        """Scan again for what a script has written, unless a scan is running."""
        if not self.is_looking:
            self._touched = set(self.pending())
            self._start_scan()

    def _start_scan(self) -> None:
        source, self._has_found = self.source, False
        self._scan.run(lambda: _scan(source))

    def _end_scan(self) -> None:
        # First what takes earlier complaints back, then what may complain of the values.
        if self._has_found:
            self.stroked.emit()
        self.counted.emit()

    def _take_edits(self, edits: Sequence[Edit]) -> None:
        squares = {
            Square(*place)
            for edit in edits
            for place in product(edit.planes, _numbers(edit.rows), _numbers(edit.columns))
        }
        self._touched |= squares
        self._pending |= squares
        self._timer.start()
        self._is_edited = True
        self.touched.emit(self.layer, squares)
        self.stroked.emit()

    def _count_pending(self) -> None:
        if not self._pending or self._count.is_running or self._timer.isActive():
            return
        self._counting, self._pending = self._pending, set()
        source, squares = self.source, frozenset(self._counting)
        self._count.run(lambda: _count(source, squares))

    def _take_scanned(self, event: _Counted) -> None:
        # Squares that were painted meanwhile are counted separately.
        fresh = {
            square: counts
            for square, counts in event.counts.items()
            if square not in self._touched and counts != self._squares.get(square)
        }
        self._has_found |= bool(fresh)
        self._take(fresh)
        if self._is_edited and fresh:
            self.touched.emit(self.layer, fresh.keys())

    def _take_counted(self, event: _Counted) -> None:
        self._counting -= event.counts.keys()
        # Squares that were painted meanwhile are counted once more.
        fresh = {
            square: counts for square, counts in event.counts.items() if square not in self._pending
        }
        self._take(fresh)

    def _take(self, counts: Mapping[Square, Counter[int]]) -> None:
        for square, values in counts.items():
            self.counts.subtract(self._squares.pop(square, {}))
            self.counts.update(values)
            if values:
                self._squares[square] = values
        if counts:
            self.counts += Counter()  # removes values without pixels
            self.counted.emit()


def _numbers(part: slice) -> range:
    """Return the numbers of the squares that overlap a part of an axis."""
    return range(part.start // _SIDE, -(-part.stop // _SIDE))


def _scan(source: ImageSource) -> Generator[_Counted, None, None]:
    for plane in range(source.n_planes):
        for row in range(-(-source.height // _SIDE)):
            band = source.read(plane, Square(plane, row, 0).rows)[0]
            squares = [Square(plane, row, i) for i in range(-(-source.width // _SIDE))]
            counts = (
                {square: count_values(band[:, square.columns]) for square in squares}
                if band.any()
                else {}
            )
            yield _Counted({square: values for square, values in counts.items() if values})


def _count_all(source: ImageSource) -> Counter[int]:
    squares = (counts for event in _scan(source) for counts in event.counts.values())
    return sum(squares, Counter())


def _count(source: ImageSource, squares: Iterable[Square]) -> Generator[Event, None, None]:
    for square in squares:
        yield _Counted({square: count_values(_read(source, square))})


def _read(source: ImageSource, square: Square) -> NDArray[Any]:
    block: NDArray[Any] = source.read(square.plane, square.rows, square.columns)[0]
    return block


def count_values(block: NDArray[Any]) -> Counter[int]:
    """Count the pixels of each value but 0."""
    if not block.any():
        return Counter()
    if block.dtype == np.uint8:
        pixels = np.bincount(block.ravel())
        values = np.flatnonzero(pixels)
        pixels = pixels[values]
    else:
        values, pixels = np.unique(block, return_counts=True)
    counts = Counter(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
    del counts[0]
    return counts
