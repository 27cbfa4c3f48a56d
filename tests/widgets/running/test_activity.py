import threading
from collections.abc import Generator
from typing import Any

import pytest
from napari._qt.widgets.qt_progress_bar import QtLabeledProgressBar

from napari_affmae.engine import events as ev
from napari_affmae.widgets.running import activity
from napari_affmae.widgets.running.run_panel import Outcome, RunPanel

STEPS = 10


class Steps:
    """A run that takes its steps when it may, and what it says of its device."""

    def __init__(self, *, on_gpu: bool) -> None:
        self.on_gpu = on_gpu
        self.may_go_on = threading.Semaphore(0)

    def events(self) -> Generator[ev.Event, None, None]:
        yield ev.RunStarted("a device", self.on_gpu, "fp32", "PyTorch", 1, 1, 1, 0, STEPS)
        for step in range(1, STEPS + 1):
            self.may_go_on.acquire(timeout=30)
            yield ev.StepDone(step, STEPS, 0.5, 1e-3, 2.0, None)


@pytest.fixture
def panel(viewer: Any, monkeypatch: pytest.MonkeyPatch) -> RunPanel:
    monkeypatch.setattr(activity, "_MILLISECONDS", 20)
    panel = RunPanel("Training", "Start")
    viewer.window.add_dock_widget(panel)
    return panel


def bars(viewer: Any) -> list[QtLabeledProgressBar]:
    """Napari's progress bars."""
    dialog = viewer.window._qt_window._activity_dialog
    return dialog.findChildren(QtLabeledProgressBar)  # type: ignore[no-any-return]


def test_a_run_on_a_gpu_is_among_napari_s_bars(viewer: Any, panel: RunPanel, qtbot: Any) -> None:
    steps = Steps(on_gpu=True)
    panel.run(steps.events)
    qtbot.waitUntil(lambda: len(bars(viewer)) == 1)
    (bar,) = bars(viewer)
    steps.may_go_on.release(STEPS // 2)
    qtbot.waitUntil(lambda: bar.qt_progress_bar.value() == bar.qt_progress_bar.maximum() // 2)
    assert bar.description_label.text().startswith("Training: loss 0.5")
    with qtbot.waitSignal(panel.ended) as ended:
        steps.may_go_on.release(STEPS)
    assert ended.args == [Outcome.FINISHED]
    qtbot.waitUntil(lambda: not bars(viewer))


def test_a_run_on_the_cpu_turns_no_wheel(viewer: Any, panel: RunPanel, qtbot: Any) -> None:
    steps = Steps(on_gpu=False)
    panel.run(steps.events)
    qtbot.waitUntil(lambda: "device" in str(panel.messages.texts))
    assert not panel._activity._timer.isActive()  # which is what shows a bar
    assert not bars(viewer)
    with qtbot.waitSignal(panel.ended):
        steps.may_go_on.release(STEPS)


def test_a_run_of_less_than_a_second_shows_no_bar(viewer: Any, panel: RunPanel, qtbot: Any) -> None:
    steps = Steps(on_gpu=True)
    panel._activity._timer.setInterval(60_000)  # longer than the run, on a busy machine too
    panel.run(steps.events)
    qtbot.waitUntil(panel._activity._timer.isActive)
    with qtbot.waitSignal(panel.ended):
        steps.may_go_on.release(STEPS)
    assert not panel._activity._timer.isActive()
    assert not bars(viewer)


def test_a_panel_that_goes_away_takes_its_bar_along(
    viewer: Any, panel: RunPanel, qtbot: Any
) -> None:
    steps = Steps(on_gpu=True)
    panel.run(steps.events)
    qtbot.waitUntil(lambda: len(bars(viewer)) == 1)
    panel.stop()
    steps.may_go_on.release(STEPS)
    viewer.window.remove_dock_widget(panel)
    panel.deleteLater()
    qtbot.waitUntil(lambda: not bars(viewer))
