"""How predictions and results are looked at."""

from typing import Any

import numpy as np
import pytest

from napari_affmae.widgets.layers.label_layers import RESULT, add_labels_layer
from napari_affmae.widgets.layers.overlays import hide_replaced
from napari_affmae.widgets.running.overlay_bar import KEY, OverlayBar


@pytest.fixture
def bar(viewer: Any, image: Any, qtbot: Any) -> OverlayBar:
    made = OverlayBar(viewer)
    qtbot.addWidget(made)
    return made


def add_result(viewer: Any, image: Any) -> Any:
    ones = np.ones(image.data.shape, np.uint8)
    return viewer.add_labels(ones, name="em: classes", metadata=RESULT)


def test_one_key_hides_and_shows_what_was_shown(viewer: Any, image: Any, bar: OverlayBar) -> None:
    old, new = add_result(viewer, image), add_result(viewer, image)
    old.visible = False
    painted = add_labels_layer(viewer, image)
    press = dict(viewer.keymap)[next(key for key in viewer.keymap if str(key) == KEY)]
    for shown in (False, True):
        press(viewer)
        assert (old.visible, new.visible) == (False, shown)
        assert painted.visible
        assert image.visible
    bar.hide_button.click()
    assert not new.visible


def test_outlines_and_opacity_hold_for_the_next_result_too(
    viewer: Any, image: Any, bar: OverlayBar
) -> None:
    painted = add_labels_layer(viewer, image)
    first = add_result(viewer, image)
    bar.outlines.setChecked(True)
    bar.opacity.setValue(80)
    second = add_result(viewer, image)
    for layer in (first, second):
        assert (layer.contour, layer.opacity) == (2, 0.8)
    assert painted.contour == 0
    bar.outlines.setChecked(False)
    assert first.contour == 0


def test_a_new_result_is_alone_on_the_image(viewer: Any, image: Any) -> None:
    painted, old = add_labels_layer(viewer, image), add_result(viewer, image)
    other = viewer.add_labels(np.ones((8, 8), np.uint8), name="mine")
    new = add_result(viewer, image)
    hide_replaced(viewer, image, [new])
    assert [layer.visible for layer in (image, painted, old, other, new)] == [1, 0, 0, 1, 1]
