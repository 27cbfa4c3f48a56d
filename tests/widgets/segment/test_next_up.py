"""A segmentation that is chosen while another one runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_affmae.widgets.running.run_panel import Outcome
from napari_affmae.widgets.segment.dock import SegmentDock
from napari_affmae.widgets.segment.region_choice import EVERYTHING, PLANE

MILLISECONDS = 120_000


@pytest.fixture
def outcomes(dock: SegmentDock) -> list[Outcome]:
    """How runs of the dock have ended."""
    ended: list[Outcome] = []
    dock.panel.ended.connect(ended.append)
    return ended


def results(viewer: Any) -> list[Any]:
    return [layer for layer in viewer.layers if ": classes" in layer.name]


def test_painted_and_segmented_again_while_it_runs(
    viewer: Any,
    dock: SegmentDock,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    slow: Callable[[], None],
    outcomes: list[Outcome],
    qtbot: Any,
) -> None:
    image = viewer.add_image(volume[0], name="em")
    dock.region.setCurrentText(EVERYTHING)
    slow()
    (first,) = results(viewer)
    _, painting = viewer.window.add_plugin_dock_widget("napari-affmae", "2. Fine-tune")
    painting.annotate(image)
    ((_, labels),) = painting.pairs.pairs()
    while len(painting.classes.classes()) < 2:
        painting.classes.add_button.click()
    painting.quick.form.set_values({"steps": 5, "device": "cpu"})
    viewer.dims.set_current_step(0, 2)
    painting.quick.predict_button.setChecked(True)
    with qtbot.waitSignal(painting.quick.predicted, timeout=MILLISECONDS):
        labels.paint((2, 20, 20), 1)
        labels.paint((2, 40, 60), 2)
    with qtbot.waitSignal(painting.quick.saved, timeout=MILLISECONDS) as saved:
        painting.quick.save_button.click()
    (model,) = saved.args
    painting.segment_button.click()
    qtbot.waitUntil(lambda: model.name in dock.next_up.text.text(), timeout=MILLISECONDS)
    assert dock.panel.is_running
    assert not outcomes
    dock.panel.pause_button.setChecked(False)
    qtbot.waitUntil(lambda: outcomes == [Outcome.FINISHED] * 2, timeout=MILLISECONDS)
    np.testing.assert_array_equal(first.data, expected)
    (again,) = (layer for layer in results(viewer) if layer is not first)
    assert again.data.shape == expected.shape
    assert set(np.unique(again.data)) <= {1, 2}
    assert not first.visible
    assert not dock.next_up.text.isVisibleTo(dock)
    assert any("Its layers stay" in text for _, text in dock.panel.messages.texts)


def test_the_next_one_begins_at_once_if_asked_and_waits_after_a_stop(
    viewer: Any,
    dock: SegmentDock,
    model: Path,
    volume: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    slow: Callable[[], None],
    outcomes: list[Outcome],
    qtbot: Any,
    finish: Any,
) -> None:
    viewer.add_image(volume[0], name="em")
    viewer.dims.set_current_step(0, 1)
    next_up = dock.next_up
    assert not next_up.add_button.isVisibleTo(dock)
    dock.region.setCurrentText(EVERYTHING)
    slow()
    dock.region.setCurrentText(PLANE)
    next_up.add_button.click()
    assert next_up.text.text() == f"Next: {PLANE} of 'em', with {model.name!r}"
    # It is the plane that was in view then.
    viewer.dims.set_current_step(0, 3)
    next_up.now_button.click()
    qtbot.waitUntil(lambda: outcomes == [Outcome.STOPPED, Outcome.FINISHED], timeout=MILLISECONDS)
    _, plane = results(viewer)
    np.testing.assert_array_equal(plane.data, expected[1:2])

    dock.region.setCurrentText(EVERYTHING)
    slow()
    next_up.add_button.click()
    dock.panel.stop_button.click()
    assert finish(dock.panel) is Outcome.STOPPED
    qtbot.wait(50)
    assert not dock.panel.is_running
    assert next_up.now_button.isVisibleTo(dock)
    next_up.drop_button.click()
    assert not next_up.now_button.isVisibleTo(dock)
    assert next_up.take() is None
