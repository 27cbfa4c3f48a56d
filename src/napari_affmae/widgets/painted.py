"""Where a labels layer is painted, and with what: kept up to date stroke by stroke."""

from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_affmae.data.source import ImageSource
from napari_affmae.engine.events import Event
from napari_affmae.widgets.errand import Errand
from napari_affmae.widgets.layer_sources import LayerLabels, planes_touched

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
    """The squares of a labels layer that hold labels, and how many pixels of each value.

    What the layer holds already is looked through once, in the background; after
    that only the squares that a stroke touched are counted again.

    Parameters
    ----------
    layer : napari.layers.Labels
        Where the user paints.
    parent : QObject
        Owner.
    """

    stroked = Signal()
    """Something was painted, undone, or replaced."""
    counted = Signal()
    """`counts` are new."""
    failed = Signal(object)
    """The labels cannot be read: the exception."""

    def __init__(self, layer: Labels, parent: QObject) -> None:
        super().__init__(parent)
        self.layer = layer
        self.counts: Counter[int] = Counter()
        self._squares: dict[Square, Counter[int]] = {}
        self._touched: set[Square] = set()
        self._pending: set[Square] = set()
        self._counting: set[Square] = set()
        self._announced: set[Square] = set()
        self._scan, self._count = Errand(self), Errand(self)
        self._scan.happened.connect(self._take_scanned)
        self._count.happened.connect(self._take_counted)
        self._count.ended.connect(self._count_pending)
        for errand in (self._scan, self._count):
            errand.failed.connect(self.failed)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MILLISECONDS)
        self._timer.timeout.connect(self._count_pending)
        layer.events.paint.connect(self._note_strokes)
        # Undoing has no event of its own; it can only change what was painted.
        layer.events.set_data.connect(self._note_refresh)
        layer.events.data.connect(self._look_through)
        parent.destroyed.connect(self.forget)
        self._look_through()

    def forget(self) -> None:
        """Follow the layer no longer."""
        events = self.layer.events
        events.paint.disconnect(self._note_strokes)
        events.set_data.disconnect(self._note_refresh)
        events.data.disconnect(self._look_through)
        self._timer.stop()
        self._scan.stop()
        self._count.stop()

    @property
    def is_looking(self) -> bool:
        """Whether labels that the layer held before are still being looked for."""
        return self._scan.is_running

    def squares(self) -> list[Square]:
        """Return the squares that hold labels, or may, in order."""
        return sorted(self._squares.keys() | self.pending())

    def pending(self) -> frozenset[Square]:
        """Return the squares that are not counted yet."""
        return frozenset(self._pending | self._counting)

    def recount(self) -> Counter[int]:
        """Count all that is known to be painted; in a worker, for it reads the labels."""
        total: Counter[int] = Counter(self.counts)
        for square in self.pending():
            total.subtract(self._squares.get(square, {}))
            total.update(count_values(_read(self.source, square)))
        return total

    def _look_through(self) -> None:
        """Start anew with another array."""
        self.source = LayerLabels(self.layer)
        self._squares.clear()
        for squares in (self._touched, self._pending, self._counting, self._announced):
            squares.clear()
        self.counts.clear()
        self._count.stop()
        source = self.source
        self._scan.run(lambda: _scan(source))
        self.counted.emit()
        self.stroked.emit()

    def _note_strokes(self, event: Any) -> None:
        for atom in event.value:
            planes, rows, columns = planes_touched(atom, self.source.layout.shape)
            ranges = (
                range(part.start // _SIDE, -(-part.stop // _SIDE)) for part in (rows, columns)
            )
            squares = {Square(*place) for place in product(planes, *ranges)}
            self._touched |= squares
            self._announced |= squares
        self._note_refresh()
        self.stroked.emit()

    def _note_refresh(self) -> None:
        self._pending |= self._touched
        if self._pending:
            self._timer.start()

    def _count_pending(self) -> None:
        if not self._pending or self._count.is_running or self._timer.isActive():
            return
        self._counting, self._pending = self._pending, set()
        source, squares = self.source, frozenset(self._counting)
        self._count.run(lambda: _count(source, squares))

    def _take_scanned(self, event: _Counted) -> None:
        # What was painted meanwhile is counted by itself.
        fresh = {
            square: counts for square, counts in event.counts.items() if square not in self._touched
        }
        self._take(fresh)

    def _take_counted(self, event: _Counted) -> None:
        changed = {
            square
            for square, counts in event.counts.items()
            if counts != self._squares.get(square, Counter())
        }
        self._counting -= event.counts.keys()
        self._take(event.counts)
        if changed - self._announced:
            self.stroked.emit()  # undone or redone
        self._announced -= event.counts.keys()

    def _take(self, counts: Mapping[Square, Counter[int]]) -> None:
        for square, values in counts.items():
            self.counts.subtract(self._squares.pop(square, {}))
            self.counts.update(values)
            if values:
                self._squares[square] = values
        if counts:
            self.counts += Counter()  # drops what is no longer there
            self.counted.emit()


def _scan(source: ImageSource) -> Generator[Event, None, None]:
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
