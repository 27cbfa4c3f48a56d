"""The layer of the objects that were found last."""

from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, Signal

from napari_affmae.engine.results.tables import Table
from napari_affmae.widgets.layers.label_layers import RESULT
from napari_affmae.widgets.layers.layer_sources import OWN, layer_geometry, shifted
from napari_affmae.widgets.layers.overlays import hide_replaced
from napari_affmae.widgets.layers.own_layers import OwnLayers
from napari_affmae.widgets.layers.view import LayerView, look_at, pixel_shape, view_of
from napari_affmae.widgets.segment.correction_bar import CorrectionBar
from napari_affmae.widgets.segment.corrections import Corrections
from napari_affmae.widgets.segment.handing_over import hand_over
from napari_affmae.widgets.segment.job import ObjectsFound, ResultReady
from napari_affmae.widgets.segment.remeasuring import ACCEPTED, STATE
from napari_affmae.widgets.segment.stored_objects import ObjectsStored

if TYPE_CHECKING:
    import pandas as pd

_MARK, _ACCEPTED_MARK, _MARK_WIDTH = "yellow", "lime", 3
_AXES = ("plane", "row", "column")
_STORED = (
    "These objects lie on the disk, as they are too large for memory, and cannot be corrected "
    "here: segment a part of the image to correct its objects."
)
# What the row of the background holds, by the kind of a column.
_NOTHING: dict[str, Any] = {"f": np.nan, "U": ""}


class ObjectsLayer(QObject):
    """Numbered objects as a layer, with their measures as its features.

    An object that is clicked, or whose row is selected in napari's table of features, is
    outlined and comes into view.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer that the layer is added to.
    parent : QObject
        Takes it along when it is destroyed: jobs stop at that signal, which Qt has to send.
    """

    changed = Signal(object)
    """Objects were corrected, and are measured: `ObjectsFound`."""

    def __init__(self, viewer: "napari.viewer.Viewer", parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layer: Labels | None = None
        self._found: ObjectsFound | None = None
        self._ready: ResultReady | None = None
        self._marked = OwnLayers(viewer)
        self._origin = (0, 0, 0)
        self._corrected = False
        self.corrections = Corrections(self)
        self.corrections.changed.connect(self._take_corrected)
        self.bar = CorrectionBar(viewer, self.corrections, self._hand_over)

    def forget(self) -> None:
        """Keep the layer that is shown: the next objects are those of another result."""
        self._layer = None
        self.corrections.detach()
        self.bar.release()

    def show(self, ready: ResultReady, found: ObjectsFound, *, three_d: bool) -> None:
        """Show objects of a segmentation, and remove the layer of those found in it before.

        A layer that the user has corrected stays.

        Parameters
        ----------
        ready : ResultReady
            The segmentation.
        found : ObjectsFound
            The objects.
        three_d : bool
            Whether they extend over several planes.
        """
        layer = self._add(ready, found, [found.objects], found.table)
        self.corrections.attach(layer, found, ready, three_d=three_d)
        self.bar.attach(layer)

    def show_stored(self, ready: ResultReady, stored: ObjectsStored) -> None:
        """Show objects that lie on the disk, and remove the layer of those shown before.

        Parameters
        ----------
        ready : ResultReady
            The segmentation.
        stored : ObjectsStored
            The objects.
        """
        layer = self._add(ready, None, stored.levels, stored.table)
        layer.editable = False
        self.corrections.detach()
        self.bar.refuse(_STORED)

    def _add(
        self, ready: ResultReady, found: ObjectsFound | None, levels: list[Any], table: Table
    ) -> Labels:
        """Add a layer, and remove the one before."""
        # What was corrected a moment ago is not measured yet.
        is_corrected = self._corrected or self.corrections.is_busy
        if self._layer in self._viewer.layers and not is_corrected:
            self._viewer.layers.remove(self._layer)
        self._origin, self._corrected, self._found = ready.origin, False, found
        self._ready = ready
        self._marked.show([])
        layer = self._layer = self._viewer.add_labels(
            levels if len(levels) > 1 else levels[0],
            multiscale=len(levels) > 1,
            cache=found is not None,
            name=f"{ready.name}: objects",
            features=_features(table),
            metadata=RESULT,
            **ready.geometry,
        )
        hide_replaced(self._viewer, None, [layer])
        # First the mark: napari may move the camera when it gets another layer.
        layer.events.selected_label.connect(self._show_selected)
        layer.mouse_drag_callbacks.append(self._pick)
        return layer

    def open_table(self) -> None:
        """Open napari's table of features, with those of the objects."""
        if self._layer in self._viewer.layers:
            self._viewer.layers.selection.active = self._layer
        dock, _ = self._viewer.window.add_plugin_dock_widget("napari", "Features table widget")
        dock.show()
        dock.raise_()

    def _hand_over(self) -> None:
        """Give what is accepted to the dock that fine-tunes."""
        if self._ready is not None:
            hand_over(self._viewer, self._ready, self.corrections)

    def _pick(self, layer: Labels, event: Any) -> None:
        """Select the object that is clicked, as napari's own tool for picking does."""
        # While strokes are drawn, the mouse does not move the view.
        if layer.mode == "pan_zoom" and layer.mouse_pan:
            value = layer.get_value(event.position, world=True)
            if value:
                layer.selected_label = value

    def _show_selected(self) -> None:
        self._mark()
        self._bring_into_view()

    def _mark(self) -> None:
        """Outline the selected object."""
        layer, found = self._layer, self._found
        if layer is None or found is None or layer not in self._viewer.layers:
            return
        number = layer.selected_label
        if not 0 < number <= len(found.boxes):
            self._marked.show([])
            return
        box = found.boxes[number - 1]
        corner = [part.start for part in box]
        selected = set(self._viewer.layers.selection)
        states = found.table.get(STATE)
        is_accepted = states is not None and states[number - 1] == ACCEPTED
        color = _ACCEPTED_MARK if is_accepted else _MARK
        outline = Labels(
            (layer.data[box] == number).astype(np.uint8),
            name="selected object",
            colormap=DirectLabelColormap(color_dict={None: (0, 0, 0, 0), 1: color}),
            metadata=OWN,
            **shifted(layer_geometry(layer), corner),
        )
        outline.contour = _MARK_WIDTH
        self._marked.show([outline])
        self._viewer.layers.selection = selected

    def _take_corrected(self, found: ObjectsFound) -> None:
        """Show the measures of corrected objects, and outline the selected one as it is now."""
        self._corrected, self._found, layer = True, found, self._layer
        if layer is not None and layer in self._viewer.layers:
            layer.features = _features(found.table)
            self._mark()
        self.changed.emit(found)

    def _bring_into_view(self) -> None:
        """Bring the selected object into view, unless a part of it is there."""
        layer = self._layer
        if layer is None or layer not in self._viewer.layers or self._is_in_view(layer):
            return
        measures = layer.features
        found = measures[(measures["index"] == layer.selected_label) & (measures["index"] > 0)]
        if found.empty:
            return
        plane, *place = (
            float(found[axis].iloc[0]) - first
            for axis, first in zip(_AXES, self._origin, strict=True)
        )
        lead = pixel_shape(layer)[:-2]
        indices = np.unravel_index(round(plane), lead) if lead else ()
        look_at(self._viewer, layer, (*map(int, indices), *place))

    def _is_in_view(self, layer: Labels) -> bool:
        try:
            view = view_of(self._viewer, layer)
        except ValueError:  # the viewer shows the volume, or nothing of the layer
            return False
        if self._found is None:  # on the disk, of which nothing is read for this
            return self._box_is_in(view, layer)
        shown = layer.data[(*view.indices, view.rows, view.columns)]
        return bool((shown == layer.selected_label).any())

    def _box_is_in(self, view: LayerView, layer: Labels) -> bool:
        """Whether a view meets the box of the selected object."""
        found = layer.features[layer.features["index"] == layer.selected_label]
        if found.empty:
            return False
        here = (slice(view.plane, view.plane + 1), view.rows, view.columns)
        return all(
            int(found[f"{axis}_first"].iloc[0]) - first < part.stop
            and part.start <= int(found[f"{axis}_last"].iloc[0]) - first
            for axis, first, part in zip(_AXES, self._origin, here, strict=True)
        )


def _features(table: Table) -> "pd.DataFrame":
    """Return measures as a layer's features.

    The first row is that of the background: napari's table takes a row's number for the
    label, while the status bar reads the label from the column "index".
    """
    import pandas as pd  # not earlier: it takes as long as all else of a dock

    columns = {"index": table["label"], **table}
    return pd.DataFrame(
        {
            name: np.insert(column, 0, _NOTHING.get(column.dtype.kind, 0))
            for name, column in columns.items()
        }
    )
