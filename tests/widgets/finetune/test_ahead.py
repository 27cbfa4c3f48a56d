"""Planes beside the one in view are predicted ahead, so that scrolling shows no blank."""

import threading
from pathlib import Path
from typing import Any

import numpy as np

from napari_affmae.widgets.finetune.ahead import beside
from napari_affmae.widgets.finetune.dock import FinetuneDock
from napari_affmae.widgets.finetune.quick_session import PredictedAhead, Saved
from napari_affmae.widgets.layers.view import LayerView

MILLISECONDS = 300_000
ROWS, COLUMNS = slice(0, 64), slice(10, 90)


def test_planes_along_the_last_axis_before_and_behind() -> None:
    view = LayerView((1, 3), 8, ROWS, COLUMNS)
    planes = [(one.indices, one.plane, one.rows) for one in beside(view, (2, 5))]
    assert planes == [((1, 4), 9, ROWS), ((1, 2), 7, ROWS), ((1, 1), 6, ROWS)]
    assert beside(LayerView((), 0, ROWS, COLUMNS), ()) == []
    assert beside(LayerView((0,), 0, ROWS, COLUMNS), (1,)) == []


def predict(dock: FinetuneDock, labels: Any, drive: Any, qtbot: Any) -> None:
    drive.paint_both(labels, 1)
    dock.quick.form.control("steps").setValue(5)
    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        dock.quick.predict_button.setChecked(True)


def test_the_next_plane_is_there_at_once(
    dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, drive: Any
) -> None:
    viewer.dims.set_current_step(0, 1)
    predict(dock, labels, drive, qtbot)
    qtbot.waitUntil(lambda: dock.quick.ahead.known == 3, timeout=MILLISECONDS)
    prediction = viewer.layers["AFFMAE prediction"]
    here = np.array(prediction.data)
    assert prediction.extent.world[0, 0] == 30

    with qtbot.waitSignal(dock.quick.predicted, timeout=MILLISECONDS):
        viewer.dims.set_current_step(0, 2)
        # No event of a worker has come in between.
        assert prediction.extent.world[0, 0] == 60
        ahead = np.array(prediction.data)
    assert ahead.shape == here.shape
    assert (ahead != here).any()
    session, view = dock.quick._session, dock.quick._asked[1]
    assert view.plane == 2
    again = list(session.look_ahead(dock.quick._source, [view]))
    assert (again[-1].prediction.labels == ahead.reshape(ahead.shape[-2:])).mean() > 0.9
    dock.quick.switch_off()


def test_another_job_does_not_wait_for_what_is_predicted_ahead(
    dock: FinetuneDock, viewer: Any, labels: Any, qtbot: Any, drive: Any, tmp_path: Path
) -> None:
    viewer.dims.set_current_step(0, 1)
    predict(dock, labels, drive, qtbot)
    dock.quick.switch_off()
    session, classes = dock.quick._session, dock.annotation.classes()
    views = [LayerView((plane,), plane, slice(0, 128), slice(0, 160)) for plane in range(4)] * 9
    ahead = session.look_ahead(dock.quick._source, views)
    seen = [next(ahead)]
    saved: list[Any] = []
    path = tmp_path / "model.safetensors"
    saver = threading.Thread(target=lambda: saved.extend(session.save(path, classes)))
    saver.start()
    for event in ahead:
        seen.append(event)
        if saved:
            break
    ahead.close()
    saver.join(60)
    assert any(isinstance(event, Saved) for event in saved)
    assert sum(isinstance(event, PredictedAhead) for event in seen) < len(views)
