"""Closing the dock or the window while a run is going on."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from napari._qt.dialogs.confirm_close_dialog import ConfirmCloseDialog
from napari.settings import get_settings
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication, QMessageBox

from napari_affmae.engine.events import Event, StepDone


class Saving:
    """A run that takes long to save its checkpoint once it is stopped."""

    def __init__(self) -> None:
        self.may_end, self.is_saved = threading.Event(), False

    def events(self) -> Iterator[Event]:
        try:
            while True:
                yield StepDone(1, 10, 0.5, 1e-3, 2.0, None)
                time.sleep(0.01)  # as a step does, or its events would fill the memory
        finally:
            self.is_saved = self.may_end.wait(30)


@pytest.mark.parametrize("what", ["dock", "window"])
def test_closing_asks_and_does_not_wait_for_the_checkpoint(
    make_napari_viewer: Callable[..., Any],
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    viewer = make_napari_viewer(show=True)
    holder, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "1. Pretrain")
    window, run = keep(holder.parent()), Saving()
    dock.panel.run(run.events)
    worker = dock.panel._worker
    qtbot.waitUntil(lambda: bool(dock.curves.points("training")[0]))
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    monkeypatch.setattr(QMessageBox, "question", lambda *_: answers.pop(0))
    close = holder.destroyOnClose if what == "dock" else lambda: ask_to_close(window)
    close()
    assert not worker.abort_requested
    close()
    qtbot.waitUntil(lambda: worker.abort_requested)
    assert not answers
    assert not worker.wait(0)
    run.may_end.set()
    qtbot.waitUntil(lambda: worker.wait(0))
    assert run.is_saved


def test_napari_does_not_ask_again(
    make_napari_viewer: Callable[..., Any], qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two questions, a Cancel at the second would come after the run was stopped."""
    viewer = make_napari_viewer(show=True)
    viewer.add_image(np.zeros((8, 8)))
    docks = [
        viewer.window.add_plugin_dock_widget("napari-affmae", name)
        for name in ("1. Pretrain", "2. Fine-tune")
    ]
    window = keep(docks[0][0].parent())
    runs = [Saving() for _ in docks]
    for (_, dock), run in zip(docks, runs, strict=True):
        dock.panel.run(run.events)
    workers = [dock.panel._worker for _, dock in docks]
    qtbot.waitUntil(docks[1][1].isVisible)
    asked: list[str] = []
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    monkeypatch.setattr(
        QMessageBox, "question", lambda *words: asked.append(words[-1]) or answers.pop(0)
    )
    monkeypatch.setattr(ConfirmCloseDialog, "exec_", lambda _: pytest.fail("napari asks too"))
    monkeypatch.setattr(get_settings().application, "confirm_close_window", True)
    QApplication.sendEvent(window, FromOutside())
    assert window.isVisible()
    assert not any(worker.abort_requested for worker in workers)
    QApplication.sendEvent(window, FromOutside())
    qtbot.waitUntil(lambda: all(worker.abort_requested for worker in workers))
    assert not window.isVisible()
    assert len(asked) == 2
    assert "Pretraining is running" in asked[0]
    assert "Fine-tuning is running" in asked[0]
    for worker, run in zip(workers, runs, strict=True):
        run.may_end.set()
        qtbot.waitUntil(lambda worker=worker: worker.wait(0))


def keep(window: Any) -> Any:
    """Have a window live on when it is closed: the fixture closes it once more."""
    window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    return window


class FromOutside(QCloseEvent):
    """The closing of a window by its button: Qt marks what comes from outside as spontaneous."""

    def spontaneous(self) -> bool:
        return True


def ask_to_close(window: Any) -> None:
    """Close a window as its button does."""
    get_settings().application.confirm_close_window = False  # napari's own question
    QApplication.sendEvent(window, FromOutside())
