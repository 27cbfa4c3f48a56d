"""Layers that the plugin adds to show something."""

from collections.abc import Sequence

import napari
from napari.layers import Layer


class OwnLayers:
    """Layers of one kind: each new set replaces the former one.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer that the layers are added to.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        self._viewer = viewer
        self._shown: list[Layer] = []

    def show(self, layers: Sequence[Layer]) -> None:
        """Add layers, and remove the former ones that the user has not removed yet."""
        for layer in self._shown:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._shown = list(layers)
        self._viewer.layers.extend(self._shown)
