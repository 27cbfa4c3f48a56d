"""Painting and training in the dock, through its own controls."""

import shlex
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari._app_model import get_app_model
from napari.layers import Labels

from napari_affmae import engine
from napari_affmae.config import PretrainConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine import events as ev
from napari_affmae.engine import read_metadata
from napari_affmae.engine.quick import QuickTraining
from napari_affmae.engine.registry import list_runs
from napari_affmae.engine.run_folder import RunFolder
from napari_affmae.errors import DiskFullError
from napari_affmae.widgets.commands import CommandDialog
from napari_affmae.widgets.finetune import FinetuneDock
from napari_affmae.widgets.layer_sources import layer_geometry
from napari_affmae.widgets.quick_session import QuickSession
from napari_affmae.widgets.run_panel import Outcome
from napari_affmae.widgets.worker import RunWorker

Finish = Callable[[Any], Outcome]
MILLISECONDS = 300_000


def paint(layer: Labels, value: int, *places: tuple[int, int, int]) -> None:
    for place in places:
        layer.paint(place, value)


def paint_both(layer: Labels, plane: int) -> None:
    paint(layer, 1, (plane, 20, 20), (plane, 60, 40))
    paint(layer, 2, (plane, 40, 60), (plane, 90, 100))


def errors(messages: Any) -> str:
    return "\n".join(text for level, text in messages.texts if level == "error")


def make_pretrained(runs: Path) -> Path:
    """Pretrain a tiny network for a step."""
    config = PretrainConfig(crop=64, batch=1, steps=1, device="cpu", workers=1)
    source = open_source(synthetic_em((1, 64, 64), seed=0)[0], axes="ZYX", name="em")
    for _ in engine.pretrain([source], config, runs / "pretrained"):
        pass
    return runs / "pretrained"


def make_short(dock: FinetuneDock, steps: int) -> None:
    dock.full_button.setChecked(True)
    form = dock.full.training.form
    for name, value in {"crop": 64, "batch": 1, "workers": 1, "validation_steps": 2}.items():
        form.control(name).setValue(value)
    dock.full.training.length.set_values(steps, None)


class TestQuick:
    def test_prediction_follows_strokes_and_is_saved(
        self, dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, runs: Path
    ) -> None:
        viewer.dims.set_current_step(0, 2)
        dock.quick.form.control("steps").setValue(5)
        dock.quick.predict_button.setChecked(True)
        assert "Nothing is painted" in dock.quick.status.text()

        with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
            paint_both(labels, 2)

        prediction = viewer.layers["AFFMAE prediction"]
        assert prediction.data.shape[0] == 1
        assert set(np.unique(prediction.data)) <= {1, 2}
        # It lies on its plane, inside the image.
        world = prediction.extent.world
        assert world[0, 0] == world[1, 0] == 60
        assert (world[:, 1:] >= labels.extent.world[0, 1:]).all()
        assert (world[:, 1:] <= labels.extent.world[1, 1:]).all()
        assert viewer.layers.selection.active is labels
        assert not viewer.layers["AFFMAE uncertainty"].visible
        dock.uncertainty.setChecked(True)
        assert viewer.layers["AFFMAE uncertainty"].visible

        with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
            viewer.dims.set_current_step(0, 0)
        assert prediction.extent.world[0, 0] == 0
        with qtbot.waitSignal(dock.quick.saved, timeout=MILLISECONDS) as saved:
            dock.quick.save_button.click()

        (run,) = list_runs(runs)
        assert run.path == saved.args[0]
        assert run.problem is None
        assert read_metadata(run.path).classes == dock.annotation.classes()
        dock.start_from.choose(run.path)
        assert dock.start_from.path() == run.path

    def test_prediction_is_seen_and_copied_and_taken_over_by_the_next_dock(
        self, viewer: Any, image: Any, qtbot: Any
    ) -> None:
        dock = FinetuneDock(viewer)
        above = viewer.add_image(image.data, name="above", **layer_geometry(image))
        viewer.dims.set_current_step(0, 0)
        dock.pairs.new_button.click()
        labels = dock.pairs.pairs()[0][1]
        dock.copy_button.click()
        assert "no prediction" in errors(dock.quick.messages)
        self.predict(dock, labels, qtbot)
        prediction, uncertainty = (
            viewer.layers[f"AFFMAE {n}"] for n in ("prediction", "uncertainty")
        )
        assert list(viewer.layers) == [image, above, prediction, uncertainty, labels]
        before = labels.data.copy()

        dock.copy_button.click()

        (rows, columns) = (slice(a, b) for a, b in self.place(prediction, image))
        part, was = labels.data[0, rows, columns], before[0, rows, columns]
        np.testing.assert_array_equal(part, np.where(was == 0, prediction.data[0], was))
        assert not labels.data[1:].any()
        labels.undo()
        np.testing.assert_array_equal(labels.data, before)
        dock.quick.switch_off()
        viewer.dims.set_current_step(0, 2)
        dock.copy_button.click()
        np.testing.assert_array_equal(labels.data, before)

        with qtbot.waitSignal(dock.destroyed):
            dock.deleteLater()
        again = FinetuneDock(viewer)
        qtbot.addWidget(again)
        viewer.dims.set_current_step(0, 0)
        self.predict(again, labels, qtbot)
        assert list(viewer.layers) == [image, above, prediction, uncertainty, labels]
        assert not prediction.editable

    def predict(self, dock: FinetuneDock, labels: Labels, qtbot: Any) -> None:
        dock.quick.form.control("steps").setValue(5)
        paint_both(labels, 0)
        with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
            dock.quick.predict_button.setChecked(True)
        qtbot.waitUntil(lambda: not dock.quick.is_busy, timeout=MILLISECONDS)

    def place(self, part: Any, whole: Any) -> Any:
        """First and last row and column of a part, in pixels of the whole."""
        first = np.round(whole.world_to_data(part.data_to_world((0, 0, 0)))).astype(int)[1:]
        return zip(first, first + part.data.shape[1:], strict=True)

    def test_prediction_follows_to_the_pair_that_is_looked_at(
        self, dock: FinetuneDock, viewer: Any, image: Any, labels: Any, qtbot: Any
    ) -> None:
        aside = np.eye(4)
        aside[2, 3] = 500
        other = viewer.add_image(
            image.data, name="other", scale=image.scale, units=image.units, affine=aside
        )
        dock.pairs.add_button.click()
        dock.pairs.new_button.click()
        viewer.reset_view()
        viewer.window._qt_viewer.canvas.on_draw(None)
        paint_both(labels, 0)
        dock.quick.form.control("steps").setValue(5)
        viewer.layers.selection.active = labels
        with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
            dock.quick.predict_button.setChecked(True)
        prediction = viewer.layers["AFFMAE prediction"]
        assert viewer.layers.index(prediction) < viewer.layers.index(labels)
        qtbot.waitUntil(lambda: not dock.quick.is_busy, timeout=MILLISECONDS)

        with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
            viewer.layers.selection.active = other

        np.testing.assert_array_equal(prediction.affine.affine_matrix, aside)
        assert viewer.layers.index(prediction) > viewer.layers.index(other)
        qtbot.waitUntil(lambda: not dock.quick.is_busy, timeout=MILLISECONDS)
        viewer.layers.selection.active = prediction
        assert not dock.quick.is_busy
        with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
            other.visible = False
        np.testing.assert_array_equal(prediction.affine.affine_matrix, np.eye(4))

    @pytest.mark.parametrize("move", ["step", "order"])
    def test_moving_the_view_stops_what_is_predicted_of_another(
        self, dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, move: str
    ) -> None:
        paint_both(labels, 0)
        dock.quick.predict_button.setChecked(True)
        assert dock.quick._errand.is_running
        if move == "step":
            viewer.dims.set_current_step(0, 2)
        else:
            viewer.dims.order = (1, 0, 2)
        assert not dock.quick._errand.is_running
        assert dock.quick.is_busy
        dock.quick.switch_off()

    def test_a_stopped_job_does_not_wait_for_its_turn(self, qtbot: Any) -> None:
        session = QuickSession()
        with session._lock:
            worker = RunWorker(lambda: session.save(Path("model"), ()))
            worker.start()
            worker.quit()
            assert worker.wait(10)

    def test_renaming_a_class_learns_nothing_anew(
        self, dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, runs: Path
    ) -> None:
        dock.quick.form.control("steps").setValue(5)
        paint_both(labels, 0)
        with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
            dock.quick.predict_button.setChecked(True)
        qtbot.waitUntil(lambda: not dock.quick.is_busy)
        training = dock.quick._session._training

        dock.classes.table.item(1, 1).setText("gap")

        assert not dock.quick.is_busy
        assert "gap" in list(viewer.layers["AFFMAE prediction"].features["class"])
        with qtbot.waitSignal(dock.quick.saved, timeout=MILLISECONDS) as saved:
            dock.quick.save_button.click()
        assert read_metadata(saved.args[0]).classes[1].name == "gap"
        with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
            paint(labels, 1, (0, 30, 90))
        assert dock.quick._session._training is training

    def test_of_a_large_view_the_middle_is_predicted_and_said_so(
        self, viewer: Any, qtbot: Any
    ) -> None:
        large = np.random.default_rng(0).integers(0, 255, (1200, 64), np.uint8)
        viewer.add_image(large, name="large")
        dock = FinetuneDock(viewer)
        qtbot.addWidget(dock)
        dock.pairs.new_button.click()
        labels = dock.pairs.pairs()[0][1]
        viewer.window._qt_viewer.canvas.on_draw(None)
        dock.quick.form.control("steps").setValue(5)
        labels.paint((600, 20), 1)
        labels.paint((620, 40), 2)
        with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
            dock.quick.predict_button.setChecked(True)
        assert viewer.layers["AFFMAE prediction"].data.shape == (1024, 64)
        assert "its middle 1024 x 1024 pixels" in dock.quick.status.text()

    def test_one_class_alone_and_then_another(
        self, dock: FinetuneDock, labels: Any, qtbot: Any
    ) -> None:
        dock.quick.form.control("steps").setValue(5)
        dock.quick.predict_button.setChecked(True)
        paint(labels, 1, (0, 20, 20))
        qtbot.waitUntil(
            lambda: "only 'background' is painted" in dock.quick.status.text(),
            timeout=MILLISECONDS,
        )
        assert "'Unpainted: background'" in dock.quick.status.text()
        assert not errors(dock.quick.messages)
        with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
            paint(labels, 2, (0, 60, 60))
        assert not errors(dock.quick.messages)

    def test_labels_that_a_script_wrote_are_found(
        self, dock: FinetuneDock, labels: Any, qtbot: Any, finish: Finish
    ) -> None:
        qtbot.waitUntil(lambda: not dock.annotation.painted(labels).is_looking)
        for plane in (0, 3):
            for value in (1, 2):
                labels.data[plane, 40 * value : 40 * value + 20, 20:60] = value
        make_short(dock, 1)
        dock.panel.start_button.click()
        assert finish(dock.panel) is Outcome.FINISHED
        assert not dock.annotation.painted(labels).counts

        dock.quick_button.setChecked(True)
        dock.quick.form.control("steps").setValue(5)
        with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
            dock.quick.predict_button.setChecked(True)
        assert dock.annotation.painted(labels).counts == {1: 1600, 2: 1600}

    def test_layer_deleted_while_it_predicts(
        self, dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any
    ) -> None:
        dock.quick.form.control("steps").setValue(5)
        paint_both(labels, 0)
        dock.quick.predict_button.setChecked(True)
        viewer.layers.clear()
        qtbot.waitUntil(lambda: not dock.quick.is_busy, timeout=MILLISECONDS)
        assert "no image" in dock.quick.status.text()
        assert not viewer.layers

    def test_error_in_the_engine(
        self, dock: FinetuneDock, labels: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> Iterator[ev.Event]:
            raise RuntimeError("CUDA error: something broke")

        dock.quick.form.control("steps").setValue(5)
        with monkeypatch.context() as patch:
            patch.setattr(QuickTraining, "update", fail)
            paint_both(labels, 0)
            dock.quick.predict_button.setChecked(True)
            qtbot.waitUntil(
                lambda: "something broke" in errors(dock.quick.messages), timeout=MILLISECONDS
            )
        with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
            paint(labels, 2, (0, 100, 20))


class TestFull:
    def test_paint_train_stop_paint_more_resume(
        self, dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, finish: Finish, runs: Path
    ) -> None:
        for plane in (0, 3):
            paint_both(labels, plane)
        make_short(dock, 1000)
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
        assert dock.full.training.run_choice.path() == run.path
        assert dock.panel.start_button.text() == "Resume"
        assert not dock.start_from.isEnabled()

        dock.classes.add_button.click()
        dock.panel.start_button.click()
        assert "knows the classes background, structure" in errors(dock.panel.messages)
        dock.classes.remove_button.click()
        paint(labels, 2, (1, 64, 64))
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
        assert not errors(dock.panel.messages)
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
        assert not dock.full.losses.points("training")[0]
        assert not dock.full.scores.points("background")[0]
        dock.panel.stop()
        assert finish(dock.panel) is Outcome.STOPPED

    def test_run_to_the_end_starts_the_next_anew(
        self, dock: FinetuneDock, labels: Any, finish: Finish, runs: Path
    ) -> None:
        for plane in (0, 3):
            paint_both(labels, plane)
        make_short(dock, 2)
        dock.panel.start_button.click()
        assert finish(dock.panel) is Outcome.FINISHED
        (run,) = list_runs(runs)
        assert run.finished
        assert run.classes == dock.annotation.classes()
        assert dock.full.training.run_choice.path() is None

    @pytest.mark.parametrize(
        ("painted", "message"), [((), "nothing is painted"), ((1,), "only 'background'")]
    )
    def test_too_few_strokes(
        self, dock: FinetuneDock, labels: Any, finish: Finish, painted: Any, message: str
    ) -> None:
        make_short(dock, 2)
        for value in painted:
            paint(labels, value, (0, 20, 20))
        dock.panel.start_button.click()
        assert finish(dock.panel) is Outcome.FAILED
        assert message in errors(dock.panel.messages)
        assert dock.panel.start_button.isEnabled()

    def test_random_weights_beside_pretrained_runs_are_told(
        self, dock: FinetuneDock, labels: Any, runs: Path
    ) -> None:
        make_pretrained(runs)
        make_short(dock, 2)
        dock.start_from.refresh()
        dock.start_from.choose(None)
        dock.panel.start_button.click()
        assert "There are pretrained runs" in dock.panel.messages.texts[0][1]
        dock.panel.stop_and_wait()

    def test_labels_of_another_shape(self, dock: FinetuneDock, viewer: Any) -> None:
        other = viewer.add_labels(np.zeros((4, 64, 64), np.uint8), name="other")
        make_short(dock, 2)
        combo = dock.pairs.table.cellWidget(0, 1)
        combo.setCurrentIndex(combo.findText(other.name))
        dock.panel.start_button.click()
        assert "do not have the shape" in errors(dock.panel.messages)
        assert not dock.panel.is_running

    def test_model_for_other_channels(
        self, dock: FinetuneDock, viewer: Any, image: Any, labels: Any, finish: Finish, runs: Path
    ) -> None:
        for plane in (0, 3):
            paint_both(labels, plane)
        make_short(dock, 1)
        dock.panel.start_button.click()
        assert finish(dock.panel) is Outcome.FINISHED
        (grey,) = list_runs(runs)
        colour = viewer.add_image(np.stack([image.data] * 3, -1), name="colour", rgb=True)
        dock.start_from.choose(grey.path)
        combo = dock.pairs.table.cellWidget(0, 0)
        combo.setCurrentIndex(combo.findText(colour.name))
        labels_combo = dock.pairs.table.cellWidget(0, 1)
        labels_combo.setCurrentIndex(labels_combo.findText(labels.name))

        dock.panel.start_button.click()

        assert finish(dock.panel) is Outcome.FAILED
        assert "choose channels" in errors(dock.panel.messages)

        dock.pairs.channels.edit.setText("0")
        dock.pairs.channels.edit.editingFinished.emit()
        dock.full.training.run_choice.choose(None)
        dock.panel.start_button.click()
        assert finish(dock.panel) is Outcome.FINISHED
        source = dock.annotation.image(colour)
        assert source.n_channels == 1
        assert dock.annotation.image(colour) is source

    def test_layer_deleted_during_the_run(
        self, dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, finish: Finish
    ) -> None:
        for plane in (0, 3):
            paint_both(labels, plane)
        make_short(dock, 4)
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
        self,
        dock: FinetuneDock,
        labels: Any,
        finish: Finish,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
    ) -> None:
        def fail(*_: Any) -> Path:
            raise error

        for plane in (0, 3):
            paint_both(labels, plane)
        make_short(dock, 2)
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "save", fail)
            dock.panel.start_button.click()
            assert finish(dock.panel) is Outcome.FAILED
        assert str(error) in errors(dock.panel.messages)
        dock.full.training.run_choice.choose(None)
        dock.panel.start_button.click()
        assert finish(dock.panel) is Outcome.FINISHED


def test_a_plan_is_measured_once_full_training_is_looked_at(
    viewer: Any, labels: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(*_: Any, classes: int, **__: Any) -> Iterator[ev.Event]:
        measured.append(classes)
        yield from ()

    monkeypatch.setattr(engine, "measure_plan", measure)
    dock = FinetuneDock(viewer)
    qtbot.addWidget(dock)
    dock.show()
    qtbot.wait(1500)
    assert not measured
    dock.full_button.setChecked(True)
    qtbot.waitUntil(lambda: measured == [len(dock.annotation.classes())], timeout=10_000)


def test_command_line(
    dock: FinetuneDock, labels: Any, model: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(CommandDialog, "exec", lambda self: shown.append(self.text.toPlainText()))
    make_short(dock, 2)
    dock.start_from.choose(model)
    dock.command_button.click()
    words = shlex.split(shown[0])
    assert words[:4] == ["napari-affmae", "finetune", "em.tif", "em labels.tif"]
    classes = [f"{item.value}={item.name}={item.color}" for item in dock.annotation.classes()]
    assert [words[at + 1] for at, word in enumerate(words) if word == "--class"] == classes
    options = dict(pairwise(words))
    assert (options["--crop"], options["--steps"]) == ("64", "2")
    assert options["--pretrained"] == str(model)
    assert Path(options["--out"]).parent == runs


def test_settings_are_remembered(
    dock: FinetuneDock, labels: Any, viewer: Any, finish: Finish, qtbot: Any
) -> None:
    make_short(dock, 2)
    paint(labels, 1, (0, 20, 20))
    dock.panel.start_button.click()
    finish(dock.panel)
    again = FinetuneDock(viewer)
    qtbot.addWidget(again)
    assert again.full_button.isChecked()
    assert again.full.training.form.control("crop").value() == 64
    assert again.full.training.length.values() == {"steps": 2, "minutes": None}


def test_menu_makes_labels_and_opens_the_dock(
    make_napari_viewer: Callable[..., Any], volume: tuple[np.ndarray, np.ndarray]
) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(volume[0], name="em")
    get_app_model().commands.execute_command("napari-affmae.annotate_layer").result()
    assert viewer.layers.selection.active.name == "em labels"
    (dock,) = viewer.window.dock_widgets.values()
    assert [labels.name for _, labels in dock.pairs.pairs()] == ["em labels"]


def test_closed_dock_hears_no_more(viewer: Any, image: Any, qtbot: Any) -> None:
    layers, dims = viewer.layers.events, viewer.dims.events
    emitters = (layers.inserted, layers.removed, layers.renamed, dims.current_step)
    before = [len(emitter.callbacks) for emitter in emitters]
    dock = FinetuneDock(viewer)
    dock.pairs.new_button.click()
    labels = dock.pairs.pairs()[0][1]
    with qtbot.waitSignal(dock.destroyed):
        dock.deleteLater()
    assert [len(emitter.callbacks) for emitter in emitters] == before
    labels.paint((0, 20, 20), 1)
    labels.selected_label = 2
    labels.name = "renamed"
    viewer.add_image(image.data)
    viewer.dims.set_current_step(0, 1)
    viewer.layers.clear()
