"""Closing the dock or the window while a run is going on."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from napari.settings import get_settings
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
    window, run = holder.parent(), Saving()
    dock.panel.run(run.events)
    worker = dock.panel._worker
    qtbot.waitUntil(lambda: bool(dock.curves.points("training")[0]))
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    monkeypatch.setattr(QMessageBox, "question", lambda *_: answers.pop(0))
    close = holder.destroyOnClose if what == "dock" else lambda: ask_to_close(window)
    close()
    assert not worker.abort_requested
    close()
    assert not answers
    assert worker.abort_requested
    assert not worker.wait(0)
    run.may_end.set()
    qtbot.waitUntil(lambda: worker.wait(0))
    assert run.is_saved


def ask_to_close(window: Any) -> None:
    """Close a window as its button does: Qt marks what comes from outside as spontaneous."""

    class Close(QCloseEvent):
        def spontaneous(self) -> bool:
            return True

    get_settings().application.confirm_close_window = False  # napari's own question
    QApplication.sendEvent(window, Close())
