"""All that the plugin uses of napari beyond its public interface.

Each function says what it does without: it logs a warning once, or raises an error that
the docks show. The tests of this module fail with a napari that has changed such a name.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import napari
from napari.layers import Labels
from qtpy.QtWidgets import QDockWidget

logger = logging.getLogger(__name__)


def undone_edits(layer: Labels) -> dict[int, Any]:
    """Return the edits that could be redone, by identity: napari has no event for undo.

    Without napari's history there are none: what is undone is then not noticed.
    """
    history = getattr(layer, "_redo_history", None)
    if history is None:
        _warn_once("Undo and Redo in labels are not noticed: paint once more after them.")
        return {}
    return {id(edit): edit for item in history for edit in item}


def edited_indices(edit: Any, ndim: int) -> tuple[Any, ...] | None:
    """Return a slice or an array of indices for each axis of what an edit has changed.

    None if this napari records edits in an unknown form: anything may have changed.
    """
    # Brushes record the slices of a box, `data_setitem` the indices of pixels.
    indices = edit.slice_key if hasattr(edit, "slice_key") else edit[0]
    if isinstance(indices, tuple) and len(indices) == ndim:
        return indices
    _warn_once("The places of strokes are not known: each stroke makes all labels be read anew.")
    return None


def canvas_size(viewer: "napari.viewer.Viewer") -> tuple[float, float]:
    """Return the size that one image has on the screen, public since napari 0.9.

    Raises
    ------
    ValueError
        If neither the public nor the former private name is there.
    """
    if hasattr(viewer, "canvas"):
        return viewer.canvas.viewbox_size(viewer.layers)
    if hasattr(viewer, "_canvas_size"):
        return viewer._canvas_size  # noqa: SLF001
    raise ValueError(
        "this version of napari does not tell the size of its canvas, so what is in view is "
        "not known; choose a whole plane, or update napari-affmae"
    )


def real_viewer(viewer: "napari.viewer.Viewer") -> "napari.viewer.Viewer":
    """Return the viewer itself, where napari hands out a proxy that allows public names alone.

    Through the proxy, layers come as proxies too, which are no longer identical
    with those that events bring. A viewer that is no proxy is returned as it is.
    """
    return getattr(viewer, "__wrapped__", viewer)


def ask_before_closing(dock: QDockWidget, may_close: Callable[[], bool]) -> None:
    """Let the close button of one of napari's docks ask first.

    Without the method that the button calls, the dock closes unasked.
    """
    close = getattr(dock, "destroyOnClose", None)
    if close is None:
        _warn_once("A dock closes without asking whether its run may be stopped.")
        return

    def ask_first() -> None:
        if may_close():
            close()

    dock.destroyOnClose = ask_first


@cache
def _warn_once(consequence: str) -> None:
    logger.warning("This version of napari is not fully supported. %s", consequence)
