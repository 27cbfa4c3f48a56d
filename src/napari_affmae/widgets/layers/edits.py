"""Which parts of a labels layer were edited, and since when."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from napari.layers import Labels

from napari_affmae.widgets.layers.napari_private import edited_indices, undone_edits

Rectangle = tuple[slice, slice]
# A plane's log has no more rectangles than this: older ones are merged.
_MOST = 16


@dataclass(frozen=True)
class Edit:
    """What a part of a stroke may have changed.

    Attributes
    ----------
    planes : sequence of int
        Numbers of planes, the last axis fastest.
    rows, columns : slice
        The rectangle that holds the part on each of them.
    """

    planes: Sequence[int]
    rows: slice
    columns: slice


@dataclass
class _PlaneLog:
    """The revision of a plane, and the rectangle of each change since a revision."""

    revision: int
    since: int
    changes: list[tuple[int, Rectangle]] = field(default_factory=list)

    def add(self, rectangle: Rectangle) -> None:
        self.revision += 1
        self.changes.append((self.revision, rectangle))
        if len(self.changes) > _MOST:
            (_, first), (revision, second), *rest = self.changes
            self.changes = [(revision, _hull([first, second])), *rest]

    def forget(self) -> None:
        self.revision += 1
        self.since = self.revision
        self.changes.clear()


class EditLog:
    """Counts the edits of each plane of a labels layer, and remembers where they were.

    Edits through napari are noticed, in whatever order they are undone; what a script
    writes into the layer's array is not. The methods can be called from any thread.

    Parameters
    ----------
    layer : napari.layers.Labels
        Where the user paints; its array has one shape from now on.
    """

    def __init__(self, layer: Labels) -> None:
        self.on_edit: Callable[[Sequence[Edit]], None] | None = None
        """Called in the window's thread after each edit."""
        self._layer = layer
        self._shape = tuple(int(size) for size in layer.data.shape)
        self._lock = threading.Lock()
        self._replaced = 0
        self._planes: dict[int, _PlaneLog] = {}
        self._undone = undone_edits(layer)
        layer.events.paint.connect(self._take_stroke)
        # Napari has no event for undo, but it draws the layer then.
        layer.events.set_data.connect(self._look_for_undone)
        layer.events.data.connect(self._take_replaced)

    def revision(self, plane: int) -> int:
        """Count the changes that may have touched a plane."""
        with self._lock:
            log = self._planes.get(plane)
            return self._replaced if log is None else log.revision

    def changed_since(self, plane: int, revision: int) -> Rectangle | None:
        """Return what may have changed on a plane since it had a revision.

        Parameters
        ----------
        plane : int
            Number of the plane.
        revision : int
            What `revision` returned then.

        Returns
        -------
        (slice, slice) or None
            Rows and columns that hold every change; the whole plane where the changes are
            not known, for instance after the layer's array was replaced. None if
            nothing has changed.
        """
        with self._lock:
            log = self._planes.get(plane) or _PlaneLog(self._replaced, self._replaced)
            if revision == log.revision:
                return None
            if not log.since <= revision < log.revision:
                return slice(0, self._shape[-2]), slice(0, self._shape[-1])
            return _hull(rectangle for number, rectangle in log.changes if number > revision)

    def _take_stroke(self, event: Any) -> None:
        self._undone = {}  # a stroke ends what could be redone
        self._note(event.value)

    def _look_for_undone(self) -> None:
        before, self._undone = self._undone, undone_edits(self._layer)
        both = before | self._undone
        changed = before.keys() ^ self._undone.keys()
        if changed:
            self._note([both[key] for key in changed])

    def _take_replaced(self) -> None:
        self._undone = undone_edits(self._layer)
        with self._lock:
            self._replaced += 1
            for log in self._planes.values():
                log.forget()

    def _note(self, atoms: Sequence[Any]) -> None:
        if tuple(self._layer.data.shape) != self._shape:
            return  # the edit is of another array, which has replaced this one
        edits = [_edit(atom, self._shape) for atom in atoms]
        touched: dict[int, list[Rectangle]] = defaultdict(list)
        for edit in edits:
            for plane in edit.planes:
                touched[plane].append((edit.rows, edit.columns))
        with self._lock:
            for plane, rectangles in touched.items():
                new = _PlaneLog(self._replaced, self._replaced)
                self._planes.setdefault(plane, new).add(_hull(rectangles))
        if self.on_edit is not None:
            self.on_edit(edits)


def _edit(atom: Any, shape: tuple[int, ...]) -> Edit:
    indices = edited_indices(atom, len(shape)) or (slice(None),) * len(shape)
    axes = [
        np.arange(*part.indices(size)) if isinstance(part, slice) else np.unique(part)
        for part, size in zip(indices, shape, strict=True)
    ]
    rows, columns = (slice(int(axis[0]), int(axis[-1]) + 1) for axis in axes[-2:])
    planes = [0]
    if len(shape) > 2:
        grid = np.meshgrid(*axes[:-2], indexing="ij")
        planes = np.ravel_multi_index(grid, shape[:-2]).ravel().tolist()
    return Edit(planes, rows, columns)


def _hull(rectangles: Iterable[Rectangle]) -> Rectangle:
    """Return the smallest rectangle that holds all of them."""
    rows, columns = zip(*rectangles, strict=True)
    return _span(rows), _span(columns)


def _span(parts: Sequence[slice]) -> slice:
    return slice(min(part.start for part in parts), max(part.stop for part in parts))
