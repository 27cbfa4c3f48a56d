"""The dock that segments, in a real viewer, with a tiny network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_affmae.config import SegmentConfig
from napari_affmae.data import open_source
from napari_affmae.engine import segment
from napari_affmae.engine.events import PlaneDone
from napari_affmae.widgets.running.run_panel import Outcome
from napari_affmae.widgets.segment.dock import SegmentDock


class Drive:
    """Uses a dock by its own controls."""

    def __init__(self, viewer: Any, dock: SegmentDock, finish: Callable[[Any], Outcome]) -> None:
        self._viewer, self._dock, self._finish = viewer, dock, finish

    def start(self) -> None:
        assert self._dock.panel.start_button.isEnabled()
        self._dock.panel.start_button.click()

    def run(self) -> Outcome:
        """Start, wait for the end, and return how it was."""
        self.start()
        return self._finish(self._dock.panel)

    def draw(self) -> None:
        """Let layers see what of them is in view, which an unseen window does not tell."""
        self._viewer.window._qt_viewer.canvas.on_draw(None)

    def errors(self) -> list[str]:
        return [text for level, text in self._dock.panel.messages.texts if level == "error"]

    def result(self) -> Any:
        return next(layer for layer in self._viewer.layers if layer.name.endswith(": classes"))


@pytest.fixture
def dock(viewer: Any, model: Path, listed: Any) -> SegmentDock:
    _, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "3. Segment")
    dock.run_choice.choose(model)
    assert listed(dock.run_choice) == model
    dock.form.set_values({"device": "cpu"})
    return dock


@pytest.fixture
def drive(viewer: Any, dock: SegmentDock, finish: Callable[[Any], Outcome]) -> Drive:
    return Drive(viewer, dock, finish)


@pytest.fixture(scope="session")
def expected(finetuned: Path, volume: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What the engine says of the whole volume."""
    source = open_source(volume[0], axes="ZYX")
    events = segment(source, finetuned, SegmentConfig(device="cpu"))
    return np.stack([event.labels for event in events if isinstance(event, PlaneDone)])


@pytest.fixture
def slow(drive: Drive, dock: SegmentDock, qtbot: Any) -> Callable[[], None]:
    """Start, and return with the run held after its first rows, until it is told to go on."""

    def start() -> None:
        drive.start()
        qtbot.waitUntil(lambda: dock.result.labels is not None, timeout=60_000)
        dock.panel.pause_button.setChecked(True)

    return start
