"""Layers that the plugin adds to show something."""

from collections.abc import Sequence

import napari
from napari.layers import Layer


class OwnLayers:
    """Layers of one kind, of which each set takes the place of the one before.

    Parameters
    ----------
    viewer : napari.Viewer
        Where.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        self._viewer = viewer
        self._shown: list[Layer] = []

    def show(self, layers: Sequence[Layer]) -> None:
        """Add layers, and take away those that were shown, as far as they are still there."""
        for layer in self._shown:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._shown = list(layers)
        self._viewer.layers.extend(self._shown)
