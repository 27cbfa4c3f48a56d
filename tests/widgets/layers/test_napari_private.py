"""Fails with a napari that has changed what the plugin uses beyond its public interface."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils._proxies import PublicOnlyProxy
from qtpy.QtWidgets import QDockWidget, QPushButton, QWidget

from napari_affmae.widgets.layers import napari_private
from napari_affmae.widgets.layers.napari_private import (
    ask_before_closing,
    canvas_size,
    edited_indices,
    real_viewer,
    undone_edits,
)


@pytest.fixture(autouse=True)
def _warn_again() -> None:
    napari_private._warn_once.cache_clear()


def test_what_could_be_redone_is_known(caplog: pytest.LogCaptureFixture) -> None:
    layer = Labels(np.zeros((3, 64, 64), np.uint8))
    layer.paint((1, 10, 20), 1)
    layer.data_setitem(tuple(np.array([part]) for part in (2, 30, 40)), 2)
    assert undone_edits(layer) == {}
    for places in ([(2, 30, 40)], [(1, 10, 20), (2, 30, 40)]):
        layer.undo()
        found = [edited_indices(edit, 3) for edit in undone_edits(layer).values()]
        inside = np.zeros(layer.data.shape, bool)
        for indices in found:
            inside[indices] = True
        assert all(inside[place] for place in places)
        assert not inside[0].any()
    assert not caplog.messages


def test_without_a_history_a_warning_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert undone_edits(SimpleNamespace()) == {}
    (message,) = caplog.messages
    assert "Undo and Redo in labels are not noticed" in message


def test_edits_of_an_unknown_form_may_be_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    assert edited_indices(({"rows": 1}, None, None), 3) is None
    assert "read anew" in caplog.messages[0]


def test_the_canvas_has_a_size(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.add_image(np.zeros((64, 64)))
    shown = viewer.window._qt_viewer.canvas
    qtbot.waitUntil(lambda: tuple(canvas_size(viewer)) == tuple(shown.view.rect.size)[::-1])


def test_without_a_canvas_the_user_is_told_what_to_do() -> None:
    with pytest.raises(ValueError, match="choose a whole plane"):
        canvas_size(SimpleNamespace())


def test_the_viewer_behind_a_proxy(viewer: Any) -> None:
    assert real_viewer(PublicOnlyProxy(viewer)) is viewer
    assert real_viewer(viewer) is viewer


def test_the_close_button_of_a_dock_asks(viewer: Any) -> None:
    holder = viewer.window.add_dock_widget(QWidget(), name="asked")
    answers = [False, True]
    ask_before_closing(holder, lambda: answers.pop(0))
    for _ in range(2):
        assert "asked" in viewer.window.dock_widgets
        holder.title.findChild(QPushButton, "QTitleBarCloseButton").click()
    assert not answers
    assert "asked" not in viewer.window.dock_widgets


def test_a_dock_without_the_method_closes_unasked(
    qtbot: Any, caplog: pytest.LogCaptureFixture
) -> None:
    holder = QDockWidget()
    qtbot.addWidget(holder)
    ask_before_closing(holder, lambda: False)
    assert "without asking" in caplog.messages[0]
