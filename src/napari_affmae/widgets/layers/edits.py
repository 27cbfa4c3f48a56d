"""Where a labels layer is edited: strokes, and what is undone and redone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Labels


@dataclass(frozen=True)
class Edit:
    """What a part of a stroke may have changed.

    Attributes
    ----------
    planes : list of int
        Numbers of planes, the last axis fastest.
    rows, columns : slice
        The rectangle that holds the part on each of them.
    """

    planes: list[int]
    rows: slice
    columns: slice


class Edits:
    """Tells of each edit of a layer through napari, in whatever order they are undone.

    What a script writes into the layer's array is not noticed.

    Parameters
    ----------
    layer : napari.layers.Labels
        Where the user paints.
    tell : Callable[[Sequence[Edit]], None]
        Called after each edit.
    """

    def __init__(self, layer: Labels, tell: Callable[[Sequence[Edit]], None]) -> None:
        self._layer, self._tell = layer, tell
        self._undone = self._undone_now()
        layer.events.paint.connect(self._take_stroke)
        # Undoing has no event of its own; it draws the layer.
        layer.events.set_data.connect(self._look_for_undone)

    def stop(self) -> None:
        """Tell no more."""
        self._layer.events.paint.disconnect(self._take_stroke)
        self._layer.events.set_data.disconnect(self._look_for_undone)

    def _undone_now(self) -> dict[int, Any]:
        """Return the parts of strokes that could be redone, by identity."""
        # No public way; without it labels are counted as if nothing were undone.
        history = getattr(self._layer, "_redo_history", ())
        return {id(atom): atom for item in history for atom in item}

    def _take_stroke(self, event: Any) -> None:
        self._undone = {}  # a stroke ends what could be redone
        self._report(event.value)

    def _look_for_undone(self) -> None:
        before, self._undone = self._undone, self._undone_now()
        both = before | self._undone
        changed = before.keys() ^ self._undone.keys()
        if changed:
            self._report([both[key] for key in changed])

    def _report(self, atoms: Sequence[Any]) -> None:
        shape = tuple(self._layer.data.shape)
        self._tell([_edit(atom, shape) for atom in atoms])


def _edit(atom: Any, shape: tuple[int, ...]) -> Edit:
    # napari's brushes give slices of a box, `data_setitem` indices of pixels.
    key = atom.slice_key if hasattr(atom, "slice_key") else atom[0]
    axes = [
        np.arange(*part.indices(size)) if isinstance(part, slice) else np.unique(part)
        for part, size in zip(key, shape, strict=True)
    ]
    rows, columns = (slice(int(axis[0]), int(axis[-1]) + 1) for axis in axes[-2:])
    planes = [0]
    if len(shape) > 2:
        grid = np.meshgrid(*axes[:-2], indexing="ij")
        planes = np.ravel_multi_index(grid, shape[:-2]).ravel().tolist()
    return Edit(planes, rows, columns)
