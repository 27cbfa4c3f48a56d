"""Runs of the dock that segments: errors, changes meanwhile, stopping, closing."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_affmae import files
from napari_affmae.config import ObjectsConfig, SegmentConfig
from napari_affmae.widgets.running.run_panel import Outcome
from napari_affmae.widgets.segment import job
from napari_affmae.widgets.segment.dock import DISK, SegmentDock
from napari_affmae.widgets.segment.region_choice import EVERYTHING, PLANE, VIEW


def test_an_unreadable_file(dock: SegmentDock, tmp_path: Path, drive: Any) -> None:
    path = tmp_path / "broken.tif"
    path.write_bytes(b"II*\0 nothing")
    dock.image.choose_path(path)
    assert drive.run() is Outcome.FAILED
    assert "broken.tif" in drive.errors()[0]
    assert dock.panel.start_button.isEnabled()


def test_a_model_that_is_deleted_meanwhile(
    viewer: Any,
    dock: SegmentDock,
    model: Path,
    volume: tuple[np.ndarray, np.ndarray],
    drive: Any,
    listed: Any,
) -> None:
    viewer.add_image(volume[0], name="em")
    shutil.rmtree(model)
    assert drive.run() is Outcome.FAILED
    assert "tiny" in drive.errors()[0]
    assert listed(dock.run_choice) is None
    drive.start()
    assert "No model is chosen" in drive.errors()[-1]


def test_nothing_to_segment(dock: SegmentDock, drive: Any) -> None:
    drive.start()
    assert "No image is chosen" in drive.errors()[0]
    assert not dock.panel.is_running


def test_errors_of_every_kind_end_the_run(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    drive: Any,
) -> None:
    viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(EVERYTHING)

    def write(*_: Any) -> None:
        raise RuntimeError("bad luck")

    with monkeypatch.context() as patch:
        patch.setattr(job.Result, "write", write)
        assert drive.run() is Outcome.FAILED
    assert "bad luck" in drive.errors()[0]
    assert drive.run() is Outcome.FINISHED


def test_a_full_disk_is_told(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    drive: Any,
) -> None:
    viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(EVERYTHING)
    dock.keep.setCurrentText(DISK)

    write_bytes = files.write_bytes

    def write(path: Path, *parts: bytes) -> None:
        if "c" in path.parts:  # zarr's folder of chunks
            raise OSError(errno.ENOSPC, "no space left on device")
        write_bytes(path, *parts)

    monkeypatch.setattr(files, "write_bytes", write)
    assert drive.run() is Outcome.FAILED
    (error,) = drive.errors()
    assert "no space left on device" in error
    assert "are free" in error
    assert "segmentations" in error


def test_layers_change_during_a_run(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    slow: Callable[[], None],
    finish: Any,
    drive: Any,
) -> None:
    viewer.add_image(np.zeros((8, 8)), name="other")
    image = viewer.add_image(volume[0], name="em")
    dock.choose_layer(image)
    dock.region.setCurrentText(EVERYTHING)
    slow()
    image.name = "renamed"
    assert dock.image.combo.currentText() == "renamed"
    viewer.layers.move(0, 2)
    viewer.layers.remove(image)
    viewer.add_points(np.zeros((1, 3)))
    dock.panel.pause_button.setChecked(False)
    assert finish(dock.panel) is Outcome.FINISHED
    np.testing.assert_array_equal(drive.result().data, expected)


def test_removing_the_result_stops_the_run(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    slow: Callable[[], None],
    finish: Any,
    drive: Any,
) -> None:
    viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(EVERYTHING)
    slow()
    viewer.layers.remove(drive.result())
    assert finish(dock.panel) is Outcome.STOPPED
    assert any("was removed" in text for _, text in dock.panel.messages.texts)
    assert dock.panel.start_button.isEnabled()


def test_stopping_keeps_what_is_done(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    qtbot: Any,
    finish: Any,
    drive: Any,
) -> None:
    viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(EVERYTHING)
    seen: list[Any] = []
    dock.panel.happened.connect(seen.append)
    drive.start()
    qtbot.waitUntil(
        lambda: any(isinstance(event, job.PlanesWritten) for event in seen), timeout=60_000
    )
    dock.panel.stop_button.click()
    assert finish(dock.panel) is Outcome.STOPPED
    labels = drive.result().data
    np.testing.assert_array_equal(labels[0, :48], expected[0, :48])
    assert not labels[-1].any()
    assert any("not reached" in text for _, text in dock.panel.messages.texts)


def test_rows_are_drawn_as_they_come(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    finish: Any,
    qtbot: Any,
    drive: Any,
) -> None:
    viewer.add_image(volume[0], name="em")
    viewer.dims.set_current_step(0, 0)
    dock.region.setCurrentText(EVERYTHING)

    drawn: list[np.ndarray] = []

    def note(event: Any) -> None:
        drawn.append(event.source._slice.image.raw.copy())

    def hold(event: Any) -> None:
        if isinstance(event, job.PlanesWritten) and not dock.panel.pause_button.isChecked():
            dock.panel.pause_button.setChecked(True)
            drive.result().events.set_data.connect(note)

    dock.panel.happened.connect(hold)
    drive.start()
    qtbot.waitUntil(lambda: bool(drawn), timeout=20_000)
    assert dock.panel.is_running
    np.testing.assert_array_equal(drawn[0][:48], expected[0, :48])
    dock.panel.happened.disconnect(hold)
    dock.panel.pause_button.setChecked(False)
    finish(dock.panel)
    np.testing.assert_array_equal(drive.result()._slice.image.raw, expected[0])


def test_two_viewers_do_not_mix(
    make_napari_viewer: Callable[..., Any],
    dock: SegmentDock,
    viewer: Any,
    volume: tuple[np.ndarray, np.ndarray],
    drive: Any,
) -> None:
    other = make_napari_viewer()
    other.add_image(volume[0], name="elsewhere")
    assert dock.image.combo.count() == 0
    viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(PLANE)
    assert drive.run() is Outcome.FINISHED
    assert [layer.name for layer in other.layers] == ["elsewhere"]
    assert len(viewer.layers) == 2


def test_what_was_chosen_for_one_run_does_not_come_back(
    viewer: Any,
    dock: SegmentDock,
    model: Path,
    volume: tuple[np.ndarray, np.ndarray],
    qtbot: Any,
    drive: Any,
    listed: Any,
) -> None:
    viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(PLANE)
    dock.form.set_values({"tile": 96, "probabilities": True, "precision": "fp32"})
    dock.objects.form.set_values({"min_size": 7})
    drive.run()
    other = SegmentDock(viewer)
    qtbot.addWidget(other)
    assert other.region.currentText() == VIEW
    assert other.form.build() == SegmentConfig(device="cpu", precision="fp32")
    assert other.objects.form.build() == ObjectsConfig()
    # The model learned from an image of this name.
    assert listed(other.run_choice) == model


def test_a_closed_dock_hears_nothing_more(
    viewer: Any, volume: tuple[np.ndarray, np.ndarray], qtbot: Any
) -> None:
    events = viewer.layers.events
    emitters = (events.inserted, events.removed, events.renamed)
    before = [len(emitter.callbacks) for emitter in emitters]
    holder, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "3. Segment")
    gone: list[bool] = []
    # Not by `waitSignal`: it disconnects what is gone, which PySide does not allow.
    dock.destroyed.connect(lambda: gone.append(True))
    holder.destroyOnClose()
    qtbot.waitUntil(lambda: bool(gone))
    assert [len(emitter.callbacks) for emitter in emitters] == before
    layer = viewer.add_image(volume[0], name="em")
    layer.name = "renamed"
    viewer.layers.remove(layer)
