"""Drawing layers anew while their arrays are written."""

import time

import napari
from napari.layers import Layer
from qtpy.QtCore import QObject, QTimer

from napari_affmae.widgets.layers.view import plane_of

_MILLISECONDS = 300
# Of the window's time, drawing takes at most one part in this.
_SHARE = 5


class Refresher(QObject):
    """Draws layers a few times a second, where a plane was written that is shown.

    Large planes take long to draw: the pauses grow with that.
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

    def connect_while_alive(self, layers: list[Layer]) -> None:
        """Look after these layers, all of one shape, from now on."""
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
        except ValueError:  # the volume, or planes along other axes
            return True
        return plane in self._planes
