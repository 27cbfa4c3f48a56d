"""Connections to napari that last as long as a widget."""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject


def connect_while_alive(owner: QObject, emitter: Any, slot: Callable[..., None]) -> None:
    """Call `slot` at each event until `owner` is destroyed.

    The viewer and its layers outlive the docks. napari disconnects a slot by itself
    only after the slot has failed on a deleted widget; until then the slot would go
    on working for a dock that is closed.
    """
    emitter.connect(slot)
    owner.destroyed.connect(lambda: emitter.disconnect(slot))
