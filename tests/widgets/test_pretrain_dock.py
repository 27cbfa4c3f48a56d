from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QMessageBox

from napari_affmae.engine import list_runs, pretraining
from napari_affmae.engine.checkpoints import list_checkpoints
from napari_affmae.widgets.pretrain import PretrainDock
from napari_affmae.widgets.run_panel import Outcome, RunPanel

Finish = Callable[[RunPanel], Outcome]


@pytest.fixture
def dock(viewer: Any) -> PretrainDock:
    _, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "1. Pretrain")
    enter(dock, steps=4)
    dock.plan.stop()
    return dock  # type: ignore[no-any-return]


def enter(dock: PretrainDock, steps: int) -> None:
    """Settings of a run that takes a second."""
    dock.length.set_values(steps, None)
    dock.form.set_values(
        {
            "crop": 64,
            "batch": 2,
            "device": "cpu",
            "workers": 1,
            "validation_steps": 2,
            "preview_steps": 2,
        }
    )


@pytest.fixture
def layer(viewer: Any, dock: PretrainDock, volume: Any) -> Any:
    layer = viewer.add_image(volume[0], name="volume", scale=(8, 8, 8), units="nm")
    dock.sources.check_layer(layer)
    return layer


def texts(dock: PretrainDock) -> str:
    return "\n".join(text for _, text in dock.panel.messages.texts)


def test_pretrain_from_a_layer(
    viewer: Any, dock: PretrainDock, layer: Any, runs: Path, finish: Finish
) -> None:
    dock.panel.start_button.click()
    assert not dock.form.isVisibleTo(dock)
    assert finish(dock.panel) is Outcome.FINISHED
    assert dock.form.isVisibleTo(dock)
    (run,) = list_runs(runs)
    assert (run.kind, run.steps, run.finished) == ("pretrain", 4, True)
    assert run.sources == ("volume",)
    assert dock.curves.points("training")[0] == [1, 2, 3, 4]
    assert dock.curves.points("validation")[0] == [2, 4]
    assert list(dock.preview.images) == ["input", "masked", "reconstruction", "error"]
    dock.layers_button.click()
    added = [other.name for other in viewer.layers if other is not layer]
    assert added == [f"crops: {name}" for name in dock.preview.images]
    # The plugin's own pictures are no input.
    assert dock.sources._list.count() == 1


def test_stop_and_resume(
    dock: PretrainDock, layer: Any, runs: Path, finish: Finish, qtbot: Any
) -> None:
    enter(dock, steps=200)
    dock.panel.start_button.click()
    qtbot.waitUntil(lambda: len(dock.curves.points("training")[0]) >= 2, timeout=60_000)
    dock.panel.stop_button.click()
    assert finish(dock.panel) is Outcome.STOPPED
    (run,) = list_runs(runs)
    assert run.resumable
    (step,) = list_checkpoints(run.path / "checkpoints")[-1:]
    assert step >= 2
    # The stopped run is offered to go on, with its settings, of which few can be changed.
    assert dock.run_choice.path() == run.path
    assert dock.panel.start_button.text() == "Resume"
    assert dock.length.values()["steps"] == 200
    assert not dock.form.control("crop").isEnabled()
    dock.panel.start_button.click()
    qtbot.waitUntil(lambda: dock.curves.points("training")[0][-1:] > [step], timeout=60_000)
    assert dock.curves.points("training")[0][0] == step + 1
    dock.panel.stop_button.click()
    assert finish(dock.panel) is Outcome.STOPPED


def test_pause_rests_and_goes_on(
    dock: PretrainDock, layer: Any, finish: Finish, qtbot: Any
) -> None:
    enter(dock, steps=500)
    dock.panel.start_button.click()
    qtbot.waitUntil(lambda: bool(dock.curves.points("training")[0]), timeout=60_000)
    dock.panel.pause_button.click()
    qtbot.wait(500)
    made = len(dock.curves.points("training")[0])
    qtbot.wait(1500)
    # The step that was being made may still end, on a busy machine late.
    assert len(dock.curves.points("training")[0]) <= made + 1
    dock.panel.pause_button.click()
    qtbot.waitUntil(lambda: len(dock.curves.points("training")[0]) > made, timeout=60_000)
    dock.panel.stop_button.click()
    finish(dock.panel)


def test_the_layer_may_be_renamed_and_removed_during_a_run(
    viewer: Any, dock: PretrainDock, layer: Any, runs: Path, finish: Finish, qtbot: Any
) -> None:
    enter(dock, steps=12)
    dock.panel.start_button.click()
    qtbot.waitUntil(lambda: bool(dock.curves.points("training")[0]), timeout=60_000)
    layer.name = "another"
    viewer.layers.remove(layer)
    assert finish(dock.panel) is Outcome.FINISHED
    assert list_runs(runs)[0].steps == 12


def test_without_an_image_the_dock_says_what_to_do(dock: PretrainDock) -> None:
    dock.panel.start_button.click()
    assert not dock.panel.is_running
    assert "No image is chosen" in texts(dock)


def test_settings_that_do_not_fit_are_named(dock: PretrainDock, layer: Any) -> None:
    dock.form.control("mask_ratio").setText("2")
    dock.panel.start_button.click()
    assert not dock.panel.is_running
    assert "Mask ratio" in texts(dock)


def test_any_error_of_the_engine_ends_in_the_dock(
    dock: PretrainDock, layer: Any, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a tensor has the wrong size")

    with monkeypatch.context() as patched:
        patched.setattr(pretraining.Pretraining, "loss", broken)
        dock.panel.start_button.click()
        assert finish(dock.panel) is Outcome.FAILED
    assert "RuntimeError: a tensor has the wrong size" in texts(dock)
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FINISHED


def test_two_kinds_of_channels_are_refused(
    viewer: Any, dock: PretrainDock, layer: Any, finish: Finish
) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    dock.sources.check_layer(viewer.add_image(rgb, rgb=True, name="colours"))
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FAILED
    assert "channels" in texts(dock)


@pytest.mark.parametrize("what", ["dock", "window"])
def test_closing_asks_and_stops_cleanly(
    make_napari_viewer: Callable[..., Any],
    volume: Any,
    runs: Path,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    viewer = make_napari_viewer(show=True)
    holder, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "1. Pretrain")
    enter(dock, steps=500)
    dock.plan.stop()
    dock.sources.check_layer(viewer.add_image(volume[0]))
    dock.panel.start_button.click()
    qtbot.waitUntil(lambda: bool(dock.curves.points("training")[0]), timeout=60_000)
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    monkeypatch.setattr(QMessageBox, "question", lambda *_: answers.pop(0))
    close = holder.destroyOnClose if what == "dock" else lambda: ask_to_close(holder.parent())
    close()
    assert dock.panel.is_running
    close()
    assert not answers
    (run,) = list_runs(runs)
    assert run.resumable
    assert run.steps >= 1
    qtbot.wait(50)


def ask_to_close(window: Any) -> None:
    """Close a window as its button does: Qt marks what comes from outside as spontaneous."""

    class Close(QCloseEvent):
        def spontaneous(self) -> bool:
            return True

    for filters in window.findChildren(PretrainDock):
        if filters.eventFilter(window, Close()):
            return


def test_the_plan_is_measured(dock: PretrainDock, layer: Any, qtbot: Any) -> None:
    dock.length.set_values(100, None)
    dock.form.control("batch").setValue(3)
    qtbot.waitUntil(lambda: "100 steps" in dock.plan.text(), timeout=60_000)
    assert dock.plan.text().startswith("CPU")
    assert "a step" in dock.plan.text()


def test_settings_are_remembered(
    viewer: Any, dock: PretrainDock, layer: Any, finish: Finish
) -> None:
    dock.form.control("mask_ratio").setText("0.6")
    dock.panel.start_button.click()
    finish(dock.panel)
    other = PretrainDock(viewer)
    assert other.form.values()["mask_ratio"] == 0.6
    assert other.length.values() == {"steps": 4, "minutes": None}
    other.deleteLater()
