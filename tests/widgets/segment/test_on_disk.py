"""Results of the dock that segments which lie on the disk, and are looked at while they grow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_affmae.config import SegmentConfig
from napari_affmae.data import open_source, synthetic_em
from napari_affmae.engine import segment_to_file
from napari_affmae.engine.results.target import probabilities_path
from napari_affmae.engine.results.volume import is_complete
from napari_affmae.widgets.layers.label_layers import classes_of
from napari_affmae.widgets.layers.layer_sources import OWN
from napari_affmae.widgets.layers.view import camera_of
from napari_affmae.widgets.running.run_panel import Outcome
from napari_affmae.widgets.segment import job
from napari_affmae.widgets.segment.correction_bar import CorrectionBar
from napari_affmae.widgets.segment.dock import DISK, SegmentDock
from napari_affmae.widgets.segment.region_choice import EVERYTHING, PLANE


@pytest.fixture
def disk(dock: SegmentDock) -> SegmentDock:
    dock.keep.setCurrentText(DISK)
    dock.region.setCurrentText(EVERYTHING)
    return dock


def folders(runs: Path) -> list[Path]:
    return sorted((runs / "segmentations").iterdir(), key=lambda path: len(path.name))


def read(layer: Any) -> np.ndarray:
    """Read the full resolution of a layer, which may have several."""
    return np.asarray(layer.data[0] if layer.multiscale else layer.data)


def look(viewer: Any) -> int:
    """Return the plane that is shown."""
    return int(viewer.dims.current_step[0])


def messages(dock: SegmentDock) -> str:
    return "\n".join(text for _, text in dock.panel.messages.texts)


def test_a_result_on_disk_is_that_of_the_command_line(
    viewer: Any,
    disk: SegmentDock,
    runs: Path,
    model: Path,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    tmp_path: Path,
    drive: Any,
) -> None:
    viewer.add_image(volume[0], name="em")
    disk.form.set_values({"probabilities": True})
    assert drive.run() is Outcome.FINISHED, drive.errors()
    labels, chances = folders(runs)
    assert str(labels) in messages(disk)
    assert chances == probabilities_path(labels)
    config = SegmentConfig(device="cpu", probabilities=True)
    theirs = tmp_path / "theirs.zarr"
    list(segment_to_file(open_source(volume[0], axes="ZYX"), model, config, theirs))
    for ours, other in ((labels, theirs), (chances, probabilities_path(theirs))):
        found, wanted = (zarr.open_group(folder, mode="r") for folder in (ours, other))
        np.testing.assert_array_equal(found["0"][:], wanted["0"][:])
        assert found.attrs["ome"].keys() == wanted.attrs["ome"].keys()
        assert found["0"].shards == wanted["0"].shards
    layer = drive.result()
    np.testing.assert_array_equal(read(layer), expected)
    assert classes_of(layer) == disk.run_choice.run().classes
    assert not layer.editable
    layers = [layer for layer in viewer.layers if "probability" in layer.name]
    np.testing.assert_allclose(sum(read(layer).astype(int) for layer in layers), 255, atol=2)
    assert all(layer.metadata == OWN for layer in layers)
    assert {tuple(layer.contrast_limits) for layer in layers} == {(0, 255)}
    # They are no input.
    assert [disk.image.combo.itemText(i) for i in range(disk.image.combo.count())] == ["em"]


def test_results_that_are_large_for_memory_lie_on_disk(
    viewer: Any,
    dock: SegmentDock,
    runs: Path,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    drive: Any,
) -> None:
    monkeypatch.setattr(job, "LARGEST", volume[0][0].size - 1)
    viewer.add_image(volume[0][None], name="em: 1/2", scale=(2, 30, 8, 8))
    viewer.dims.set_current_step(1, 2)
    dock.region.setCurrentText(PLANE)
    assert drive.run() is Outcome.FINISHED, drive.errors()
    layer = drive.result()
    assert read(layer).shape == (1, 1, 128, 160)
    np.testing.assert_array_equal(read(layer)[0, 0], expected[2])
    assert tuple(layer.translate) == (0, 60, 0, 0)
    (folder,) = folders(runs)
    assert folder.name.startswith("em- 1-2 ")
    assert is_complete(folder)


def test_a_stopped_segmentation_goes_on_and_a_complete_one_is_shown(
    viewer: Any,
    disk: SegmentDock,
    runs: Path,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    qtbot: Any,
    finish: Any,
    drive: Any,
) -> None:
    viewer.add_image(volume[0], name="em")
    totals: list[int] = []
    written: list[int] = []

    def note(event: Any) -> None:
        if isinstance(event, job.StackProgress):
            totals.append(event.total)
            assert event.planes == 4
            assert event.planes_done <= len(written)
        elif isinstance(event, job.PlanesWritten):
            written.extend(event.planes)

    disk.panel.happened.connect(note)
    drive.start()
    qtbot.waitUntil(lambda: bool(written), timeout=60_000)
    disk.panel.stop_button.click()
    assert finish(disk.panel) is Outcome.STOPPED
    assert "Segment goes on with them" in messages(disk)
    (folder,) = folders(runs)
    assert not is_complete(folder)
    np.testing.assert_array_equal(read(drive.result())[written[0]], expected[written[0]])
    assert not read(drive.result())[-1].any()
    whole = totals[0]
    viewer.layers.remove(drive.result())
    totals.clear()

    assert drive.run() is Outcome.FINISHED, drive.errors()
    assert folders(runs) == [folder]
    assert 0 < max(totals) < whole
    np.testing.assert_array_equal(read(drive.result()), expected)
    viewer.layers.remove(drive.result())
    totals.clear()

    assert drive.run() is Outcome.FINISHED, drive.errors()
    assert not totals
    assert "was segmented before" in messages(disk)
    np.testing.assert_array_equal(read(drive.result()), expected)
    disk.form.set_values({"overlap": 0.5})
    assert drive.run() is Outcome.FINISHED, drive.errors()
    assert totals
    assert len(folders(runs)) == 2


def test_what_is_in_view_comes_first_and_is_drawn_from_afar(
    viewer: Any, disk: SegmentDock, qtbot: Any, finish: Any, drive: Any
) -> None:
    array = synthetic_em((3, 1100, 1100), seed=2)[0]
    viewer.add_image(array, name="em")
    viewer.dims.set_current_step(0, 2)
    drive.draw()
    disk.form.set_values({"tile": 256, "overlap": 0})
    planes: list[int] = []

    def note(event: Any) -> None:
        if isinstance(event, job.PlanesWritten) and len(event.planes) == 1:
            planes.extend(event.planes)

    disk.panel.happened.connect(note)
    drive.start()
    qtbot.waitUntil(lambda: disk.result.labels is not None, timeout=60_000)
    camera_of(viewer).zoom /= 4
    drive.draw()
    layer = drive.result()
    assert layer.multiscale
    assert [array.shape for array in layer.data] == [(3, 1100, 1100), (3, 550, 550)]
    assert layer.data_level == 1
    assert not layer._slice.image.raw.any()
    qtbot.waitUntil(lambda: len(planes) > 1, timeout=60_000)
    assert planes[0] == 2
    qtbot.waitUntil(lambda: bool(layer._slice.image.raw.any()), timeout=60_000)
    assert disk.panel.is_running
    assert finish(disk.panel) is Outcome.FINISHED
    whole = np.asarray(layer.data[0])
    assert all(plane.any() for plane in whole)
    stored = zarr.open_array(disk.result.ready.result.folder / "1", mode="r")
    np.testing.assert_array_equal(layer._slice.image.raw, stored[2])


def test_objects_in_a_result_on_disk(
    viewer: Any,
    disk: SegmentDock,
    runs: Path,
    volume: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    qtbot: Any,
    drive: Any,
    finish: Any,
) -> None:
    viewer.add_image(volume[0], name="em")
    disk.objects.wanted_box.setChecked(True)
    disk.objects.form.set_values({"min_size": 0})
    assert drive.run() is Outcome.FINISHED, drive.errors()
    assert viewer.layers["em: objects"].data.any()
    monkeypatch.setattr("napari_affmae.widgets.segment.result.LARGEST", 1000)
    in_memory, table = viewer.layers["em: objects"], dict(disk.objects.table)
    numbers = np.array(in_memory.data)
    disk.objects.now_button.click()
    assert finish(disk.panel) is Outcome.FINISHED, drive.errors()
    assert in_memory not in viewer.layers
    stored = viewer.layers["em: objects"]
    np.testing.assert_array_equal(read(stored), numbers)
    assert not stored.editable
    for name in ("label", "plane", "row", "column", "size_px", "class"):
        np.testing.assert_array_equal(disk.objects.table[name], table[name])
    (file,) = (runs / "segmentations").glob("*objects*.csv")
    assert str(file) in messages(disk)
    bar = disk.objects.findChild(CorrectionBar)
    for button in (bar.accept_button, bar.cut_button, disk.objects.filter_button):
        assert not button.isEnabled()
        assert "on the disk" in button.toolTip()
    assert "cannot be corrected here" in bar.state.text()
    (others,) = np.nonzero(table["plane"] != look(viewer))
    far = int(others[-1]) + 1
    stored.selected_label = far
    assert look(viewer) == table["plane"][far - 1]
    viewer.reset_view()
    center = tuple(camera_of(viewer).center)
    stored.selected_label = int(table["label"][table["plane"] == look(viewer)][0])
    assert tuple(camera_of(viewer).center) == center  # it was in view
    written = file.stat().st_mtime_ns
    monkeypatch.setattr("napari_affmae.widgets.segment.stored_objects.MOST_ROWS", 1)
    disk.objects.now_button.click()  # they are shown as they were found
    assert finish(disk.panel) is Outcome.FINISHED, drive.errors()
    assert file.stat().st_mtime_ns == written
    assert list(disk.objects.table["label"]) == [1]
    assert "The table here shows the first 1." in messages(disk)
    disk.objects.save(tmp_path / "all.csv")
    qtbot.waitUntil((tmp_path / "all.csv").exists, timeout=10_000)
    assert (tmp_path / "all.csv").read_bytes() == file.read_bytes()
    monkeypatch.undo()
    disk.objects.now_button.click()
    assert finish(disk.panel) is Outcome.FINISHED, drive.errors()
    assert bar.accept_button.isEnabled()
    assert disk.objects.filter_button.isEnabled()
