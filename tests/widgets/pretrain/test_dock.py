import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_affmae import engine
from napari_affmae.engine import list_runs
from napari_affmae.engine.training import pretraining
from napari_affmae.errors import DiskFullError
from napari_affmae.widgets.parts import preferences
from napari_affmae.widgets.parts.command_dialog import CommandDialog
from napari_affmae.widgets.pretrain.dock import PretrainDock
from napari_affmae.widgets.running import plan_line
from napari_affmae.widgets.running.run_panel import Outcome, RunPanel

Finish = Callable[[RunPanel], Outcome]


def texts(dock: PretrainDock) -> str:
    return "\n".join(text for _, text in dock.panel.messages.texts)


def test_pretrain_from_a_layer(
    viewer: Any, dock: PretrainDock, layer: Any, runs: Path, finish: Finish
) -> None:
    dock.panel.start_button.click()
    assert not dock.training.form.isVisibleTo(dock)
    assert finish(dock.panel) is Outcome.FINISHED
    assert dock.training.form.isVisibleTo(dock)
    (run,) = list_runs(runs)
    assert (run.kind, run.steps, run.finished) == ("pretrain", 4, True)
    assert run.sources == ("volume",)
    assert dock.curves.points("training")[0] == [1, 2, 3, 4]
    assert dock.curves.points("validation")[0] == [0, 2, 4]
    steps, ranks = dock.gauge.ranks.points("1")
    assert steps == [0, 2, 4]
    assert min(ranks) > 1
    assert list(dock.preview.images) == ["input", "masked", "reconstruction", "error"]
    dock.layers_button.click()
    added = [other.name for other in viewer.layers if other is not layer]
    assert added == [f"crops: {name}" for name in dock.preview.images]
    # The plugin's own pictures are no input.
    assert dock.sources._list.count() == 1


def test_pretraining_goes_on_from_shipped_weights_unless_told_otherwise(
    dock: PretrainDock,
    layer: Any,
    runs: Path,
    weights: Path,
    finish: Finish,
    listed: Any,
    viewer: Any,
    qtbot: Any,
) -> None:
    preset = dock.training.form.control("preset")
    assert dock.start_from.path() == weights
    assert "electron microscopy" in dock.card.text()
    assert not preset.isEnabled()
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FINISHED
    assert "it starts from em-nano" in texts(dock)
    (run,) = list_runs(runs)
    assert run.pretrained == "em-nano"
    listed(dock.training)
    listed(dock.start_from)
    assert dock.start_from.path() == weights  # the new run is too short to be better

    dock.start_from.choose(None)
    assert preset.isEnabled()
    assert dock.card.isHidden()
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FINISHED
    assert "random weights" in texts(dock)
    assert sorted(run.pretrained or "" for run in list_runs(runs)) == ["", "em-nano"]


def test_shipped_weights_for_other_channels_are_not_started_from(
    dock: PretrainDock, viewer: Any, weights: Path, qtbot: Any, finish: Finish
) -> None:
    assert dock.start_from.path() == weights
    colour = viewer.add_image(np.zeros((96, 96, 3), np.uint8) + 7, name="colour", rgb=True)
    dock.sources.check_layer(colour)
    qtbot.waitUntil(lambda: dock.start_from.path() is None)
    dock.sources.channels.edit.setText("0")
    dock.sources.channels.edit.editingFinished.emit()
    qtbot.waitUntil(lambda: dock.start_from.path() == weights)


def test_the_layer_may_be_renamed_and_removed_during_a_run(
    viewer: Any, dock: PretrainDock, layer: Any, runs: Path, finish: Finish, qtbot: Any
) -> None:
    dock.training.length.set_values(12, None)
    dock.panel.start_button.click()
    qtbot.waitUntil(lambda: bool(dock.curves.points("training")[0]), timeout=60_000)
    layer.name = "another"
    viewer.layers.remove(layer)
    assert finish(dock.panel) is Outcome.FINISHED
    assert list_runs(runs)[0].steps == 12


def test_without_an_image_the_dock_says_what_to_do(dock: PretrainDock) -> None:
    dock.panel.start_button.click()
    assert not dock.panel.is_running
    assert "No image is chosen" in texts(dock)


def test_a_refusal_goes_when_its_cause_is_gone(
    dock: PretrainDock, viewer: Any, volume: Any, qtbot: Any
) -> None:
    dock.panel.start_button.click()
    assert texts(dock)
    viewer.add_image(volume[0], name="em")
    qtbot.waitUntil(lambda: not texts(dock))


def test_only_the_last_refusal_is_shown(
    dock: PretrainDock, layer: Any, finish: Finish, listed: Any
) -> None:
    dock.panel.start_button.click()
    finish(dock.panel)
    listed(dock.training)
    listed(dock.start_from)
    for entered, what in (("2", "mask ratio"), ("0.5", "No image")):
        dock.training.form.control("mask_ratio").setText(entered)
        dock.sources.check_layer(layer, checked=what != "No image")
        dock.panel.start_button.click()
        ((_, told),) = dock.panel.messages.texts
        assert what in told
        assert not dock.panel.status.text()


def test_a_folder_of_runs_that_cannot_be_used_is_named(
    dock: PretrainDock, layer: Any, tmp_path: Path, finish: Finish
) -> None:
    (tmp_path / "file").touch()
    preferences.remember(runs=tmp_path / "file" / "runs")
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FAILED
    assert str(tmp_path / "file" / "runs") in texts(dock)
    assert "Runs and models > Change" in texts(dock)
    assert "Unexpected error" not in texts(dock)


def test_a_failed_start_leaves_no_run_to_choose(
    dock: PretrainDock, layer: Any, runs: Path, finish: Finish, listed: Any
) -> None:
    layer.data = np.full(layer.data.shape, np.nan, np.float32)
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FAILED
    assert list_runs(runs) == []
    assert listed(dock.training) is None
    assert dock.training.run_choice.combo.count() == 1


def test_settings_that_do_not_fit_are_named(dock: PretrainDock, layer: Any) -> None:
    dock.training.form.control("mask_ratio").setText("2")
    dock.panel.start_button.click()
    assert not dock.panel.is_running
    assert "mask ratio" in texts(dock)


@pytest.mark.parametrize("kind", [RuntimeError, TypeError])
def test_any_error_of_the_engine_ends_in_the_dock(
    dock: PretrainDock,
    layer: Any,
    finish: Finish,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise kind("a tensor has the wrong size")

    with monkeypatch.context() as patched:
        patched.setattr(pretraining.Pretraining, "loss", broken)
        dock.panel.start_button.click()
        assert finish(dock.panel) is Outcome.FAILED
    assert f"{kind.__name__}: a tensor has the wrong size" in texts(dock)
    assert "in broken" in caplog.text  # the traceback
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FINISHED


def test_two_kinds_of_channels_are_refused(
    viewer: Any, dock: PretrainDock, layer: Any, finish: Finish
) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    dock.sources.check_layer(viewer.add_image(rgb, rgb=True, name="colours"))
    dock.panel.start_button.click()
    assert finish(dock.panel) is Outcome.FAILED
    assert "channels" in texts(dock)


def test_crops_become_layers_at_each_plane_of_the_image(
    viewer: Any, dock: PretrainDock, image: Any
) -> None:
    viewer.dims.set_current_step(0, 3)
    planes, units = viewer.dims.range, viewer.layers.extent.units
    blank = np.zeros((2, 64, 64), np.float32)
    dock.preview.show_images({"input": blank, "error": blank})
    for _ in range(2):
        dock.layers_button.click()
        first, second = viewer.layers[1:]
        assert [first.name, second.name] == ["crops: input", "crops: error"]
    assert viewer.dims.range[0] == planes[0]
    assert viewer.layers.extent.units == units
    # Pixels of the image's size, beside each other.
    assert tuple(first.scale) == tuple(image.scale[1:])
    assert second.extent.world[0, 1] > first.extent.world[1, 1]


def test_the_plan_is_measured(
    viewer: Any, volume: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_line, "_SETTLE_MILLISECONDS", 20)
    dock = PretrainDock(viewer)
    qtbot.addWidget(dock)
    dock.show()
    dock.training.length.set_values(100, None)
    plan = dock.training.plan
    assert plan.isVisible()
    assert not plan._timer.isActive()  # which is what measures: there is no image yet
    dock.sources.check_layer(viewer.add_image(volume[0]))
    qtbot.waitUntil(lambda: "100 steps" in dock.training.plan.text(), timeout=60_000)
    assert dock.training.plan.text().startswith("CPU")
    assert "a step" in dock.training.plan.text()
    with qtbot.waitSignal(dock.sources.summarized):
        viewer.layers.remove(viewer.add_image(volume[0]))
    assert "100 steps" in dock.training.plan.text()
    viewer.layers.clear()
    qtbot.waitUntil(lambda: not dock.training.plan.text())


def test_no_plan_is_measured_beside_a_run(
    viewer: Any, volume: Any, qtbot: Any, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Any] = []
    monkeypatch.setattr(plan_line, "_SETTLE_MILLISECONDS", 20)
    monkeypatch.setattr(engine, "measure_plan", lambda *_, **__: measured.append(1) or iter(()))
    dock = PretrainDock(viewer)
    qtbot.addWidget(dock)
    dock.show()
    dock.training.length.set_values(5000, None)
    dock.sources.check_layer(viewer.add_image(volume[0]))
    dock.panel.start_button.click()
    with qtbot.waitSignal(dock.sources.summarized):
        pass
    assert dock.training.plan._offered is not None
    assert not dock.training.plan._timer.isActive()  # which is what measures
    assert not measured
    dock.panel.stop_button.click()
    finish(dock.panel)
    qtbot.waitUntil(lambda: bool(measured), timeout=10_000)


def test_long_runs_show_numbers_that_can_be_read(dock: PretrainDock) -> None:
    dock.panel.show_progress(16, 5_848_200, "")
    assert dock.panel.bar.text() == "16 of 5,848,200"


def test_what_was_chosen_for_one_run_does_not_come_back(
    viewer: Any, dock: PretrainDock, layer: Any, finish: Finish
) -> None:
    dock.training.form.control("mask_ratio").setText("0.6")
    dock.training.form.control("memory_share").setText("0.2")
    dock.panel.start_button.click()
    finish(dock.panel)
    other = PretrainDock(viewer)
    assert other.training.form.values()["mask_ratio"] == 0.5
    assert other.training.form.values()["memory_share"] == 0.2
    assert other.training.length.values() == {"steps": None, "minutes": 60}
    other.deleteLater()


def test_a_run_starts_though_nothing_can_be_remembered(
    dock: PretrainDock, layer: Any, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise DiskFullError("the disk is full")

    monkeypatch.setattr(preferences, "replace_bytes", full)
    dock.panel.start_button.click()
    assert "not remembered" in texts(dock)
    assert finish(dock.panel) is Outcome.FINISHED


def test_command_line(
    dock: PretrainDock,
    layer: Any,
    foreign: Path,
    monkeypatch: pytest.MonkeyPatch,
    listed: Any,
    qtbot: Any,
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(CommandDialog, "exec", lambda self: shown.append(self.text.toPlainText()))
    dock.command_button.click()
    qtbot.waitUntil(lambda: len(shown) == 1)
    assert shown[-1].startswith("napari-affmae pretrain volume.tif --crop 64 --batch 2 --steps 4")
    # What goes on keeps its settings: only what is changed is named.
    dock.training.run_choice.choose(foreign)
    listed(dock.training)
    dock.training.length.set_values(None, 30)
    dock.command_button.click()
    qtbot.waitUntil(lambda: len(shown) == 2)
    assert shown[-1] == (
        f"napari-affmae pretrain volume.tif --minutes 30 --resume --out {shlex.quote(str(foreign))}"
    )
