"""Commands in the menus of layers."""

from typing import Any

import napari
from napari.layers import Image
from napari.utils.notifications import show_warning

from napari_affmae.widgets.layers.layer_sources import is_own

_PLUGIN = "napari-affmae"


def annotate_selected(viewer: "napari.viewer.Viewer") -> None:
    """Make a labels layer for the selected image, and open the dock that learns from it."""
    image = _selected_image(viewer)
    if image is not None:
        dock = _open(viewer, "2. Fine-tune")
        dock.annotate(image)


def segment_selected(viewer: "napari.viewer.Viewer") -> None:
    """Open the dock that segments, with the selected image chosen."""
    image = _selected_image(viewer)
    if image is not None:
        dock = _open(viewer, "3. Segment")
        dock.choose_layer(image)


def _open(viewer: "napari.viewer.Viewer", name: str) -> Any:
    """Open a dock, or bring it to the front."""
    holder, dock = viewer.window.add_plugin_dock_widget(_PLUGIN, name)
    holder.show()
    holder.raise_()
    return dock


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
