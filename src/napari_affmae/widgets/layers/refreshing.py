"""Redrawing layers while their arrays are being written."""

import time

import napari
from napari.layers import Layer
from qtpy.QtCore import QObject, QTimer

from napari_affmae.widgets.layers.view import plane_of

_MILLISECONDS = 300
# Drawing takes at most one part in this of the window's time.
_SHARE = 5


class Refresher(QObject):
    """Redraws layers a few times a second if the plane that is shown was written.

    Large planes take long to draw: the pauses grow in proportion.
    """

    def __init__(self, viewer: "napari.viewer.Viewer", parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: list[Layer] = []
        self._planes: set[int] = set()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_MILLISECONDS)
        self._timer.timeout.connect(self._draw)

    def watch(self, layers: list[Layer]) -> None:
        """Redraw these layers, all of one shape, from now on."""
        self._layers = layers
        self._planes.clear()
        self._timer.setInterval(_MILLISECONDS)

    def touch(self, plane: int) -> None:
        """Note that a plane was written."""
        self._planes.add(plane)
        if not self._timer.isActive():
            self._timer.start()

    def finish(self) -> None:
        """Draw once more, thumbnails too."""
        self._timer.stop()
        for layer in self._present():
            layer.refresh(extent=False)

    def _present(self) -> list[Layer]:
        return [layer for layer in self._layers if layer in self._viewer.layers]

    def _draw(self) -> None:
        begun = time.perf_counter()
        for layer in self._present():
            if self._is_shown(layer):
                layer.refresh(extent=False, highlight=False, thumbnail=False)
        self._planes.clear()
        took = 1000 * (time.perf_counter() - begun)
        self._timer.setInterval(max(_MILLISECONDS, int(_SHARE * took)))

    def _is_shown(self, layer: Layer) -> bool:
        try:
            _, plane = plane_of(self._viewer, layer)
        except ValueError:  # the viewer shows the volume, or planes along other axes
            return True
        return plane in self._planes
