"""Labels in the viewer judge a pretraining."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_affmae.config import LabelClass
from napari_affmae.engine import list_runs
from napari_affmae.widgets.layers.label_layers import add_labels_layer, show_classes
from napari_affmae.widgets.parts.command_dialog import CommandDialog
from napari_affmae.widgets.pretrain.dock import PretrainDock
from napari_affmae.widgets.running.run_panel import Outcome, RunPanel

Finish = Callable[[RunPanel], Outcome]
CLASSES = (
    LabelClass(value=1, name="inside", color="#4c9be8"),
    LabelClass(value=2, name="membrane", color="#f5a742"),
)


def paint(viewer: Any, layer: Any, volume: Any, planes: int) -> Any:
    """Label the first planes as the truth says, but for their upper half."""
    labels = add_labels_layer(viewer, layer)
    show_classes(labels, CLASSES)
    truth = np.minimum(volume[1][:planes, 64:], 1) + 1
    labels.data[:planes, 64:] = truth
    labels.refresh()
    return labels


def test_painted_labels_judge_a_run_and_their_choice_is_kept(
    viewer: Any,
    dock: PretrainDock,
    layer: Any,
    volume: Any,
    runs: Path,
    finish: Finish,
    monkeypatch: pytest.MonkeyPatch,
    qtbot: Any,
) -> None:
    assert dock.judge.pair() is None
    other = viewer.add_labels(np.zeros((4, 64, 64), np.uint8), name="other")
    labels = paint(viewer, layer, volume, 4)
    assert dock.judge.pair() == (layer, labels)
    assert dock.judge.findText(other.name) == -1
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FINISHED
    steps, scores = dock.gauge.probe.points("probe")
    assert steps == [0, 2, 4]
    assert 0 < min(scores) < max(scores) < 1
    (run,) = list_runs(runs)
    assert run.probe is not None

    labels.name = "painted"
    assert dock.judge.currentText() == "painted"
    shown: list[str] = []
    monkeypatch.setattr(CommandDialog, "exec", lambda self: shown.append(self.text.toPlainText()))
    dock.command_button.click()
    qtbot.waitUntil(lambda: len(shown) == 1)
    words = shlex.split(shown[0])
    for option, value in (
        ("--probe-images", "volume.tif"),
        ("--probe-labels", "painted.tif"),
        ("--probe-ignore", "0"),
    ):
        assert words[words.index(option) + 1] == value

    dock.judge.setCurrentIndex(0)
    dock.judge.activated.emit(0)
    viewer.layers.remove(other)
    assert dock.judge.pair() is None
    viewer.layers.remove(labels)
    assert dock.judge.count() == 1


def test_labels_that_cannot_judge_are_told_and_the_run_goes_on(
    viewer: Any, dock: PretrainDock, layer: Any, volume: Any, finish: Finish
) -> None:
    paint(viewer, layer, volume, 1)
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FINISHED
    told = "\n".join(text for _, text in dock.panel.messages.texts)
    assert "fewer than two planes are painted" in told
    assert not dock.gauge.probe.points("probe")[0]
