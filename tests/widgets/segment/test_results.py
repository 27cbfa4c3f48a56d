"""What the dock that segments makes of images of all kinds."""

import shlex
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_affmae.widgets.layers.label_layers import classes_of, may_be_for
from napari_affmae.widgets.layers.layer_sources import layer_geometry, step_sizes
from napari_affmae.widgets.layers.view import camera_of
from napari_affmae.widgets.parts.command_dialog import CommandDialog
from napari_affmae.widgets.running.run_panel import Outcome
from napari_affmae.widgets.segment.dock import SegmentDock
from napari_affmae.widgets.segment.region_choice import EVERYTHING, PLANE, VIEW


def test_everything_of_a_stack(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    drive: Any,
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
    assert drive.run() is Outcome.FINISHED
    labels = drive.result()
    np.testing.assert_array_equal(labels.data, expected)
    assert labels.data.dtype == np.uint8
    classes = dock.run_choice.run().classes
    assert classes_of(labels) == classes
    for item in classes:
        if item.value:
            shown = np.round(255 * np.array(labels.colormap.color_dict[item.value][:3]))
            assert bytes(shown.astype(np.uint8)).hex() == item.color[1:]
    assert not may_be_for(image, labels)  # nobody's answer to learn from
    for name in ("scale", "translate", "rotate", "shear", "units", "axis_labels", "affine"):
        assert np.array_equal(getattr(labels, name), getattr(image, name)), name
    assert step_sizes(layer_geometry(labels)) == pytest.approx([30, 16, 16])
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
    viewer: Any, dock: SegmentDock, volume: tuple[np.ndarray, np.ndarray], region: str, drive: Any
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
    drive.draw()
    dock.region.setCurrentText(region)
    assert drive.run() is Outcome.FINISHED, drive.errors()
    labels = drive.result()
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
    viewer: Any, dock: SegmentDock, volume: tuple[np.ndarray, np.ndarray], drive: Any
) -> None:
    viewer.add_image(np.stack([volume[0][0]] * 3, -1), name="photo", rgb=True)
    dock.region.setCurrentText(EVERYTHING)
    assert drive.run() is Outcome.FAILED
    assert "has 3 channels and the model takes 1" in drive.errors()[0]
    assert len(viewer.layers) == 1
    dock.image.channels.edit.setText("1")
    assert drive.run() is Outcome.FINISHED
    assert drive.result().data.shape == (128, 160)
    dock.image.channels.edit.setText("x")
    drive.start()
    assert "channels must be numbers" in drive.errors()[0]


def test_multiscale_has_the_full_shape(
    viewer: Any, dock: SegmentDock, volume: tuple[np.ndarray, np.ndarray], drive: Any
) -> None:
    plane = volume[0][0]
    viewer.add_image([plane, plane[::2, ::2]], name="pyramid", multiscale=True, scale=(4, 4))
    dock.region.setCurrentText(EVERYTHING)
    assert drive.run() is Outcome.FINISHED
    assert drive.result().data.shape == plane.shape
    assert tuple(drive.result().scale) == (4, 4)


def test_lazy_arrays_are_read_in_parts(viewer: Any, dock: SegmentDock, drive: Any) -> None:
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
    drive.draw()
    dock.region.setCurrentText(VIEW)
    computed.clear()
    assert drive.run() is Outcome.FINISHED, drive.errors()
    # The plane's own chunks, and the samples of a few planes that fit the normalisation.
    view = {place for place in computed if place[0] == 7}
    assert 0 < len(view) < 20
    assert len(computed) < lazy.npartitions / 10
    assert max(drive.result().data.shape) < 300


@pytest.mark.parametrize("distance", [40, None])
def test_a_file_that_is_not_open(
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    distance: int | None,
    drive: Any,
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
            **({} if distance is None else {"PhysicalSizeZ": distance, "PhysicalSizeZUnit": "nm"}),
        },
    )
    dock.image.choose_path(path)
    dock.objects.wanted_box.setChecked(True)
    dock.objects.form.set_values({"three_d": True})
    assert dock.region.currentText() == EVERYTHING
    assert drive.run() is Outcome.FINISHED, drive.errors()
    labels = drive.result()
    assert labels.name == "stack.ome.tif: classes"
    assert labels.data.shape == (2, 128, 160)
    assert tuple(labels.scale) == (distance or 8, 8, 8)
    assert [str(unit) for unit in labels.units[1:]] == ["nanometer"] * 2
    table = dock.objects.table
    if distance is None:
        assert "volume_um3" not in table
    else:
        volumes = table["size_px"] * 8 * 8 * distance / 1e9
        np.testing.assert_allclose(table["volume_um3"], volumes)


def test_the_command_lines(
    viewer: Any,
    dock: SegmentDock,
    model: Path,
    volume: tuple[np.ndarray, np.ndarray],
    qtbot: Any,
) -> None:
    shown: list[str] = []

    def read_and_close() -> None:
        dialog = QApplication.activeModalWidget()
        if isinstance(dialog, CommandDialog):
            shown.append(dialog.text.toPlainText())
            dialog.reject()

    looking = QTimer()
    looking.timeout.connect(read_and_close)
    looking.start(20)

    def read() -> list[str]:
        before = len(shown)
        dock.command_button.click()
        assert len(shown) == before  # the folder is named in the background
        qtbot.waitUntil(lambda: len(shown) > before, timeout=60_000)
        return shown[-1].splitlines()

    viewer.add_image(np.stack([volume[0][0]] * 3, -1), name="photo", rgb=True)
    dock.form.set_values({"overlap": 0.5})
    dock.image.channels.edit.setText("0,2")
    (line,) = read()
    assert line.startswith(
        "napari-affmae segment photo.tif --channels 0,2 --overlap 0.5 --device cpu --model"
    )
    assert str(model) in line
    dock.objects.wanted_box.setChecked(True)
    dock.objects.form.set_values({"three_d": True})
    out = shlex.split(line)[-1]
    values = ["--value", "1", "--value", "2", "--value", "3"]
    again, found = read()
    assert again == line
    words = ["objects", out, *values, "--three-d", "--out", f"{out}-objects"]
    assert shlex.split(found)[1:] == words
    looking.stop()
    qtbot.waitUntil(lambda: dock.findChildren(CommandDialog) == [])


def test_the_card(dock: SegmentDock) -> None:
    text = dock.card.text()
    for word in ("fine-tuning run", "membrane", "learned from em", "1 channel", "crop 64 px"):
        assert word in text
    run = dock.run_choice.run()
    assert run is not None
    assert all(item.color in text for item in run.classes)
