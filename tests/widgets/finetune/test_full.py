"""Training of the whole network, through the dock's own controls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_affmae.engine import events as ev
from napari_affmae.engine.store.registry import list_runs
from napari_affmae.engine.store.run_folder import RunFolder
from napari_affmae.errors import DiskFullError
from napari_affmae.widgets.finetune.dock import FinetuneDock
from napari_affmae.widgets.running.run_panel import Outcome

Finish = Callable[[Any], Outcome]
MILLISECONDS = 300_000


def test_paint_train_stop_paint_more_resume(
    dock: FinetuneDock,
    viewer: Any,
    labels: Any,
    qtbot: Any,
    finish: Finish,
    runs: Path,
    drive: Any,
    listed: Any,
) -> None:
    for plane in (0, 3):
        drive.paint_both(labels, plane)
    drive.shorten(dock, 1000)
    with qtbot.waitSignal(
        dock.panel.happened,
        timeout=MILLISECONDS,
        check_params_cb=lambda event: isinstance(event, ev.CheckpointSaved),
    ):
        dock.panel.start_button.click()
    assert not dock.pairs.isEnabled()
    qtbot.waitUntil(lambda: "AFFMAE prediction" in viewer.layers, timeout=MILLISECONDS)
    dock.panel.stop()
    assert finish(dock.panel) is Outcome.STOPPED
    (run,) = list_runs(runs)
    assert run.resumable
    assert listed(dock.full.training) == run.path
    assert dock.panel.start_button.text() == "Resume"
    assert not dock.start_from.isEnabled()

    dock.classes.add_button.click()
    dock.panel.start_button.click()
    assert "has the classes background, structure" in drive.errors(dock.panel.messages)
    dock.classes.remove_button.click()
    drive.paint(labels, 2, (1, 64, 64))
    # Longer is allowed; this run is made to end soon after it goes on.
    dock.full.training.length.set_values(1000, None)
    before = len(dock.full.losses.points("training")[0])
    with qtbot.waitSignal(
        dock.panel.happened,
        timeout=MILLISECONDS,
        check_params_cb=lambda event: isinstance(event, ev.StepDone) and event.step > run.steps,
    ):
        dock.panel.start_button.click()
    dock.panel.stop()
    assert finish(dock.panel) is Outcome.STOPPED
    assert not drive.errors(dock.panel.messages)
    listed(dock.full.training)
    steps, _ = dock.full.losses.points("training")
    assert steps == sorted(set(steps))
    assert len(steps) > before
    assert set(dock.full.scores.points("background")[0]) <= set(steps)
    # What it started from cannot be chosen again; that of a quick training can.
    assert not dock.start_from.isEnabled()
    dock.quick_button.setChecked(True)
    assert dock.start_from.isEnabled()

    dock.full_button.setChecked(True)
    dock.full.training.run_choice.choose(None)
    assert dock.start_from.isEnabled()
    dock.panel.start_button.click()
    listed(dock.start_from)
    assert not dock.full.losses.points("training")[0]
    assert not dock.full.scores.points("background")[0]
    dock.panel.stop()
    assert finish(dock.panel) is Outcome.STOPPED


def test_run_to_the_end_starts_the_next_anew(
    dock: FinetuneDock, labels: Any, finish: Finish, runs: Path, drive: Any, listed: Any
) -> None:
    for plane in (0, 3):
        drive.paint_both(labels, plane)
    drive.shorten(dock, 2)
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FINISHED
    (run,) = list_runs(runs)
    assert run.finished
    assert run.classes == dock.annotation.classes()
    assert listed(dock.full.training) is None


@pytest.mark.parametrize(
    ("painted", "message"), [((), "nothing is painted"), ((1,), "only 'background'")]
)
def test_too_few_strokes(
    dock: FinetuneDock, labels: Any, finish: Finish, painted: Any, message: str, drive: Any
) -> None:
    drive.shorten(dock, 2)
    for value in painted:
        drive.paint(labels, value, (0, 20, 20))
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FAILED
    assert message in drive.errors(dock.panel.messages)
    assert dock.panel.start_button.isEnabled()


def test_random_weights_beside_better_ones_are_told(
    dock: FinetuneDock, labels: Any, weights: Path, drive: Any, listed: Any, qtbot: Any
) -> None:
    assert dock.start_from.path() == weights
    drive.shorten(dock, 2)
    assert not dock.full.training.form.control("preset").isEnabled()
    dock.start_from.choose(None)
    assert dock.full.training.form.control("preset").isEnabled()
    dock.panel.start_button.click()
    assert listed(dock.start_from) is None
    assert "networks that have learned" in dock.panel.messages.texts[0][1]
    dock.panel.stop()
    qtbot.waitUntil(lambda: not dock.panel.is_running, timeout=MILLISECONDS)


def test_labels_of_another_shape(dock: FinetuneDock, viewer: Any, drive: Any) -> None:
    other = viewer.add_labels(np.zeros((4, 64, 64), np.uint8), name="other")
    drive.shorten(dock, 2)
    combo = dock.pairs.table.cellWidget(0, 1)
    combo.setCurrentIndex(combo.findText(other.name))
    dock.panel.start_button.click()
    assert "do not have the shape" in drive.errors(dock.panel.messages)
    assert not dock.panel.is_running


def test_model_for_other_channels(
    dock: FinetuneDock,
    viewer: Any,
    image: Any,
    labels: Any,
    finish: Finish,
    runs: Path,
    drive: Any,
    listed: Any,
) -> None:
    for plane in (0, 3):
        drive.paint_both(labels, plane)
    drive.shorten(dock, 1)
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FINISHED
    (grey,) = list_runs(runs)
    colour = viewer.add_image(np.stack([image.data] * 3, -1), name="colour", rgb=True)
    dock.start_from.choose(grey.path)
    assert listed(dock.start_from) == grey.path
    combo = dock.pairs.table.cellWidget(0, 0)
    combo.setCurrentIndex(combo.findText(colour.name))
    labels_combo = dock.pairs.table.cellWidget(0, 1)
    labels_combo.setCurrentIndex(labels_combo.findText(labels.name))

    dock.panel.start_button.click()

    assert finish(dock.panel) is Outcome.FAILED
    assert "choose channels" in drive.errors(dock.panel.messages)

    dock.pairs.channels.edit.setText("0")
    dock.pairs.channels.edit.editingFinished.emit()
    listed(dock.full.training)
    dock.full.training.run_choice.choose(None)
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FINISHED
    source = dock.annotation.image(colour)
    assert source.n_channels == 1
    assert dock.annotation.image(colour) is source


def test_layer_deleted_during_the_run(
    dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, finish: Finish, drive: Any
) -> None:
    for plane in (0, 3):
        drive.paint_both(labels, plane)
    drive.shorten(dock, 4)
    with qtbot.waitSignal(
        dock.panel.happened,
        timeout=MILLISECONDS,
        check_params_cb=lambda event: isinstance(event, ev.StepDone),
    ):
        dock.panel.start_button.click()
    viewer.layers.remove(labels)
    assert ("warning", True) in [
        (level, "'em labels' was deleted" in text) for level, text in dock.panel.messages.texts
    ]
    assert finish(dock.panel) is Outcome.FINISHED


@pytest.mark.parametrize(
    "error", [DiskFullError("the disk is full: 1 MB are needed"), RuntimeError("it broke")]
)
def test_errors_while_it_trains(
    dock: FinetuneDock,
    labels: Any,
    finish: Finish,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    drive: Any,
    listed: Any,
) -> None:
    def fail(*_: Any) -> Path:
        raise error

    for plane in (0, 3):
        drive.paint_both(labels, plane)
    drive.shorten(dock, 2)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", fail)
        dock.panel.start_button.click()
        assert finish(dock.panel) is Outcome.FAILED
    assert str(error) in drive.errors(dock.panel.messages)
    listed(dock.full.training)
    dock.full.training.run_choice.choose(None)
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FINISHED
