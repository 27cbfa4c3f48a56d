"""Quick training while painting, through the dock's own controls."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_affmae.engine import events as ev
from napari_affmae.engine import read_metadata
from napari_affmae.engine.quick.training import QuickTraining
from napari_affmae.engine.store.registry import list_runs
from napari_affmae.model.quick import segmenter
from napari_affmae.widgets.finetune.dock import FinetuneDock
from napari_affmae.widgets.finetune.quick_session import QuickSession
from napari_affmae.widgets.layers.layer_sources import layer_geometry
from napari_affmae.widgets.running.run_panel import Outcome
from napari_affmae.widgets.running.worker import RunWorker

Finish = Callable[[Any], Outcome]
MILLISECONDS = 300_000


def test_prediction_follows_strokes_and_is_saved(
    dock: FinetuneDock,
    viewer: Any,
    labels: Any,
    qtbot: Any,
    runs: Path,
    drive: Any,
    listed: Any,
) -> None:
    viewer.dims.set_current_step(0, 2)
    dock.quick.form.control("steps").setValue(5)
    dock.quick.predict_button.setChecked(True)
    assert "Nothing is painted" in dock.quick.status.text()

    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        drive.paint_both(labels, 2)

    prediction = viewer.layers["AFFMAE prediction"]
    assert prediction.data.shape[0] == 1
    assert set(np.unique(prediction.data)) <= {1, 2}
    # It lies on its plane, inside the image.
    world = prediction.extent.world
    assert world[0, 0] == world[1, 0] == 60
    assert (world[:, 1:] >= labels.extent.world[0, 1:]).all()
    assert (world[:, 1:] <= labels.extent.world[1, 1:]).all()
    assert viewer.layers.selection.active is labels
    assert "AFFMAE uncertainty" not in viewer.layers
    dock.uncertainty.setChecked(True)
    uncertainty = viewer.layers["AFFMAE uncertainty"]
    assert uncertainty.visible
    assert not prediction.visible
    np.testing.assert_array_equal(uncertainty.extent.world, world)
    assert viewer.layers.selection.active is labels

    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        viewer.dims.set_current_step(0, 0)
    assert prediction.extent.world[0, 0] == 0
    with qtbot.waitSignal(dock.quick.saved, timeout=MILLISECONDS) as saved:
        dock.quick.save_button.click()

    (run,) = list_runs(runs)
    assert run.path == saved.args[0]
    assert not dock.segment_button.isHidden()
    assert run.problem is None
    assert read_metadata(run.path).classes == dock.annotation.classes()
    assert read_metadata(run.path).training["pretrained"] == "em-nano"
    dock.start_from.choose(run.path)
    assert listed(dock.start_from) == run.path


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What networks were asked for: the pixels of each tile."""
    tiles: list[bytes] = []
    compute = segmenter.cell_features

    def note(*network: Any) -> Any:
        tiles.append(network[-1].numpy().tobytes())
        return compute(*network)

    monkeypatch.setattr(segmenter, "cell_features", note)
    return tiles


def test_prediction_is_seen_and_taken_over_by_the_next_dock(
    viewer: Any, image: Any, qtbot: Any, drive: Any, listed: Any, runs: Path, seen: list[bytes]
) -> None:
    dock = FinetuneDock(viewer)
    network = listed(dock.start_from)
    above = viewer.add_image(image.data, name="above", **layer_geometry(image))
    viewer.dims.set_current_step(0, 0)
    dock.pairs.new_button.click()
    labels = dock.pairs.pairs()[0][1]
    predict(dock, labels, qtbot, drive)
    dock.uncertainty.setChecked(True)
    prediction, uncertainty = (viewer.layers[f"AFFMAE {n}"] for n in ("prediction", "uncertainty"))
    assert list(viewer.layers) == [image, above, prediction, uncertainty, labels]
    dock.quick.switch_off()
    with qtbot.waitSignal(dock.destroyed):
        dock.deleteLater()
    qtbot.waitUntil(lambda: not RunWorker._alive, timeout=MILLISECONDS)
    kept = runs / "features"
    qtbot.waitUntil(
        lambda: len(list(kept.glob("*.features"))) == len(seen) > 0, timeout=MILLISECONDS
    )
    again = FinetuneDock(viewer)
    qtbot.addWidget(again)
    assert listed(again.start_from) == network
    viewer.dims.set_current_step(0, 0)
    predict(again, labels, qtbot, drive)
    assert list(viewer.layers) == [image, above, prediction, uncertainty, labels]
    assert len(set(seen)) == len(seen)  # what is kept on disk is not computed again
    assert not prediction.editable


def test_what_is_copied_stays_apart_and_is_taken_out_again(
    dock: FinetuneDock, viewer: Any, labels: Any, image: Any, qtbot: Any, drive: Any
) -> None:
    viewer.dims.set_current_step(0, 0)
    predict(dock, labels, qtbot, drive)
    prediction = viewer.layers["AFFMAE prediction"]
    before = labels.data.copy()
    assert not dock.copies.learn_box.isVisibleTo(dock)

    # What is copied lies in a layer of its own, from which nothing is learned.
    dock.copies.certainty.setValue(0)
    dock.copies.copy_button.click()
    copied = viewer.layers[f"{labels.name}: copied prediction"]
    assert viewer.layers.selection.active is labels
    (rows, columns) = (slice(a, b) for a, b in place(prediction, image))
    part, was = copied.data[0, rows, columns], before[0, rows, columns]
    np.testing.assert_array_equal(part, np.where(was == 0, prediction.data[0], 0))
    assert not copied.data[1:].any()
    np.testing.assert_array_equal(labels.data, before)

    # One box makes it labels, and takes it out again; what was painted meanwhile stays.
    dock.copies.learn_box.setChecked(True)
    np.testing.assert_array_equal(labels.data, np.where(before == 0, copied.data, before))
    other = 3 - int(labels.data[0, 64, 80])
    drive.paint(labels, other, (0, 64, 80))
    strokes = np.where(labels.data == copied.data, before, labels.data)
    dock.copies.learn_box.setChecked(False)
    np.testing.assert_array_equal(labels.data, strokes)
    assert labels.data[0, 64, 80] == other
    labels.undo()
    labels.undo()
    dock.copies.discard_button.click()
    assert copied not in viewer.layers
    labels.data[:] = before
    labels.refresh()

    # Where it is not sure, nothing is copied.
    dock.copies.certainty.setValue(100)
    dock.copies.copy_button.click()
    unsure = viewer.layers[f"{labels.name}: copied prediction"]
    assert (unsure.data > 0).sum() < (part > 0).sum()
    dock.copies.discard_button.click()
    dock.quick.switch_off()
    viewer.dims.set_current_step(0, 2)
    dock.copies.copy_button.click()
    assert unsure not in viewer.layers
    assert not any("copied" in layer.name for layer in viewer.layers)
    assert "no prediction" in drive.errors(dock.quick.messages)


def test_the_model_just_saved_segments_the_stack_in_one_click(
    dock: FinetuneDock,
    viewer: Any,
    labels: Any,
    model: Path,
    qtbot: Any,
    drive: Any,
    finish: Finish,
) -> None:
    predict(dock, labels, qtbot, drive)
    assert dock.segment_button.isHidden()
    with qtbot.waitSignal(dock.quick.saved, timeout=MILLISECONDS) as saved:
        dock.quick.save_button.click()
    dock.segment_button.click()
    _, segmenting = viewer.window.add_plugin_dock_widget("napari-affmae", "3. Segment")
    assert finish(segmenting.panel) is Outcome.FINISHED
    assert segmenting.run_choice.path() == saved.args[0] != model
    assert viewer.layers["em: classes"].data.shape == viewer.layers["em"].data.shape
    assert not dock.quick.predict_button.isChecked()


def predict(dock: FinetuneDock, labels: Labels, qtbot: Any, drive: Any) -> None:
    dock.quick.form.control("steps").setValue(5)
    drive.paint_both(labels, 0)
    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        dock.quick.predict_button.setChecked(True)
    qtbot.waitUntil(lambda: not dock.quick.is_busy, timeout=MILLISECONDS)


def place(part: Any, whole: Any) -> Any:
    """First and last row and column of a part, in pixels of the whole."""
    first = np.round(whole.world_to_data(part.data_to_world((0, 0, 0)))).astype(int)[1:]
    return zip(first, first + part.data.shape[1:], strict=True)


def test_prediction_follows_to_the_pair_that_is_looked_at(
    dock: FinetuneDock, viewer: Any, image: Any, labels: Any, qtbot: Any, drive: Any
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
    drive.paint_both(labels, 0)
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
    dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, move: str, drive: Any
) -> None:
    drive.paint_both(labels, 0)
    dock.quick.predict_button.setChecked(True)
    assert dock.quick._job.is_running
    if move == "step":
        viewer.dims.set_current_step(0, 2)
    else:
        viewer.dims.order = (1, 0, 2)
    assert not dock.quick._job.is_running
    assert dock.quick.is_busy
    dock.quick.switch_off()


def test_a_stopped_job_does_not_wait_for_its_turn(qtbot: Any) -> None:
    session = QuickSession()
    with session._lock:
        worker = RunWorker(lambda: session.save(Path("model"), ()))
        worker.start()
        worker.quit()
        assert worker.wait(10)


def test_renaming_a_class_learns_nothing_anew(
    dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, runs: Path, drive: Any, naming: Any
) -> None:
    dock.quick.form.control("steps").setValue(5)
    drive.paint_both(labels, 0)
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
    assert naming
    assert threading.main_thread() not in naming
    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        drive.paint(labels, 1, (0, 30, 90))
    assert dock.quick._session._training is training


def test_of_a_large_view_the_middle_is_predicted_and_said_so(viewer: Any, qtbot: Any) -> None:
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
    dock: FinetuneDock, labels: Any, qtbot: Any, drive: Any
) -> None:
    dock.quick.form.control("steps").setValue(5)
    dock.quick.predict_button.setChecked(True)
    drive.paint(labels, 1, (0, 20, 20))
    qtbot.waitUntil(
        lambda: "only 'background' is painted" in dock.quick.status.text(),
        timeout=MILLISECONDS,
    )
    assert "'Unpainted: background'" in dock.quick.status.text()
    assert not drive.errors(dock.quick.messages)
    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        drive.paint(labels, 2, (0, 60, 60))
    assert not drive.errors(dock.quick.messages)


def test_labels_that_a_script_wrote_are_found(
    dock: FinetuneDock, labels: Any, qtbot: Any, finish: Finish, drive: Any
) -> None:
    qtbot.waitUntil(lambda: not dock.annotation.painted(labels).is_looking)
    for plane in (0, 3):
        for value in (1, 2):
            labels.data[plane, 40 * value : 40 * value + 20, 20:60] = value
    drive.shorten(dock, 1)
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FINISHED
    assert not dock.annotation.painted(labels).counts

    dock.quick_button.setChecked(True)
    dock.quick.form.control("steps").setValue(5)
    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        dock.quick.predict_button.setChecked(True)
    assert dock.annotation.painted(labels).counts == {1: 1600, 2: 1600}


def test_layer_deleted_while_it_predicts(
    dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, drive: Any
) -> None:
    dock.quick.form.control("steps").setValue(5)
    drive.paint_both(labels, 0)
    dock.quick.predict_button.setChecked(True)
    viewer.layers.clear()
    qtbot.waitUntil(lambda: not dock.quick.is_busy, timeout=MILLISECONDS)
    assert "no image" in dock.quick.status.text()
    assert not viewer.layers


def test_error_in_the_engine(
    dock: FinetuneDock, labels: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, drive: Any
) -> None:
    def fail(*_: Any) -> Iterator[ev.Event]:
        raise RuntimeError("CUDA error: something broke")

    dock.quick.form.control("steps").setValue(5)
    with monkeypatch.context() as patch:
        patch.setattr(QuickTraining, "update", fail)
        drive.paint_both(labels, 0)
        dock.quick.predict_button.setChecked(True)
        qtbot.waitUntil(
            lambda: "something broke" in drive.errors(dock.quick.messages), timeout=MILLISECONDS
        )
    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        drive.paint(labels, 2, (0, 100, 20))
