"""The layer of the objects that were found last."""

import napari
import numpy as np
from napari.layers import Labels

from napari_affmae.widgets.layers.view import camera_of
from napari_affmae.widgets.segment.job import CanvasReady, ObjectsFound
from napari_affmae.widgets.segment.objects_table import ObjectsTable


class ObjectsLayer:
    """Numbered objects as a layer, and their table, whose rows bring them into view.

    Parameters
    ----------
    viewer : napari.Viewer
        Where the layer goes.
    table : ObjectsTable
        Shows their measures.
    """

    def __init__(self, viewer: "napari.viewer.Viewer", table: ObjectsTable) -> None:
        self._viewer, self._table = viewer, table
        self._layer: Labels | None = None
        self._origin = (0, 0, 0)
        self._corrected = False
        table.chosen.connect(self._go_to)

    def forget(self) -> None:
        """Begin another result: layers of earlier ones are the user's."""
        self._layer = None
        self._table.show_table({})

    def show(self, ready: CanvasReady, found: ObjectsFound) -> None:
        """Show objects of a segmentation, instead of those that were found in it before.

        Those that the user has corrected stay.
        """
        if self._layer in self._viewer.layers and not self._corrected:
            self._viewer.layers.remove(self._layer)
        self._origin, self._corrected = ready.origin, False
        self._layer = self._viewer.add_labels(
            found.objects,
            name=f"{ready.name}: objects",
            features={"index": found.table["label"], **found.table},
            **ready.geometry,
        )
        self._layer.events.paint.connect(self._note_correction)
        self._table.show_table(found.table)

    def _note_correction(self) -> None:
        self._corrected = True

    def _go_to(self, row: int) -> None:
        """Bring an object into view, and make its number the one that is painted with."""
        layer, table = self._layer, self._table.table
        if layer is None or layer not in self._viewer.layers:
            return
        layer.selected_label = int(table["label"][row])
        plane, *place = (
            float(table[axis][row]) - first
            for axis, first in zip(("plane", "row", "column"), self._origin, strict=True)
        )
        lead = layer.data.shape[:-2]
        indices = np.unravel_index(round(plane), lead) if lead else ()
        world = layer.data_to_world((*indices, *place))
        first_axis = self._viewer.dims.ndim - len(world)
        for axis, position in enumerate(world[: len(lead)], first_axis):
            self._viewer.dims.set_point(axis, position)
        camera_of(self._viewer).center = tuple(world[-3:])
