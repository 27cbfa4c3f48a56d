from typing import Any

import numpy as np
from qtpy.QtCore import QObject

from napari_affmae.widgets.layers.refreshing import Refresher


def test_a_layer_is_drawn_where_its_plane_is_shown(viewer: Any, qtbot: Any) -> None:
    layer = viewer.add_labels(np.zeros((4, 64, 64), np.uint8))
    viewer.dims.set_current_step(0, 1)
    owner = QObject()
    refresher = Refresher(viewer, owner)
    refresher.watch([layer])
    drawn: list[int] = []
    layer.events.set_data.connect(lambda: drawn.append(1))
    refresher.touch(0)
    qtbot.waitUntil(lambda: not refresher._timer.isActive())
    assert not refresher._planes  # it has been looked at
    assert not drawn
    refresher.touch(1)
    qtbot.waitUntil(lambda: bool(drawn))
