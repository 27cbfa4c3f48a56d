"""Predictions and results that lie over an image: which they are, and how they are hidden."""

from collections.abc import Collection
from weakref import WeakSet

import napari
from napari.layers import Image, Labels, Layer

from napari_affmae.widgets.layers.label_layers import is_named_for, is_result
from napari_affmae.widgets.layers.layer_sources import is_own

# What `toggle_overlays` has hidden.
_hidden: WeakSet[Layer] = WeakSet()


def is_overlay(layer: Layer) -> bool:
    """Return whether a layer shows what a network said of an image."""
    return isinstance(layer, Labels) and is_result(layer)


def hide_replaced(
    viewer: "napari.viewer.Viewer", image: Image | None, shown: Collection[Layer]
) -> None:
    """Hide what would lie over a new result: former ones, and what was painted on the image.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    image : napari.layers.Image or None
        The image, if it is a layer.
    shown : collection of Layer
        The new layers.
    """
    for layer in viewer.layers:
        is_painted = image is not None and isinstance(layer, Labels) and is_named_for(image, layer)
        if layer not in shown and (is_painted or is_overlay(layer) or is_own(layer)):
            layer.visible = False


def toggle_overlays(viewer: "napari.viewer.Viewer") -> None:
    """Hide what is shown of predictions and results, or show what this has hidden."""
    overlays = [layer for layer in viewer.layers if is_overlay(layer)]
    shown = [layer for layer in overlays if layer.visible]
    if shown:
        _hidden.difference_update(overlays)
        _hidden.update(shown)
    for layer in shown or _hidden.intersection(overlays):
        layer.visible = not shown
