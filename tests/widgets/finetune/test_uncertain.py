"""Going to where the prediction is least certain."""

from typing import Any

import numpy as np

from napari_affmae.widgets.finetune.dock import FinetuneDock
from napari_affmae.widgets.finetune.uncertain_button import scattered
from napari_affmae.widgets.layers.view import camera_of

MILLISECONDS = 300_000


def test_places_fill_the_stack_evenly() -> None:
    places = [scattered(number, 70, 1000, 800) for number in range(24)]
    planes, rows, columns = zip(*places, strict=True)
    assert len(np.unique(np.array(planes) // 10)) == 7
    for parts, size in ((rows, 1000), (columns, 800)):
        assert all(0 <= part.start < part.stop <= size for part in parts)
        assert {part.stop - part.start for part in parts} == {256}
        assert len({part.start // 150 for part in parts}) > 3
    assert scattered(3, 1, 40, 50) == (0, slice(0, 40), slice(0, 50))


def test_the_least_certain_place_comes_into_view(
    dock: FinetuneDock, viewer: Any, labels: Any, image: Any, qtbot: Any, drive: Any
) -> None:
    viewer.dims.set_current_step(0, 0)
    assert not dock.quick.uncertain_button.isEnabled()
    drive.paint_both(labels, 0)
    dock.quick.form.control("steps").setValue(20)
    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        dock.quick.predict_button.setChecked(True)
    dock.quick.switch_off()
    before = camera_of(viewer).center
    button = dock.quick.uncertain_button
    with qtbot.waitSignal(button.arrived, timeout=MILLISECONDS):
        button.click()
    assert camera_of(viewer).center[-2:] != before[-2:]
    row, column = np.subtract(camera_of(viewer).center[-2:], image.translate[-2:]) / 8
    assert 0 <= row < image.data.shape[1]
    assert 0 <= column < image.data.shape[2]
    qtbot.waitUntil(button.isEnabled)
