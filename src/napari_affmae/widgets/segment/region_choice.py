"""The choice of the part of an image that is segmented."""

import napari
from napari.layers import Image
from qtpy.QtWidgets import QComboBox

from napari_affmae.widgets.layers.view import plane_of, view_of
from napari_affmae.widgets.segment.job import Region

EVERYTHING, PLANE, VIEW = "everything", "this plane", "what is in view"


class RegionChoice(QComboBox):
    """Which part of the image to segment.

    Parameters
    ----------
    viewer : napari.Viewer
        Shows the image.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._of_layers = VIEW
        self.addItems([VIEW, PLANE, EVERYTHING])
        self.setToolTip("Which part of the image to segment.")

    def offer(self, *, is_file: bool) -> None:
        """Offer only the whole of a file: no part of it is in view."""
        if is_file == self.isEnabled():
            other = EVERYTHING if is_file else self._of_layers
            self._of_layers = self.currentText()
            self.setCurrentText(other)
            self.setEnabled(not is_file)

    def region(self, layer: Image | None) -> Region:
        """Return the part of a layer that is chosen; None stands for a file."""
        match self.currentText():
            case region if layer is None or region == EVERYTHING:
                return Region()
            case region if region == PLANE:
                indices, _ = plane_of(self._viewer, layer)
                return Region(indices)
            case _:
                view = view_of(self._viewer, layer)
                return Region(view.indices, view.rows, view.columns)
