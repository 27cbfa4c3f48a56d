"""Controls for predictions and results: hidden or not, as outlines, how opaque."""

from typing import Any

import napari
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPushButton, QSlider, QWidget

from napari_affmae.widgets.layers.overlays import is_overlay, toggle_overlays
from napari_affmae.widgets.parts.lifetime import connect_while_alive

#: The key that hides and shows them, in the canvas. None of napari's own has it.
KEY = "H"
_OPACITY = 0.4
_OUTLINE = 2


class OverlayBar(QWidget):
    """How predictions and results are looked at: hidden or not, as outlines, how opaque.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer of the layers.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self.hide_button = QPushButton(f"Hide / show ({KEY})")
        self.hide_button.setToolTip(
            f"Hides the prediction or result, to see the image, and shows it again. The key {KEY} "
            "does so too while the mouse is over the image."
        )
        self.hide_button.clicked.connect(lambda: toggle_overlays(viewer))
        self.outlines = QCheckBox("Outlines")
        self.outlines.setToolTip("Draws only the borders of the prediction or result.")
        self.outlines.toggled.connect(self._apply)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(5, 100)
        self.opacity.setValue(round(100 * _OPACITY))
        self.opacity.setToolTip("How opaque the prediction or result is.")
        self.opacity.valueChanged.connect(self._apply)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.hide_button)
        row.addWidget(self.outlines)
        row.addWidget(QLabel("Opacity"))
        row.addWidget(self.opacity, 1)
        # The key outlives the dock, as what it hides does.
        viewer.bind_key(KEY, toggle_overlays, overwrite=True)
        connect_while_alive(self, viewer.layers.events.inserted, self._dress_inserted)

    def _apply(self) -> None:
        for layer in self._viewer.layers:
            if is_overlay(layer):
                self._dress(layer)

    def _dress_inserted(self, event: Any) -> None:
        if is_overlay(event.value):
            self._dress(event.value)

    def _dress(self, layer: Labels) -> None:
        layer.opacity = self.opacity.value() / 100
        layer.contour = _OUTLINE if self.outlines.isChecked() else 0
