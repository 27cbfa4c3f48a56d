"""Commands in the menus of layers."""

import napari
from napari.layers import Image
from napari.utils.notifications import show_warning

from napari_affmae.widgets.layers.docks import open_dock
from napari_affmae.widgets.layers.layer_sources import is_own


def annotate_selected(viewer: "napari.viewer.Viewer") -> None:
    """Make a labels layer for the selected image, and open the dock that learns from it."""
    image = _selected_image(viewer)
    if image is not None:
        dock = open_dock(viewer, "2. Fine-tune")
        dock.annotate(image)


def segment_selected(viewer: "napari.viewer.Viewer") -> None:
    """Open the dock that segments, with the selected image chosen."""
    image = _selected_image(viewer)
    if image is not None:
        dock = open_dock(viewer, "3. Segment")
        dock.choose_layer(image)


def _selected_image(viewer: "napari.viewer.Viewer") -> Image | None:
    chosen = [
        layer
        for layer in viewer.layers
        if isinstance(layer, Image) and layer in viewer.layers.selection and not is_own(layer)
    ]
    if not chosen:
        show_warning("Select an image layer first.")
        return None
    return chosen[-1]
