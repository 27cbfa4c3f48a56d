"""Listening to napari for as long as a widget lives."""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject


def follow(owner: QObject, emitter: Any, slot: Callable[..., None]) -> None:
    """Call `slot` at each event until `owner` is destroyed.

    The viewer outlives the docks: an event that reached a closed one would find
    its widgets deleted.
    """
    emitter.connect(slot)
    owner.destroyed.connect(lambda: emitter.disconnect(slot))
