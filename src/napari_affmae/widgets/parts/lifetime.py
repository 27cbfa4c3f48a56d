"""Listening to napari for as long as a widget lives."""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject


def connect_while_alive(owner: QObject, emitter: Any, slot: Callable[..., None]) -> None:
    """Call `slot` at each event until `owner` is destroyed.

    For what outlives the docks, as the viewer and its list of layers do. napari
    lets go of a slot by itself once that has failed at a deleted widget; until it
    fails, it would work on for a dock that was closed.
    """
    emitter.connect(slot)
    owner.destroyed.connect(lambda: emitter.disconnect(slot))
