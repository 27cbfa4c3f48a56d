"""Strokes are kept on disk while they are painted, and brought back."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_affmae.engine.store.projects import list_projects, read_strokes
from napari_affmae.widgets.finetune.dock import FinetuneDock

MILLISECONDS = 60_000


def written(qtbot: Any, dock: FinetuneDock) -> None:
    qtbot.waitUntil(lambda: not dock.keeper.is_busy, timeout=MILLISECONDS)


def another_dock(viewer: Any, qtbot: Any, listed: Callable[[Any], Any]) -> FinetuneDock:
    """As after a start of napari."""
    dock = FinetuneDock(viewer)
    qtbot.addWidget(dock)
    listed(dock.start_from)
    dock.earlier.refresh()
    qtbot.waitUntil(lambda: not dock.earlier.is_busy, timeout=MILLISECONDS)
    return dock


def test_strokes_are_on_disk_soon_and_follow_each_edit(
    dock: FinetuneDock, labels: Any, runs: Path, drive: Any, qtbot: Any, naming: Any
) -> None:
    assert not list_projects(runs)
    with qtbot.waitSignal(dock.keeper.kept, timeout=MILLISECONDS):
        drive.paint_both(labels, 2)
    written(qtbot, dock)
    (thread,) = naming
    assert thread is not threading.main_thread()
    (kept,) = list_projects(runs)
    np.testing.assert_array_equal(read_strokes(kept.folder, kept.project)[:], labels.data)
    assert kept.project.image == "em"
    assert kept.project.scale == (30.0, 8.0, 8.0)
    assert kept.project.start_from == "em-nano"  # a name, which is the same on any computer
    for change in (labels.undo, lambda: drive.paint(labels, 2, (0, 100, 100))):
        change()
        written(qtbot, dock)
        np.testing.assert_array_equal(read_strokes(kept.folder, kept.project)[:], labels.data)
    labels.data = np.full_like(labels.data, 1)
    qtbot.waitUntil(
        lambda: bool((read_strokes(kept.folder, kept.project)[:] == 1).all()), timeout=MILLISECONDS
    )
    dock.classes.table.item(0, 1).setText("cytoplasm")
    written(qtbot, dock)
    (kept,) = list_projects(runs)
    assert kept.project.classes == dock.annotation.classes()
    assert kept.project.classes[0].name == "cytoplasm"


def test_labels_that_are_only_looked_at_are_not_copied(
    dock: FinetuneDock, viewer: Any, image: Any, runs: Path, qtbot: Any
) -> None:
    mask = viewer.add_labels(np.ones(image.data.shape, np.uint8), name="mask")
    dock.pairs.set_pair(image, mask)
    qtbot.waitUntil(lambda: not dock.annotation.painted(mask).is_looking, timeout=MILLISECONDS)
    assert not dock.keeper.is_busy
    assert not list_projects(runs)


def test_after_a_crash_image_strokes_and_classes_come_back_in_one_click(
    make_napari_viewer: Callable[..., Any],
    volume: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    runs: Path,
    drive: Any,
    qtbot: Any,
    listed: Callable[[Any], Any],
) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, volume[0], photometric="minisblack")
    viewer = make_napari_viewer()
    (image,) = viewer.open(path)
    dock = another_dock(viewer, qtbot, listed)
    assert dock.earlier.isHidden()
    dock.annotate(image)
    (_, labels) = dock.pairs.pairs()[0]
    drive.paint_both(labels, 1)
    dock.classes.table.item(1, 1).setText("membrane")
    written(qtbot, dock)
    painted, classes = labels.data.copy(), dock.annotation.classes()
    viewer.layers.clear()

    again = another_dock(make_napari_viewer(), qtbot, listed)
    assert not again.earlier.isHidden()
    again.earlier.combo.setCurrentIndex(1)
    with qtbot.waitSignal(again.earlier.reopened, timeout=MILLISECONDS):
        again.earlier.button.click()
    ((image, labels),) = again.pairs.pairs()
    np.testing.assert_array_equal(np.asarray(image.data), volume[0])
    np.testing.assert_array_equal(labels.data, painted)
    assert again.annotation.classes() == classes
    assert again.earlier.isHidden()
    # What is painted now goes to the same folder.
    drive.paint(labels, 2, (3, 30, 30))
    written(qtbot, again)
    (kept,) = list_projects(runs)
    np.testing.assert_array_equal(read_strokes(kept.folder, kept.project)[:], labels.data)


def test_strokes_on_an_open_image_are_offered(
    dock: FinetuneDock, viewer: Any, labels: Any, drive: Any, qtbot: Any, listed: Any
) -> None:
    drive.paint_both(labels, 2)
    written(qtbot, dock)
    viewer.layers.remove(labels)
    again = another_dock(viewer, qtbot, listed)
    assert again.earlier.combo.currentText().startswith("em, ")
    viewer.layers["em"].name = "other"
    with qtbot.waitSignal(again.earlier.failed, timeout=MILLISECONDS) as failed:
        again.earlier.button.click()
    assert "Open it under this name" in str(failed.args[0])


def test_a_disk_that_takes_nothing_is_told_and_tried_again(
    dock: FinetuneDock, labels: Any, runs: Path, drive: Any, qtbot: Any
) -> None:
    runs.mkdir(exist_ok=True)
    (runs / "painted").write_text("in the way")
    with qtbot.waitSignal(dock.keeper.failed, timeout=MILLISECONDS):
        drive.paint_both(labels, 2)
    assert any("cannot be kept" in text for _, text in dock.quick.messages.texts)
    (runs / "painted").unlink()
    with qtbot.waitSignal(dock.keeper.kept, timeout=MILLISECONDS):
        drive.paint(labels, 1, (0, 10, 10))
    (kept,) = list_projects(runs)
    np.testing.assert_array_equal(read_strokes(kept.folder, kept.project)[:], labels.data)


@pytest.mark.parametrize("content", ["{", '{"format": 2}', "[]"])
def test_damaged_projects_are_left_out(
    runs: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (runs / "painted" / "odd").mkdir(parents=True)
    (runs / "painted" / "odd" / "project.json").write_text(content)
    assert list_projects(runs) == []
    assert "project.json" in caplog.text
