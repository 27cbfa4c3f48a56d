"""Runs that are stopped, paused, and go on."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtWidgets import QApplication

from napari_affmae.engine import list_runs, read_config
from napari_affmae.engine.store.checkpoints import list_checkpoints
from napari_affmae.widgets.pretrain.dock import PretrainDock
from napari_affmae.widgets.running import training_form
from napari_affmae.widgets.running.run_panel import Outcome, RunPanel

Finish = Callable[[RunPanel], Outcome]


def texts(dock: PretrainDock) -> str:
    return "\n".join(text for _, text in dock.panel.messages.texts)


def test_stop_and_resume(
    dock: PretrainDock, layer: Any, runs: Path, finish: Finish, qtbot: Any, listed: Any
) -> None:
    dock.training.length.set_values(200, None)
    dock.panel.start_button.click()
    qtbot.waitUntil(lambda: len(dock.curves.points("training")[0]) >= 2, timeout=60_000)
    dock.panel.stop_button.click()
    assert finish(dock.panel) is Outcome.STOPPED
    (run,) = list_runs(runs)
    assert run.resumable
    assert listed(dock.training) == run.path
    (step,) = list_checkpoints(run.path / "checkpoints")[-1:]
    assert step >= 2
    # The stopped run is offered to go on, with its settings, of which few can be changed.
    assert dock.panel.start_button.text() == "Resume"
    assert dock.training.length.values()["steps"] == 200
    assert not dock.training.form.control("crop").isEnabled()
    dock.panel.start_button.click()
    qtbot.waitUntil(lambda: dock.curves.points("training")[0][-1:] > [step], timeout=60_000)
    dock.panel.stop_button.click()
    assert finish(dock.panel) is Outcome.STOPPED
    # Its curve goes on; that of another run does not.
    steps, _ = dock.curves.points("training")
    assert steps == list(range(1, steps[-1] + 1))
    assert listed(dock.training) == run.path
    dock.training.length.set_values(200, None)
    dock.training.run_choice.choose(None)
    # It may start a little later, once the lists of runs are read again.
    with qtbot.waitSignal(dock.training.replaced, timeout=60_000):
        dock.panel.start_button.click()
    assert not dock.curves.points("training")[0]
    for shown in (dock.curves, dock.gauge, dock.preview, dock.layers_button):
        assert not shown.isVisibleTo(dock)
    dock.panel.stop_button.click()
    assert finish(dock.panel) is Outcome.STOPPED


def test_a_run_of_elsewhere_goes_on_with_its_settings(
    dock: PretrainDock, layer: Any, foreign: Path, finish: Finish, qtbot: Any, listed: Any
) -> None:
    dock.training.run_choice.choose(foreign)
    assert listed(dock.training) == foreign
    assert dock.config() == read_config(foreign)
    dock.training.form.set_values({"memory_share": 0.2})
    dock.panel.start_button.click()
    qtbot.waitUntil(lambda: bool(dock.curves.points("training")[0]), timeout=60_000)
    dock.panel.stop_button.click()
    assert finish(dock.panel) is Outcome.STOPPED
    assert read_config(foreign).memory_share == 0.2


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Keep settings of runs from being read, as a slow disk does, until this is set."""
    going = threading.Event()

    def read(run: Path) -> Any:
        assert going.wait(60)
        return read_config(run)

    monkeypatch.setattr(training_form, "read_config", read)
    yield going
    going.set()


def test_settings_are_read_without_keeping_the_window_waiting(
    dock: PretrainDock, foreign: Path, held: threading.Event, qtbot: Any, listed: Any
) -> None:
    choice = dock.training.run_choice
    choice.choose(foreign)
    assert listed(choice) == foreign
    assert dock.training.is_reading
    # What a resumed run cannot change is locked at once; the rest is kept if it is typed now.
    assert not dock.training.form.control("batch").isEnabled()
    dock.training.length.set_values(7, None)
    dock.training.form.set_values({"memory_share": 0.2})
    held.set()
    listed(dock.training)
    stored = read_config(foreign)
    assert dock.config() == stored.model_copy(
        update={"steps": 7, "minutes": None, "memory_share": 0.2}
    )


def test_settings_of_a_run_that_is_no_longer_chosen_are_dropped(
    dock: PretrainDock, foreign: Path, held: threading.Event, qtbot: Any, listed: Any
) -> None:
    dock.training.run_choice.choose(foreign)
    listed(dock.training.run_choice)
    worker = dock.training._reading._worker
    assert worker is not None
    dock.training.run_choice.choose(None)
    held.set()
    # It may have been over before: a worker that is stopped before its thread starts reads nothing.
    qtbot.waitUntil(lambda: worker.wait(0), timeout=60_000)
    assert dock.training.stored is None
    assert dock.training.form.control("batch").isEnabled()
    assert dock.config().batch == 2  # of the fixture; the run has 1
    assert dock.config().steps == 4


def test_a_start_waits_for_the_settings(
    dock: PretrainDock,
    layer: Any,
    foreign: Path,
    held: threading.Event,
    finish: Finish,
    qtbot: Any,
    listed: Any,
) -> None:
    dock.training.run_choice.choose(foreign)
    listed(dock.training.run_choice)
    dock.panel.start_button.click()
    assert not dock.panel.is_running
    held.set()
    qtbot.waitUntil(lambda: bool(dock.curves.points("training")[0]), timeout=60_000)
    dock.panel.stop_button.click()
    assert finish(dock.panel) is Outcome.STOPPED
    assert dock.training.run == foreign


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (shutil.rmtree, "holds no run"),
        (lambda run: (run / "run.json").write_text("{"), "cannot read"),
    ],
)
def test_a_run_that_was_spoilt_meanwhile(
    dock: PretrainDock, foreign: Path, spoil: Callable[[Path], Any], told: str, listed: Any
) -> None:
    dock.training.run_choice.refresh()
    listed(dock.training)
    spoil(foreign)
    dock.training.run_choice.combo.setCurrentIndex(1)  # as the mouse wheel does
    listed(dock.training)
    assert told in texts(dock)
    assert listed(dock.training) is None
    assert dock.training.run_choice.combo.count() == 1
    assert dock.training.form.control("crop").isEnabled()


def test_pause_rests_and_goes_on(
    dock: PretrainDock, layer: Any, finish: Finish, qtbot: Any, note_rest: Any
) -> None:
    dock.training.length.set_values(500, None)
    dock.panel.start_button.click()
    is_resting = note_rest(dock.panel._worker)
    qtbot.waitUntil(lambda: bool(dock.curves.points("training")[0]), timeout=60_000)
    dock.panel.pause_button.click()
    qtbot.waitUntil(is_resting, timeout=60_000)
    QApplication.processEvents()  # brings the step that was being made
    made = len(dock.curves.points("training")[0])
    assert dock.panel.status.text().endswith("(paused)")
    dock.panel.pause_button.click()
    qtbot.waitUntil(lambda: len(dock.curves.points("training")[0]) > made, timeout=60_000)
    assert "paused" not in dock.panel.status.text()
    dock.panel.stop_button.click()
    finish(dock.panel)


def test_a_run_without_a_checkpoint_begins_anew_and_says_so(
    dock: PretrainDock, foreign: Path, listed: Any
) -> None:
    shutil.rmtree(foreign / "checkpoints")
    dock.training.run_choice.choose(foreign)
    assert listed(dock.training) == foreign
    assert dock.panel.start_button.text() == "Begin anew"
    assert "ended before its first checkpoint" in texts(dock)
