"""Opening the plugin's docks by their names, so that one can lead to another."""

from typing import Any

import napari

_PLUGIN = "napari-affmae"


def open_dock(viewer: "napari.viewer.Viewer", name: str) -> Any:
    """Open one of the plugin's docks, or bring it to the front.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    name : str
        The dock's name in the manifest.

    Returns
    -------
    QWidget
        The dock.
    """
    holder, dock = viewer.window.add_plugin_dock_widget(_PLUGIN, name)
    holder.show()
    holder.raise_()
    return dock
