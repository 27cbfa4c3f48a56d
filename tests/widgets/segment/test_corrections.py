"""Objects that the user corrects, by keys and strokes of the mouse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from skimage.draw import disk

from napari_affmae.config import ObjectsConfig
from napari_affmae.data import default_classes, open_source
from napari_affmae.widgets.finetune.dock import FinetuneDock
from napari_affmae.widgets.layers.docks import open_dock
from napari_affmae.widgets.layers.layer_sources import layer_geometry
from napari_affmae.widgets.segment.job import ObjectsFound, ObjectsWanted, ResultReady
from napari_affmae.widgets.segment.objects_layer import ObjectsLayer
from napari_affmae.widgets.segment.result import Result

# Three objects on each plane: two discs that touch, and one apart.
DISCS = (((30, 30), 14), ((30, 56), 14), ((90, 90), 10))
MILLISECONDS = 60_000


def discs(planes: int) -> np.ndarray:
    labels = np.zeros((planes, 128, 160), np.uint8)
    for centre, radius in DISCS:
        labels[(slice(None), *disk(centre, radius))] = 1
    return labels


def find(image: Any, *, three_d: bool) -> tuple[ResultReady, ObjectsFound]:
    """Find objects in a segmentation of a layer that shows the discs."""
    classes = default_classes([1, 2])
    result = Result.in_memory(image.data.shape, classes, probabilities=False)
    result.labels[0][:] = discs(len(image.data))
    source = open_source(image.data, axes="ZYX", name="em")
    ready = ResultReady(result, "em", layer_geometry(image), (0, 0, 0), source)
    config = ObjectsConfig(three_d=three_d, min_size=0, separation=0)
    *_, found = ObjectsWanted((1,), config).find(ready)
    return ready, found


@pytest.fixture(params=[False, True], ids=["planes", "volume"])
def three_d(request: Any) -> bool:
    return bool(request.param)


@pytest.fixture
def objects(viewer: Any, image: Any, three_d: bool) -> ObjectsLayer:
    viewer.dims.set_current_step(0, 1)
    made = ObjectsLayer(viewer, viewer.window._qt_window)
    made.show(*find(image, three_d=three_d), three_d=three_d)
    return made


@pytest.fixture
def layer(objects: ObjectsLayer, viewer: Any) -> Labels:
    return viewer.layers["em: objects"]


@pytest.fixture
def settled(objects: ObjectsLayer, qtbot: Any) -> Callable[[], Any]:
    """Wait until all is measured, and return the table of features."""

    def wait() -> Any:
        qtbot.waitUntil(lambda: not objects.corrections.is_busy, timeout=MILLISECONDS)
        return objects._layer.features

    return wait


def number_at(layer: Labels, row: int, column: int) -> int:
    return int(layer.data[1, row, column])


def drag(viewer: Any, layer: Labels, *places: tuple[int, int]) -> None:
    """Drag the mouse over places of the plane in view, through the layer's own callbacks."""

    class Event:
        type = "mouse_press"
        position = layer.data_to_world((1, *places[0]))

    event = Event()
    generators = [made for call in layer.mouse_drag_callbacks if (made := call(layer, event))]
    for generator in generators:
        next(generator, None)
    event.type = "mouse_move"
    for place in places[1:]:
        event.position = layer.data_to_world((1, *place))
        for generator in generators:
            next(generator, None)
    event.type = "mouse_release"
    for generator in generators:
        next(generator, None)


def press(layer: Labels, key: str) -> None:
    next(action for bound, action in layer.keymap.items() if str(bound) == key)(layer)


def test_a_stroke_divides_touching_objects_and_undo_joins_them_again(
    objects: ObjectsLayer, viewer: Any, layer: Labels, settled: Any, three_d: bool
) -> None:
    before = layer.data.copy()
    whole = number_at(layer, 30, 30)
    assert number_at(layer, 30, 56) == whole
    press(layer, "K")
    assert objects.bar.cut_button.isChecked()
    drag(viewer, layer, (5, 43), (60, 43))
    pieces = {number_at(layer, 30, 30), number_at(layer, 30, 56)}
    assert pieces == {whole, before.max() + 1}
    np.testing.assert_array_equal(layer.data > 0, before > 0)
    others = [plane for plane in range(4) if plane != 1]
    assert (layer.data[others] == before[others]).all() == (not three_d)
    assert "stroke" not in viewer.layers
    assert viewer.layers.selection.active is layer
    table = settled()
    sizes = np.bincount(layer.data.ravel(), minlength=len(table))[1:]
    np.testing.assert_array_equal(table["size_px"][1:], sizes)
    assert set(table["state"][list(pieces)]) == {"corrected"}
    new = int(before.max()) + 1
    assert table["class"][new] == table["class"][whole]
    middle = np.argwhere(layer.data == new).mean(0)
    np.testing.assert_allclose(table.loc[new, ["plane", "row", "column"]].to_list(), middle)
    np.testing.assert_allclose(
        table["mean_grey"][new], viewer.layers["em"].data[layer.data == new].mean()
    )

    objects.bar.undo_button.click()
    np.testing.assert_array_equal(layer.data, before)
    table = settled()
    assert table["state"][new] == "deleted"
    assert table["size_px"][whole] == (before == whole).sum()


def test_a_stroke_that_divides_nothing_says_so(
    objects: ObjectsLayer, viewer: Any, layer: Labels
) -> None:
    before = layer.data.copy()
    objects.bar.cut_button.click()
    drag(viewer, layer, (5, 43), (25, 43))
    ((level, text),) = objects.bar.messages.texts
    assert level == "error"
    assert "does not divide the object" in text
    drag(viewer, layer, (110, 10), (120, 10))
    assert "must go across an object" in objects.bar.messages.texts[0][1]
    objects.bar.join_button.click()
    assert not objects.bar.cut_button.isChecked()
    assert not objects.bar.messages.texts
    drag(viewer, layer, (80, 90), (95, 90))
    assert "must touch two objects" in objects.bar.messages.texts[0][1]
    np.testing.assert_array_equal(layer.data, before)


def test_a_stroke_joins_objects(
    objects: ObjectsLayer, viewer: Any, layer: Labels, settled: Any
) -> None:
    before = layer.data.copy()
    one, other = number_at(layer, 30, 56), number_at(layer, 90, 90)
    press(layer, "J")
    assert not layer.mouse_pan
    drag(viewer, layer, (30, 56), (60, 70), (90, 90))
    press(layer, "J")
    assert layer.mouse_pan
    kept, gone = sorted((one, other))
    assert not (layer.data == gone).any()
    np.testing.assert_array_equal(layer.data == kept, (before == one) | (before == other))
    table = settled()
    assert table["state"][gone] == "deleted"
    assert table["size_px"][kept] == (layer.data == kept).sum()
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)
    assert settled()["size_px"][gone] == (before == gone).sum()


def test_objects_are_accepted_and_deleted(
    objects: ObjectsLayer, viewer: Any, layer: Labels, settled: Any
) -> None:
    told: list[ObjectsFound] = []
    objects.changed.connect(told.append)
    layer.selected_label = 0
    press(layer, "A")
    assert "No object is selected" in objects.bar.messages.texts[0][1]
    number = number_at(layer, 90, 90)
    layer.selected_label = number
    press(layer, "A")
    assert told[-1].table["state"][number - 1] == "accepted"
    assert layer.features["state"][number] == "accepted"
    assert "1 accepted" in objects.bar.state.text()
    color = viewer.layers["selected object"].colormap.color_dict[1]
    np.testing.assert_allclose(color, (0, 1, 0, 1))
    objects.bar.delete_button.click()
    assert not (layer.data == number).any()
    assert settled()["state"][number] == "deleted"
    assert "0 accepted, 0 corrected, 1 deleted" in objects.bar.state.text()
    press(layer, "D")
    assert "No object is selected" in objects.bar.messages.texts[0][1]
    # What is deleted is in no size.
    (_, kept) = told[-1].within(0, 1e9)
    assert len(kept.table["label"]) == len(told[-1].table["label"]) - 1
    np.testing.assert_array_equal(np.bincount(kept.objects.ravel())[1:], kept.table["size_px"])


def test_painting_by_hand_is_measured_too(
    objects: ObjectsLayer, layer: Labels, settled: Any
) -> None:
    number = number_at(layer, 90, 90)
    layer.brush_size = 9
    layer.paint((1, 90, 102), number)
    table = settled()
    assert table["size_px"][number] == (layer.data == number).sum()
    assert table["state"][number] == "corrected"


def test_the_layer_outlives_the_buttons(
    objects: ObjectsLayer, viewer: Any, layer: Labels, settled: Any, qtbot: Any
) -> None:
    objects.bar.cut_button.click()
    gone: list[bool] = []
    objects.bar.destroyed.connect(lambda: gone.append(True))
    objects.bar.deleteLater()
    qtbot.waitUntil(lambda: bool(gone))
    assert not {"A", "D", "J", "K"} & set(map(str, layer.keymap))
    assert layer.mouse_pan
    number = number_at(layer, 90, 90)
    drag(viewer, layer, (90, 90))
    assert layer.selected_label == number
    layer.brush_size = 9
    layer.paint((1, 90, 102), number)
    assert settled()["size_px"][number] == (layer.data == number).sum()


def test_accepted_objects_go_beside_the_strokes(
    objects: ObjectsLayer, viewer: Any, image: Any, layer: Labels, three_d: bool
) -> None:
    number = number_at(layer, 90, 90)
    where = layer.data == number
    assert not objects.bar.train_button.isEnabled()
    layer.selected_label = number
    objects.bar.accept()
    objects.bar.train_button.click()
    dock = open_dock(viewer, "2. Fine-tune")
    assert isinstance(dock, FinetuneDock)
    ((paired, labels),) = dock.pairs.pairs()
    assert paired is image
    copied = viewer.layers[f"{labels.name}: copied prediction"]
    np.testing.assert_array_equal(copied.data == 1, where)
    assert not labels.data.any()
    dock.copies.learn_box.setChecked(True)
    np.testing.assert_array_equal(labels.data == 1, where)
    dock.copies.learn_box.setChecked(False)
    assert not labels.data.any()
