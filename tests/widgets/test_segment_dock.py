"""Segmenting through the dock: its own controls, a real viewer, a tiny network."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from qtpy.QtCore import Qt

from napari_affmae.config import SegmentConfig
from napari_affmae.data import open_source
from napari_affmae.engine import segment
from napari_affmae.engine.events import PlaneDone
from napari_affmae.widgets import canvas, segmenting
from napari_affmae.widgets.layer_sources import OWN
from napari_affmae.widgets.run_panel import Outcome
from napari_affmae.widgets.segment import EVERYTHING, PLANE, VIEW, SegmentDock
from napari_affmae.widgets.view import camera_of

Finish = Callable[[Any], Outcome]


@pytest.fixture
def dock(viewer: Any, model: Path, qtbot: Any) -> SegmentDock:
    _, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "3. Segment")
    dock.run_choice.choose(model)
    dock.form.set_values({"device": "cpu"})
    return dock


@pytest.fixture(scope="session")
def expected(finetuned: Path, volume: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What the engine says of the whole volume."""
    source = open_source(volume[0], axes="ZYX")
    events = segment(source, finetuned, SegmentConfig(device="cpu"))
    return np.stack([event.labels for event in events if isinstance(event, PlaneDone)])


def press_start(dock: SegmentDock) -> None:
    assert dock.panel.start_button.isEnabled()
    dock.panel.start_button.click()


def draw(viewer: Any) -> None:
    """Let layers see what of them is in view, which a window that is not shown does not tell."""
    viewer.window._qt_viewer.canvas.on_draw(None)


def errors(dock: SegmentDock) -> list[str]:
    return [text for level, text in dock.panel.messages.texts if level == "error"]


def result(viewer: Any) -> Any:
    return next(layer for layer in viewer.layers if layer.name.endswith(": classes"))


def test_everything_of_a_stack(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    qtbot: Any,
    finish: Finish,
) -> None:
    geometry = {
        "scale": (30, 8, 8),
        "translate": (5, 6, 7),
        "units": ("nm",) * 3,
        "axis_labels": ("z", "y", "x"),
        "rotate": 20,
        "affine": np.diag([1, 2, 2, 1]),
    }
    image = viewer.add_image(volume[0], name="em", **geometry)
    dock.region.setCurrentText(EVERYTHING)
    press_start(dock)
    assert finish(dock.panel) is Outcome.FINISHED
    labels = result(viewer)
    np.testing.assert_array_equal(labels.data, expected)
    assert labels.data.dtype == np.uint8
    for name in ("scale", "translate", "rotate", "shear", "units", "axis_labels", "affine"):
        assert np.array_equal(getattr(labels, name), getattr(image, name)), name
    run = dock.run_choice.run()
    assert run is not None
    colors = {item.value: item.color for item in run.classes}
    for value, color in list(colors.items())[1:]:
        wanted = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        np.testing.assert_allclose(labels.get_color(value)[:3], wanted, atol=1e-6)
    middle = labels.data_to_world((1, 64, 80))
    named = next(item for item in run.classes if item.value == labels.data[1, 64, 80])
    assert f"class: {named.name}" in labels.get_status(middle, world=True)["value"]


@pytest.mark.parametrize("region", [PLANE, VIEW])
def test_parts_lie_where_the_image_does(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    region: str,
    qtbot: Any,
    finish: Finish,
) -> None:
    image = viewer.add_image(
        volume[0],
        name="em",
        scale=(30, 8, 9),
        translate=(1, 2, 3),
        rotate=30,
        shear=(0, 0, 0.2),
        affine=np.array([[1, 0, 0, 4], [0, 0.9, 0.1, 0], [0, 0.1, 1.1, 2], [0, 0, 0, 1]]),
    )
    viewer.dims.set_current_step(0, 2)
    camera_of(viewer).zoom *= 4
    draw(viewer)
    dock.region.setCurrentText(region)
    press_start(dock)
    assert finish(dock.panel) is Outcome.FINISHED, errors(dock)
    labels = result(viewer)
    assert labels.data.shape[0] == 1
    whole = (128, 160)
    if region == PLANE:
        assert labels.data.shape[1:] == whole
    else:
        assert min(labels.data.shape[1:]) >= 64
        assert labels.data.size < 0.8 * np.prod(whole)
    corner = np.asarray(image.world_to_data(labels.data_to_world((0, 0, 0))))
    np.testing.assert_allclose(corner, np.round(corner), atol=1e-6)
    assert round(corner[0]) == 2
    np.testing.assert_allclose(
        labels.data_to_world((0, 9, 11)), image.data_to_world(corner + np.array([0, 9, 11]))
    )


def test_rgb_and_its_channels(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    qtbot: Any,
    finish: Finish,
) -> None:
    viewer.add_image(np.stack([volume[0][0]] * 3, -1), name="photo", rgb=True)
    dock.region.setCurrentText(EVERYTHING)
    press_start(dock)
    assert finish(dock.panel) is Outcome.FAILED
    assert "has 3 channels and the model takes 1" in errors(dock)[0]
    assert len(viewer.layers) == 1
    dock.image.channels.setText("1")
    press_start(dock)
    assert finish(dock.panel) is Outcome.FINISHED
    assert result(viewer).data.shape == (128, 160)
    dock.image.channels.setText("x")
    press_start(dock)
    assert "channels must be numbers" in errors(dock)[0]


def test_multiscale_has_the_full_shape(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    qtbot: Any,
    finish: Finish,
) -> None:
    plane = volume[0][0]
    viewer.add_image([plane, plane[::2, ::2]], name="pyramid", multiscale=True, scale=(4, 4))
    dock.region.setCurrentText(EVERYTHING)
    press_start(dock)
    assert finish(dock.panel) is Outcome.FINISHED
    assert result(viewer).data.shape == plane.shape
    assert tuple(result(viewer).scale) == (4, 4)


def test_lazy_arrays_are_read_in_parts(
    viewer: Any, dock: SegmentDock, qtbot: Any, finish: Finish
) -> None:
    computed: set[tuple[int, ...]] = set()

    def chunk(block_info: Any = None) -> np.ndarray:
        place = block_info[None]["chunk-location"]
        computed.add(place)
        return np.random.default_rng(place).integers(0, 255, (1, 128, 128), np.uint8)

    lazy = da.map_blocks(chunk, chunks=((1,) * 50, (128,) * 20, (128,) * 20), dtype=np.uint8)
    viewer.add_image(lazy, name="lazy", contrast_limits=(0, 255), cache=False)
    viewer.dims.set_current_step(0, 7)
    camera_of(viewer).center = (7, 1280, 1280)
    camera_of(viewer).zoom = 8
    draw(viewer)
    dock.region.setCurrentText(VIEW)
    computed.clear()
    press_start(dock)
    assert finish(dock.panel) is Outcome.FINISHED, errors(dock)
    # The plane's own chunks, and the samples of a few planes that fit the normalisation.
    view = {place for place in computed if place[0] == 7}
    assert 0 < len(view) < 20
    assert len(computed) < lazy.npartitions / 10
    assert max(result(viewer).data.shape) < 300


def test_large_results_lie_on_disk(
    viewer: Any,
    dock: SegmentDock,
    runs: Path,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    qtbot: Any,
    finish: Finish,
) -> None:
    monkeypatch.setattr(canvas, "LARGEST", 1000)
    stored = zarr.create_array(store=tmp_path / "em.zarr", data=volume[0][:2], chunks=(1, 64, 64))
    viewer.add_image(stored, name="em", contrast_limits=(0, 255))
    dock.region.setCurrentText(EVERYTHING)
    dock.form.set_values({"probabilities": True})
    press_start(dock)
    assert finish(dock.panel) is Outcome.FINISHED, errors(dock)
    labels = result(viewer)
    assert isinstance(labels.data, zarr.Array)
    assert labels.data.shape == (2, 128, 160)
    assert any("is kept in" in text for _, text in dock.panel.messages.texts)
    [folder] = (runs / "segmentations").iterdir()
    np.testing.assert_array_equal(zarr.open_array(folder / "labels.zarr")[:], labels.data[:])
    layers = [layer for layer in viewer.layers if "probability" in layer.name]
    total = sum(np.asarray(layer.data[:]) for layer in layers)
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert all(layer.metadata == OWN for layer in layers)
    # They are no input.
    assert [dock.image.combo.itemText(i) for i in range(dock.image.combo.count())] == ["em"]


def test_a_file_that_is_not_open(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    qtbot: Any,
    finish: Finish,
) -> None:
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(
        path,
        volume[0][:2],
        metadata={
            "axes": "ZYX",
            "PhysicalSizeX": 8,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 8,
            "PhysicalSizeYUnit": "nm",
        },
    )
    dock.image.choose_path(path)
    assert dock.region.currentText() == EVERYTHING
    press_start(dock)
    assert finish(dock.panel) is Outcome.FINISHED, errors(dock)
    labels = result(viewer)
    assert labels.name == "stack.ome.tif: classes"
    assert labels.data.shape == (2, 128, 160)
    assert tuple(labels.scale) == (8, 8, 8)
    assert str(labels.units[0]) == "nanometer"


def test_an_unreadable_file(dock: SegmentDock, tmp_path: Path, qtbot: Any, finish: Finish) -> None:
    path = tmp_path / "broken.tif"
    path.write_bytes(b"II*\0 nothing")
    dock.image.choose_path(path)
    press_start(dock)
    assert finish(dock.panel) is Outcome.FAILED
    assert "broken.tif" in errors(dock)[0]
    assert dock.panel.start_button.isEnabled()


def test_a_model_that_is_deleted_meanwhile(
    viewer: Any,
    dock: SegmentDock,
    model: Path,
    volume: tuple[np.ndarray, np.ndarray],
    qtbot: Any,
    finish: Finish,
) -> None:
    viewer.add_image(volume[0], name="em")
    shutil.rmtree(model)
    press_start(dock)
    assert finish(dock.panel) is Outcome.FAILED
    assert "tiny" in errors(dock)[0]
    assert dock.run_choice.path() is None
    press_start(dock)
    assert "No model is chosen" in errors(dock)[-1] or "No model is chosen" in errors(dock)[0]


def test_nothing_to_segment(dock: SegmentDock, qtbot: Any) -> None:
    press_start(dock)
    assert "No image is chosen" in errors(dock)[0]
    assert not dock.panel.is_running


def test_errors_of_every_kind_end_the_run(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    qtbot: Any,
    finish: Finish,
) -> None:
    viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(EVERYTHING)

    def write(*_: Any) -> None:
        raise RuntimeError("bad luck")

    with monkeypatch.context() as patch:
        patch.setattr(segmenting.Canvas, "write", write)
        press_start(dock)
        assert finish(dock.panel) is Outcome.FAILED
    assert "bad luck" in errors(dock)[0]
    press_start(dock)
    assert finish(dock.panel) is Outcome.FINISHED


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, dock: SegmentDock, qtbot: Any) -> Callable[[], None]:
    """Start, and return with the run held after its first rows, until `go` is called."""

    def start() -> None:
        press_start(dock)
        qtbot.waitUntil(lambda: dock._result is not None, timeout=60_000)
        dock.panel.pause_button.setChecked(True)

    return start


def test_layers_change_during_a_run(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    slow: Callable[[], None],
    finish: Finish,
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
    np.testing.assert_array_equal(result(viewer).data, expected)


def test_removing_the_result_stops_the_run(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    slow: Callable[[], None],
    finish: Finish,
) -> None:
    viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(EVERYTHING)
    slow()
    viewer.layers.remove(result(viewer))
    assert finish(dock.panel) is Outcome.STOPPED
    assert any("was removed" in text for _, text in dock.panel.messages.texts)
    assert dock.panel.start_button.isEnabled()


def test_stopping_keeps_what_is_done(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    qtbot: Any,
    slow: Callable[[], None],
    finish: Finish,
) -> None:
    viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(EVERYTHING)
    seen: list[Any] = []
    dock.panel.happened.connect(seen.append)
    press_start(dock)
    qtbot.waitUntil(
        lambda: any(isinstance(event, segmenting.RowsWritten) for event in seen), timeout=60_000
    )
    dock.panel.stop_button.click()
    assert finish(dock.panel) is Outcome.STOPPED
    labels = result(viewer).data
    np.testing.assert_array_equal(labels[0, :48], expected[0, :48])
    assert not labels[-1].any()
    assert any("not reached" in text for _, text in dock.panel.messages.texts)


def test_rows_are_drawn_as_they_come(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    qtbot: Any,
    finish: Finish,
) -> None:
    viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(EVERYTHING)
    press_start(dock)
    viewer.dims.set_current_step(0, 0)
    finish(dock.panel)
    shown = result(viewer)._slice.image.raw
    np.testing.assert_array_equal(shown, expected[0])


def test_objects_and_their_table(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    qtbot: Any,
    finish: Finish,
) -> None:
    image = viewer.add_image(volume[0], name="em", scale=(8, 8, 8), units=("nm",) * 3)
    dock.region.setCurrentText(EVERYTHING)
    dock.objects.wanted_box.setChecked(True)
    for row in range(dock.objects.classes.count()):
        dock.objects.classes.item(row).setCheckState(Qt.CheckState.Checked)
    dock.objects.form.set_values({"three_d": True, "min_size": 20})
    press_start(dock)
    assert finish(dock.panel) is Outcome.FINISHED, errors(dock)
    layer = viewer.layers["em: objects"]
    count = int(layer.data.max())
    assert count > 0
    np.testing.assert_array_equal(np.unique(layer.data[layer.data > 0]), np.arange(1, count + 1))
    sizes = np.bincount(layer.data.ravel())[1:]
    np.testing.assert_array_equal(layer.features["size_px"], sizes)
    np.testing.assert_allclose(layer.features["volume_nm3"], sizes * 512.0)
    assert tuple(layer.scale) == tuple(image.scale)
    table = dock.objects.table
    assert table.isVisibleTo(dock)
    assert table.view.model().rowCount() == count
    table.save(tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == count + 1
    assert lines[0].startswith("label,plane,row,column,size_px,volume_nm3")
    table.view.selectRow(count - 1)
    assert layer.selected_label == count
    # Again with other settings, without segmenting.
    dock.objects.form.set_values({"three_d": False, "min_size": 1000})
    dock.objects.now_button.click()
    assert finish(dock.panel) is Outcome.FINISHED, errors(dock)
    again = [layer for layer in viewer.layers if layer.name.endswith("objects")]
    assert len(again) == 1
    assert "area_nm2" in again[0].features


def test_two_viewers_do_not_mix(
    make_napari_viewer: Callable[..., Any],
    dock: SegmentDock,
    viewer: Any,
    volume: tuple[np.ndarray, np.ndarray],
    qtbot: Any,
    finish: Finish,
) -> None:
    other = make_napari_viewer()
    other.add_image(volume[0], name="elsewhere")
    assert dock.image.combo.count() == 0
    viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(PLANE)
    press_start(dock)
    assert finish(dock.panel) is Outcome.FINISHED
    assert [layer.name for layer in other.layers] == ["elsewhere"]
    assert len(viewer.layers) == 2


def test_settings_are_remembered(
    viewer: Any,
    dock: SegmentDock,
    model: Path,
    volume: tuple[np.ndarray, np.ndarray],
    qtbot: Any,
    finish: Finish,
) -> None:
    viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(PLANE)
    dock.form.set_values({"tile": 96, "probabilities": True})
    dock.objects.form.set_values({"min_size": 7})
    press_start(dock)
    finish(dock.panel)
    other = SegmentDock(viewer)
    qtbot.addWidget(other)
    assert other.region.currentText() == PLANE
    assert other.form.build().tile == 96
    assert other.form.build().probabilities
    assert other.objects.form.build().min_size == 7
    assert other.run_choice.path() == model


def test_a_closed_dock_hears_nothing_more(
    viewer: Any, dock: SegmentDock, volume: tuple[np.ndarray, np.ndarray], qtbot: Any
) -> None:
    holder = dock.parent()
    gone: list[bool] = []
    dock.destroyed.connect(lambda: gone.append(True))
    holder.destroyOnClose()
    qtbot.waitUntil(lambda: bool(gone))
    layer = viewer.add_image(volume[0], name="em")
    layer.name = "renamed"
    viewer.layers.remove(layer)


def test_the_command_line(
    viewer: Any,
    dock: SegmentDock,
    model: Path,
    volume: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    qtbot: Any,
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(
        "napari_affmae.widgets.segment.CommandDialog.exec", lambda dialog: shown.append(dialog) or 0
    )
    viewer.add_image(volume[0], name="em")
    dock.form.set_values({"overlap": 0.5})
    dock.region.setCurrentText(VIEW)
    dock.command_button.click()
    text = shown[0].text.toPlainText()
    assert text.startswith("napari-affmae segment em.tif --overlap 0.5 --device cpu --model")
    assert str(model) in text


def test_the_card(dock: SegmentDock) -> None:
    text = dock.card.text()
    for word in ("fine-tuning run", "membrane", "learned from em", "1 channel", "crop 64 px"):
        assert word in text
    run = dock.run_choice.run()
    assert run is not None
    assert all(item.color in text for item in run.classes)
