"""Objects that are found in what was segmented, their table and their outlines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from napari_affmae.data import default_classes
from napari_affmae.widgets.layers.view import camera_of
from napari_affmae.widgets.running.run_panel import Outcome
from napari_affmae.widgets.segment.dock import SegmentDock
from napari_affmae.widgets.segment.region_choice import EVERYTHING, PLANE, VIEW


def test_objects_and_their_table(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    finish: Any,
    drive: Any,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = viewer.add_image(volume[0], name="em", scale=(8, 8, 8), units=("nm",) * 3)
    dock.region.setCurrentText(EVERYTHING)
    dock.objects.wanted_box.setChecked(True)
    for row in range(dock.objects.classes.count()):
        dock.objects.classes.item(row).setCheckState(Qt.CheckState.Checked)
    dock.objects.form.set_values({"three_d": True, "min_size": 20})
    assert drive.run() is Outcome.FINISHED, drive.errors()
    layer = viewer.layers["em: objects"]
    count = int(layer.data.max())
    assert count > 0
    np.testing.assert_array_equal(np.unique(layer.data[layer.data > 0]), np.arange(1, count + 1))
    sizes = np.bincount(layer.data.ravel())[1:]
    measures = layer.features.iloc[1:]
    np.testing.assert_array_equal(measures["size_px"], sizes)
    np.testing.assert_allclose(measures["volume_um3"], sizes * 512e-9)
    names = {item.name for item in dock.run_choice.run().classes}
    assert set(measures["class"]) <= names
    for number in (1, count):
        grey = volume[0][layer.data == number].astype(float)
        np.testing.assert_allclose(measures["mean_grey"][number], grey.mean())
    assert tuple(layer.scale) == tuple(image.scale)
    told: list[str] = []
    monkeypatch.setattr(QMessageBox, "warning", lambda *words: told.append(words[-1]))
    (tmp_path / "file").touch()
    for name in ("file/table.csv", "table.csv"):
        dock.objects.save(tmp_path / name)
        assert not dock.objects.save_button.isEnabled()
        qtbot.waitUntil(dock.objects.save_button.isEnabled)
    (complaint,) = told
    assert "table.csv" in complaint
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == count + 1
    assert lines[0].startswith("label,plane,row,column,size_px,volume_um3,class,")
    # Again with other settings, without segmenting.
    dock.objects.form.set_values({"three_d": False, "min_size": 1000})
    dock.objects.now_button.click()
    assert finish(dock.panel) is Outcome.FINISHED, drive.errors()
    again = [layer for layer in viewer.layers if layer.name.endswith("objects")]
    assert len(again) == 1
    measures = again[0].features
    assert {"area_um2", "diameter_um", "length_um", "roundness", "sd_grey"} <= set(measures)


def test_a_row_of_napari_s_table_brings_its_object_into_view(
    viewer: Any, dock: SegmentDock, volume: tuple[np.ndarray, np.ndarray], drive: Any
) -> None:
    viewer.add_image(volume[0], name="em", scale=(30, 8, 8))
    dock.region.setCurrentText(EVERYTHING)
    find_all(dock)
    assert not dock.objects.table_button.isVisibleTo(dock)
    assert drive.run() is Outcome.FINISHED, drive.errors()
    assert dock.objects.table_button.isVisibleTo(dock)
    layer = viewer.layers["em: objects"]
    viewer.layers.selection.clear()
    dock.objects.table_button.click()
    _, table = viewer.window.add_plugin_dock_widget("napari", "Features table widget")
    assert table.table.model().rowCount() == len(layer.features)
    number = int(np.flatnonzero(dock.objects.table["plane"] != 0)[0]) + 1
    viewer.dims.set_current_step(0, 0)
    camera_of(viewer).center = (0, 8000, 8000)

    table.table.selectRow(number)

    assert layer.selected_label == number
    place = layer.features.loc[number, ["plane", "row", "column"]].to_numpy(float)
    np.testing.assert_allclose(
        camera_of(viewer).center, layer.data_to_world((round(place[0]), *place[1:]))
    )
    assert viewer.dims.current_step[0] == round(place[0])


def test_napari_s_table_sorts_objects_and_finds_them_then(
    viewer: Any, dock: SegmentDock, volume: tuple[np.ndarray, np.ndarray], drive: Any
) -> None:
    viewer.add_image(volume[0], name="em", scale=(30, 8, 8))
    dock.region.setCurrentText(EVERYTHING)
    find_all(dock)
    dock.objects.form.set_values({"min_size": 500})  # of thousands napari's table takes minutes
    assert drive.run() is Outcome.FINISHED, drive.errors()
    layer = viewer.layers["em: objects"]
    dock.objects.table_button.click()
    _, features = viewer.window.add_plugin_dock_widget("napari", "Features table widget")
    table = features.table
    model = table.model()
    titles = [model.headerData(i, Qt.Orientation.Horizontal) for i in range(model.columnCount())]
    size = titles.index("size_px")

    def sizes() -> list[float]:
        texts = [model.index(row, size).data() for row in range(model.rowCount())]
        return [float(text) for text in texts]

    assert table.isSortingEnabled()
    for order in (Qt.SortOrder.AscendingOrder, Qt.SortOrder.DescendingOrder):
        table.sortByColumn(size, order)
        expected = sorted(sizes(), reverse=order == Qt.SortOrder.DescendingOrder)
        assert sizes() == expected
    assert 2 < len(sizes()) < 200
    table.selectRow(0)
    largest = int(np.argmax(dock.objects.table["size_px"])) + 1
    measured = np.bincount(layer.data.ravel())[1:]
    assert measured[layer.selected_label - 1] == measured.max() == measured[largest - 1]
    table.selectRow(1)
    assert measured[layer.selected_label - 1] == np.sort(measured)[-2]


def test_objects_of_some_sizes_are_kept_and_all_come_back(
    viewer: Any, dock: SegmentDock, volume: tuple[np.ndarray, np.ndarray], drive: Any, finish: Any
) -> None:
    viewer.add_image(volume[0][0], name="em", scale=(8, 8), units=("nm",) * 2)
    dock.region.setCurrentText(PLANE)
    find_all(dock)
    assert drive.run() is Outcome.FINISHED, drive.errors()
    whole, table = viewer.layers["em: objects"].data.copy(), dock.objects.table
    widest = dock.objects.low.value(), dock.objects.high.value()
    limit = float(table["area_um2"].max() / 2)
    dock.objects.low.setValue(limit)
    dock.objects.filter_button.click()
    assert finish(dock.panel) is Outcome.FINISHED, drive.errors()
    layer, kept = viewer.layers["em: objects"], dock.objects.table
    assert 0 < len(kept["label"]) < len(table["label"])
    assert kept["area_um2"].min() >= dock.objects.low.value()
    np.testing.assert_array_equal(np.bincount(layer.data.ravel())[1:], kept["size_px"])
    for box, value in zip((dock.objects.low, dock.objects.high), widest, strict=True):
        box.setValue(value)
    dock.objects.filter_button.click()
    assert finish(dock.panel) is Outcome.FINISHED, drive.errors()
    np.testing.assert_array_equal(viewer.layers["em: objects"].data, whole)


def test_a_clicked_object_is_outlined(
    viewer: Any, dock: SegmentDock, volume: tuple[np.ndarray, np.ndarray], drive: Any
) -> None:
    viewer.add_image(volume[0], name="em", scale=(30, 8, 8))
    dock.region.setCurrentText(EVERYTHING)
    find_all(dock)
    assert drive.run() is Outcome.FINISHED, drive.errors()
    layer = viewer.layers["em: objects"]
    place = np.argwhere(layer.data > 0)[-1]
    number = layer.data[tuple(place)]
    viewer.dims.set_current_step(0, place[0])

    class Click:
        position = layer.data_to_world(place)

    for callback in layer.mouse_drag_callbacks:
        if callback.__name__ == "_pick":
            callback(layer, Click())
    assert layer.selected_label == number
    outline = viewer.layers["selected object"]
    assert outline.data.sum() == (layer.data == number).sum()
    found = np.argwhere(layer.data == number).min(0)
    np.testing.assert_allclose(outline.translate, layer.data_to_world(found))
    assert viewer.layers.selection.active is layer
    layer.selected_label = 0
    assert "selected object" not in viewer.layers


def test_the_background_is_not_counted_and_what_covers_all_is_told(
    viewer: Any, dock: SegmentDock, volume: tuple[np.ndarray, np.ndarray], drive: Any
) -> None:
    classes = default_classes([0, 1, 2])
    named = zip(classes, ("unpainted", "Background", "mitochondrion"), strict=True)
    dock.objects.offer([item.model_copy(update={"name": name}) for item, name in named])
    assert dock.objects.values() == (2,)
    table = {"size_px": np.array([9, 700]), "class": np.array(["a", "b"])}
    told = dock.objects.judge(table, 1000)
    assert told is not None
    assert "'b' covers 70 %" in told
    assert dock.objects.judge(table, 10_000) is None


def test_objects_of_another_image_stay(
    viewer: Any, dock: SegmentDock, volume: tuple[np.ndarray, np.ndarray], drive: Any
) -> None:
    dock.region.setCurrentText(PLANE)
    dock.objects.wanted_box.setChecked(True)
    for name in ("a", "b"):
        dock.choose_layer(viewer.add_image(volume[0], name=name))
        assert drive.run() is Outcome.FINISHED, drive.errors()
    assert {"a: objects", "b: objects"} <= {layer.name for layer in viewer.layers}


def find_all(dock: SegmentDock) -> None:
    """Want objects of all classes, however small."""
    dock.objects.wanted_box.setChecked(True)
    for row in range(dock.objects.classes.count()):
        dock.objects.classes.item(row).setCheckState(Qt.CheckState.Checked)
    dock.objects.form.set_values({"min_size": 0, "separation": 0})


def test_objects_of_a_part_have_their_places_in_the_image(
    viewer: Any, dock: SegmentDock, volume: tuple[np.ndarray, np.ndarray], drive: Any
) -> None:
    image = viewer.add_image(volume[0], name="em", scale=(30, 8, 8))
    viewer.dims.set_point(0, 2 * 30)
    dock.region.setCurrentText(PLANE)
    find_all(dock)
    assert drive.run() is Outcome.FINISHED, drive.errors()
    whole = dock.objects.table
    assert set(whole["plane"]) == {2}
    camera = camera_of(viewer)
    camera.zoom, camera.center = 2, (60, 8 * 90, 8 * 110)
    dock.region.setCurrentText(VIEW)
    assert drive.run() is Outcome.FINISHED, drive.errors()
    part, layer = dock.objects.table, viewer.layers["em: objects [1]"]
    assert set(part["plane"]) == {2}
    corner = np.subtract(layer.translate, image.translate)[1:] / 8
    assert (corner > 0).all()
    number = int(np.argmax(part["size_px"]))
    found = np.argwhere(layer.data[0] == part["label"][number]).mean(0) + corner
    np.testing.assert_allclose((part["row"][number], part["column"][number]), found)
    layer.selected_label = 0
    camera.center = (60, 8000, 8000)
    layer.selected_label = number + 1
    np.testing.assert_allclose(camera.center[-2:], 8 * found)
    here = camera.center = (60, *(8 * found + 24))
    layer.selected_label = 0
    layer.selected_label = number + 1
    assert camera.center[-2:] == pytest.approx(here[-2:])  # what is in view stays where it is


def test_corrected_objects_and_removed_results(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    drive: Any,
    finish: Any,
) -> None:
    viewer.add_image(volume[0][0], name="em")
    dock.region.setCurrentText(PLANE)
    find_all(dock)
    assert drive.run() is Outcome.FINISHED, drive.errors()
    corrected = viewer.layers["em: objects"]
    corrected.paint((10, 10), 7)
    dock.objects.now_button.click()
    assert finish(dock.panel) is Outcome.FINISHED, drive.errors()
    assert corrected in viewer.layers
    assert "em: objects [1]" in viewer.layers
    viewer.layers.remove(drive.result())
    assert not dock.objects.now_button.isEnabled()
