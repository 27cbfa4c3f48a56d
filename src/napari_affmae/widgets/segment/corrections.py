"""Corrections of objects by the user: accepted, deleted, joined, cut."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_affmae.engine.events import Event
from napari_affmae.widgets.layers.edits import Edit, EditLog
from napari_affmae.widgets.running.background_job import BackgroundJob
from napari_affmae.widgets.segment.job import ObjectsFound, ResultReady
from napari_affmae.widgets.segment.remeasuring import (
    ACCEPTED,
    CORRECTED,
    DELETED,
    STATE,
    Box,
    Row,
    corrected_table,
    measure_one,
)

_SETTLE_MILLISECONDS = 200
_MOST_REGIONS = 16
Places = tuple[NDArray[np.intp], ...]


@dataclass(frozen=True)
class _Measured(Event):
    rows: Mapping[int, Row | None]


class Corrections(QObject):
    """Changes objects in a layer, and keeps their table true, whoever changes them.

    Each change is one step of napari's own undo. Numbers stay: one that is deleted leaves a gap,
    pieces that are cut off get new ones.

    Parameters
    ----------
    parent : QObject
        Corrections end when this is destroyed.
    """

    changed = Signal(object)
    """The objects and their measures after a change: `ObjectsFound`."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._layer: Labels | None = None
        self._states: dict[int, str] = {}
        self._regions: list[Box] = []
        self._touched: set[int] = set()
        self._job = BackgroundJob(self)
        self._job.happened.connect(self._take)
        self._job.ended.connect(self._measure)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MILLISECONDS)
        self._timer.timeout.connect(self._measure)

    def attach(
        self, layer: Labels, found: ObjectsFound, ready: ResultReady, *, three_d: bool
    ) -> None:
        """Correct the objects of another layer from now on.

        Parameters
        ----------
        layer : napari.layers.Labels
            Shows them; its array is changed.
        found : ObjectsFound
            The objects.
        ready : ResultReady
            The segmentation in which they were found.
        three_d : bool
            Whether they extend over several planes.
        """
        self.detach()
        self._layer, self._found, self._ready, self._three_d = layer, found, ready, three_d
        self._boxes = dict(enumerate(found.boxes, 1))
        states = found.table.get(STATE, np.full(len(found.boxes), ""))
        self._states = dict(enumerate(map(str, states), 1))
        self._classes: dict[int, str] = {}
        self._log = EditLog(layer)
        self._log.on_edit = self._take_edits

    def detach(self) -> None:
        """Correct nothing any more."""
        if self._layer is not None:
            self._log.on_edit = None
        self._layer = None
        self._touched.clear()
        self._regions.clear()
        self._timer.stop()
        self._job.stop()

    @property
    def is_busy(self) -> bool:
        """Whether something is not measured yet."""
        return self._job.is_running or self._timer.isActive()

    def count(self, state: str) -> int:
        """Count the objects of a state."""
        return sum(one == state for one in self._states.values())

    def accept(self, number: int) -> bool:
        """Accept an object, or take that back; return whether it is accepted now."""
        self._require(number)
        accepted = self._states[number] != ACCEPTED
        self._states[number] = ACCEPTED if accepted else CORRECTED
        self._emit({})
        return accepted

    def delete(self, number: int) -> None:
        """Delete an object."""
        self._require(number)
        self._set([(self._places(number), 0)])

    def join(self, line: Places) -> None:
        """Make the objects that a line touches one object, which keeps the lowest number.

        Parameters
        ----------
        line : tuple of ndarray
            Indices of the line's pixels in the layer's array.

        Raises
        ------
        ValueError
            If they are fewer than two.
        """
        numbers = np.unique(self._shown().data[line])
        numbers = numbers[numbers > 0].tolist()
        if len(numbers) < 2:
            raise ValueError("the stroke must touch two objects at least, to join them")
        kept = numbers[0]
        self._set([(self._places(number), kept) for number in numbers[1:]])

    def cut(self, line: Places) -> None:
        """Divide the object that most of a line lies on; the largest piece keeps the number.

        Parameters
        ----------
        line : tuple of ndarray
            Indices of the line's pixels in the layer's array, on one plane.

        Raises
        ------
        ValueError
            If the line does not divide it.
        """
        from napari_affmae.engine.objects.splitting import split_object

        on_line = np.bincount(self._shown().data[line])
        on_line[:1] = 0
        if not on_line.any():
            raise ValueError("the stroke must go across an object, to cut it")
        number = int(on_line.argmax())
        box = self._box(number)
        inside = self._shown().data[box] == number
        if not self._three_d:  # each plane has objects of its own
            box = (*(slice(axis[0], axis[0] + 1) for axis in line[:-2]), *box[-2:])
            inside = self._shown().data[box] == number
        drawn, plane = _within(line, box)
        pieces = split_object(inside.reshape(-1, *inside.shape[-2:]), drawn, plane)
        pieces = pieces.reshape(inside.shape)
        changes, corner = [], [part.start for part in box]
        for piece in range(2, int(pieces.max()) + 1):
            new = len(self._states) + piece - 1
            where = np.nonzero(pieces == piece)
            changes.append((tuple(w + c for w, c in zip(where, corner, strict=True)), new))
            self._classes[new] = self._class_of(number)
        self._set(changes)

    def _class_of(self, number: int) -> str:
        names = self._found.table["class"]
        if number in self._classes:
            return self._classes[number]
        return str(names[number - 1]) if number <= len(names) else ""

    def accepted(self) -> list[tuple[Box, NDArray[np.bool_], str]]:
        """Return box, shape in it, and class of each object that is accepted."""
        numbers = [number for number, state in self._states.items() if state == ACCEPTED]
        return [
            (self._box(n), np.asarray(self._shown().data[self._box(n)]) == n, self._class_of(n))
            for n in numbers
        ]

    def _shown(self) -> Labels:
        if self._layer is None:
            raise ValueError("there are no objects to correct: find some first")
        return self._layer

    def _require(self, number: int) -> None:
        if self._layer is None or self._states.get(number, DELETED) == DELETED:
            raise ValueError("no object is selected: click one first")

    def _box(self, number: int) -> Box:
        """Return a part of the array that holds an object."""
        self._look_up()
        return self._boxes[number]

    def _places(self, number: int) -> Places:
        """Return the indices of an object's pixels."""
        box = self._box(number)
        where = np.nonzero(np.asarray(self._shown().data[box]) == number)
        return tuple(w + part.start for w, part in zip(where, box, strict=True))

    def _set(self, changes: Sequence[tuple[Places, int]]) -> None:
        """Set pixels, as one step of undo."""
        layer = self._shown()
        with layer.block_history():
            for places, value in changes:
                layer.data_setitem(places, value, refresh=False)
        layer.refresh(extent=False)

    def _take_edits(self, edits: Sequence[Edit]) -> None:
        """Note where a change was, by whatever it was made; what it touched is found out later."""
        shape = self._shown().data.shape
        self._regions += [_region(edit, shape) for edit in edits]
        if len(self._regions) > _MOST_REGIONS:  # a brush makes one for each move
            self._regions = [reduce(_hull, self._regions)]
        self._timer.start()

    def _look_up(self) -> None:
        """Find the objects that changes may have touched, and where they are now."""
        regions, self._regions = self._regions, []
        for region in regions:
            here = np.unique(self._shown().data[region])
            here = here[here > 0].tolist()
            for number in here:
                known = self._boxes.get(number)
                self._boxes[number] = region if known is None else _hull(known, region)
            self._touched.update(here)
            self._touched.update(n for n, box in self._boxes.items() if _overlap(box, region))

    def _measure(self) -> None:
        if self._layer is None or self._job.is_running:
            return
        self._look_up()
        if not self._touched:
            return
        numbers, self._touched = sorted(self._touched), set()
        # A number that a script or brush has skipped is that of an object without pixels.
        for number in range(len(self._states) + 1, numbers[-1] + 1):
            self._states[number] = DELETED
        data, ready, three_d = self._shown().data, self._ready, self._three_d
        boxes = {number: self._box(number) for number in numbers}
        self._job.run(lambda: _measured(data, boxes, ready, three_d=three_d))

    def _take(self, event: Event) -> None:
        if not isinstance(event, _Measured):
            return
        for number, row in event.rows.items():
            size = self._size(number)
            if row is None:
                self._states[number] = DELETED
            elif size != int(row["size_px"]):
                self._states[number] = CORRECTED
        self._emit(event.rows)

    def _size(self, number: int) -> int:
        """Return the number of pixels that an object had before."""
        sizes = self._found.table["size_px"]
        return int(sizes[number - 1]) if number <= len(sizes) else 0

    def _emit(self, rows: Mapping[int, Row | None]) -> None:
        states = [self._states[number] for number in range(1, len(self._states) + 1)]
        table = corrected_table(self._found.table, rows, self._classes, states)
        nowhere = tuple(slice(0, 0) for _ in self._found.objects.shape)
        boxes = [self._boxes.get(number, nowhere) for number in range(1, len(states) + 1)]
        self._found = ObjectsFound(self._found.objects, table, boxes)
        self.changed.emit(self._found)


def line_through(points: Sequence[Sequence[float]], shape: tuple[int, ...]) -> Places:
    """Return the indices of the pixels of a line through points, on the plane of the first.

    Parameters
    ----------
    points : sequence of sequence of float
        Places in an array.
    shape : tuple of int
        Its shape; what lies beyond is left out.
    """
    from skimage.draw import line as draw_line

    places = np.round(np.asarray(points, float)).astype(int)
    if len(places) == 1:
        places = np.repeat(places, 2, axis=0)
    drawn = [draw_line(*first[-2:], *last[-2:]) for first, last in pairwise(places)]
    rows, columns = (np.concatenate(axis) for axis in zip(*drawn, strict=True))
    inside = (rows >= 0) & (rows < shape[-2]) & (columns >= 0) & (columns < shape[-1])
    lead = [
        np.full(int(inside.sum()), np.clip(index, 0, size - 1))
        for index, size in zip(places[0][:-2], shape[:-2], strict=True)
    ]
    return (*lead, rows[inside], columns[inside])


def _within(line: Places, box: Box) -> tuple[NDArray[np.bool_], int]:
    """Draw a line into the last two axes of a box, and return the number of its plane there."""
    size = [part.stop - part.start for part in box]
    drawn = np.zeros(size[-2:], bool)
    rows, columns = (axis - part.start for axis, part in zip(line[-2:], box[-2:], strict=True))
    inside = (rows >= 0) & (rows < size[-2]) & (columns >= 0) & (columns < size[-1])
    drawn[rows[inside], columns[inside]] = True
    lead = tuple(int(axis[0]) - part.start for axis, part in zip(line, box[:-2], strict=False))
    return drawn, int(np.ravel_multi_index(lead, size[:-2])) if lead else 0


def _measured(
    data: NDArray[np.int32], boxes: Mapping[int, Box], ready: ResultReady, *, three_d: bool
) -> Generator[Event, None, None]:
    """Measure objects; in a worker's thread."""
    rows: dict[int, Row | None] = {}
    for number, box in boxes.items():
        rows[number] = measure_one(data, number, box, ready, three_d=three_d)
        yield Event()
    yield _Measured(rows)


def _region(edit: Edit, shape: tuple[int, ...]) -> Box:
    """Return the box that holds an edit."""
    lead = np.unravel_index(np.asarray(edit.planes), shape[:-2]) if shape[:-2] else ()
    spans = (slice(int(axis.min()), int(axis.max()) + 1) for axis in lead)
    return (*spans, edit.rows, edit.columns)


def _hull(one: Box, other: Box) -> Box:
    return tuple(
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )


def _overlap(one: Box, other: Box) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))
