"""What both ways of training share, through the dock's own controls."""

import shlex
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari._app_model import get_app_model

from napari_affmae import engine
from napari_affmae.engine import events as ev
from napari_affmae.widgets.finetune.dock import FinetuneDock
from napari_affmae.widgets.parts.command_dialog import CommandDialog
from napari_affmae.widgets.running import plan_line
from napari_affmae.widgets.running.run_panel import Outcome

Finish = Callable[[Any], Outcome]
MILLISECONDS = 300_000


def test_a_plan_is_measured_once_full_training_is_looked_at(
    viewer: Any, labels: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(*_: Any, classes: int, **__: Any) -> Iterator[ev.Event]:
        measured.append(classes)
        yield from ()

    monkeypatch.setattr(engine, "measure_plan", measure)
    monkeypatch.setattr(plan_line, "_SETTLE_MILLISECONDS", 20)
    dock = FinetuneDock(viewer)
    qtbot.addWidget(dock)
    dock.show()
    plan = dock.full.training.plan
    qtbot.waitUntil(lambda: plan._offered is not None)
    assert not plan._timer.isActive()  # which is what measures
    assert not measured
    dock.full_button.setChecked(True)
    qtbot.waitUntil(lambda: measured == [len(dock.annotation.classes())], timeout=10_000)


def test_command_line(
    dock: FinetuneDock,
    labels: Any,
    model: Path,
    weights: Path,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    drive: Any,
    listed: Any,
    qtbot: Any,
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(CommandDialog, "exec", lambda self: shown.append(self.text.toPlainText()))
    drive.shorten(dock, 2)
    dock.start_from.choose(model)
    assert listed(dock.start_from) == model
    dock.command_button.click()
    qtbot.waitUntil(lambda: bool(shown))
    words = shlex.split(shown[0])
    assert words[:4] == ["napari-affmae", "finetune", "em.tif", "em labels.tif"]
    classes = [f"{item.value}={item.name}={item.color}" for item in dock.annotation.classes()]
    assert [words[at + 1] for at, word in enumerate(words) if word == "--class"] == classes
    options = dict(pairwise(words))
    assert (options["--crop"], options["--steps"]) == ("64", "2")
    assert options["--pretrained"] == str(model)
    assert Path(options["--out"]).parent == runs
    for path, word in ((weights, "em-nano"), (None, "none")):
        shown.clear()
        dock.start_from.choose(path)
        dock.command_button.click()
        qtbot.waitUntil(lambda: bool(shown))
        assert dict(pairwise(shlex.split(shown[0])))["--pretrained"] == word


def test_what_was_chosen_for_one_run_does_not_come_back(
    dock: FinetuneDock, labels: Any, viewer: Any, finish: Finish, qtbot: Any, drive: Any
) -> None:
    drive.shorten(dock, 2)
    dock.full.training.form.set_values({"device": "cpu"})
    drive.paint(labels, 1, (0, 20, 20))
    dock.panel.start_button.click()
    finish(dock.panel)
    again = FinetuneDock(viewer)
    qtbot.addWidget(again)
    assert again.quick_button.isChecked()
    assert again.full.training.form.differing() == [("device",)]
    assert again.full.training.length.values() == {"steps": None, "minutes": 30}


def test_a_labels_layer_without_an_image_is_refused_and_the_refusal_goes(
    viewer: Any, qtbot: Any, volume: tuple[np.ndarray, np.ndarray]
) -> None:
    dock = FinetuneDock(viewer)
    qtbot.addWidget(dock)
    dock.pairs.new_button.click()
    ((level, text),) = dock.quick.messages.texts
    assert level == "error"
    assert "no image to paint on" in text
    viewer.add_image(volume[0], name="em")
    assert not dock.quick.messages.texts
    dock.pairs.new_button.click()
    assert dock.pairs.pairs()


def test_menu_makes_labels_and_opens_the_dock(
    make_napari_viewer: Callable[..., Any], volume: tuple[np.ndarray, np.ndarray]
) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(volume[0], name="em")
    get_app_model().commands.execute_command("napari-affmae.annotate_layer").result()
    assert viewer.layers.selection.active.name == "em labels"
    (dock,) = viewer.window.dock_widgets.values()
    assert [labels.name for _, labels in dock.pairs.pairs()] == ["em labels"]


def test_closed_dock_hears_no_more(viewer: Any, image: Any, qtbot: Any) -> None:
    layers, dims = viewer.layers.events, viewer.dims.events
    emitters = (layers.inserted, layers.removed, layers.renamed, dims.current_step)
    before = [len(emitter.callbacks) for emitter in emitters]
    dock = FinetuneDock(viewer)
    dock.pairs.new_button.click()
    labels = dock.pairs.pairs()[0][1]
    with qtbot.waitSignal(dock.destroyed):
        dock.deleteLater()
    assert [len(emitter.callbacks) for emitter in emitters] == before
    labels.paint((0, 20, 20), 1)
    labels.selected_label = 2
    labels.name = "renamed"
    viewer.add_image(image.data)
    viewer.dims.set_current_step(0, 1)
    viewer.layers.clear()
