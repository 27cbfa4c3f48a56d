"""Keeping runs and models in order through the dock."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication, QFileDialog, QInputDialog, QMessageBox

from napari_affmae import engine
from napari_affmae.engine import read_metadata
from napari_affmae.engine.store.housekeeping import export_model
from napari_affmae.widgets.models import dock as models_dock
from napari_affmae.widgets.models.dock import ModelsDock
from napari_affmae.widgets.models.import_dialog import ImportDialog
from napari_affmae.widgets.parts import preferences
from napari_affmae.widgets.parts.preferences import kept_features, load_preferences
from napari_affmae.widgets.running import run_listing

Settle = Callable[[ModelsDock], None]


@pytest.fixture
def settle(qtbot: Any) -> Settle:
    """Wait until nothing is being changed, and the list is that of the disk."""

    def is_settled(dock: ModelsDock) -> bool:
        jobs = (dock._change, dock._import)
        return not (dock._listing.is_reading or any(job.is_running for job in jobs))

    return lambda dock: qtbot.waitUntil(lambda: is_settled(dock), timeout=60_000)


@pytest.fixture
def dock(viewer: Any, model: Path, settle: Settle) -> ModelsDock:
    _, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "Runs and models")
    dock.choose(model)
    settle(dock)
    assert dock.path() == model
    return dock


def errors(dock: ModelsDock) -> list[str]:
    return [text for level, text in dock.messages.texts if level == "error"]


def names(dock: ModelsDock) -> list[str]:
    return [dock.list.topLevelItem(i).text(0) for i in range(dock.list.topLevelItemCount())]


def test_the_chosen_run(dock: ModelsDock, model: Path, qtbot: Any, settle: Settle) -> None:
    assert names(dock) == ["tiny"]
    assert "membrane" in dock.card.text()
    qtbot.waitUntil(lambda: len(dock.curves.points("training")[0]) == 3, timeout=30_000)
    assert dock.curves.points("validation")[0] == [3]
    assert dock.curves.isVisibleTo(dock)


def test_a_model_file_has_no_curves_of_the_run_chosen_before(
    dock: ModelsDock,
    model: Path,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    qtbot: Any,
    settle: Settle,
) -> None:
    may_read, read_metrics = threading.Event(), engine.read_metrics

    def read_slowly(path: Path) -> Any:
        assert may_read.wait(30)
        return read_metrics(path)

    monkeypatch.setattr(engine, "read_metrics", read_slowly)
    export_model(model, runs / "file.safetensors")
    dock.choose(model)
    settle(dock)
    reading = dock._log._worker
    dock.choose(runs / "file.safetensors")
    settle(dock)
    may_read.set()
    qtbot.waitUntil(lambda: reading.wait(0))
    QApplication.processEvents()  # brings what it has still reported
    assert dock.curves.points("training")[0] == []


def test_the_window_lives_while_a_slow_disk_is_read_and_written(
    dock: ModelsDock, model: Path, monkeypatch: pytest.MonkeyPatch, qtbot: Any, settle: Settle
) -> None:
    answers, threads = threading.Event(), []

    def slow(module: Any, name: str) -> None:
        function = getattr(module, name)

        def wait(*arguments: Any) -> Any:
            threads.append(threading.current_thread())
            assert answers.wait(30)
            return function(*arguments)

        monkeypatch.setattr(module, name, wait)

    slow(run_listing, "list_runs")
    slow(models_dock, "rename_run")
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: ("better", True))
    dock.refresh_button.click()
    dock.rename_button.click()
    qtbot.waitUntil(lambda: len(threads) == 2)
    assert names(dock) == ["tiny"]
    assert dock.path() == model
    assert not dock.rename_button.isEnabled()  # one change at a time
    answers.set()
    settle(dock)
    assert names(dock) == ["better"]
    assert dock.path() == model.with_name("better")
    assert dock.rename_button.isEnabled()
    assert threading.main_thread() not in threads


def test_nothing_chosen(viewer: Any, runs: Path, qtbot: Any, settle: Settle) -> None:
    dock = ModelsDock(viewer)
    qtbot.addWidget(dock)
    settle(dock)
    assert names(dock) == []
    assert not any(button.isEnabled() for button in dock._of_chosen)


def test_renaming(
    dock: ModelsDock, model: Path, monkeypatch: pytest.MonkeyPatch, qtbot: Any, settle: Settle
) -> None:
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: ("better", True))
    dock.rename_button.click()
    settle(dock)
    assert dock.path() == model.with_name("better")
    assert not model.exists()
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: ("a/b", True))
    dock.rename_button.click()
    settle(dock)
    assert "cannot be a name" in errors(dock)[0]
    assert dock.path() == model.with_name("better")


def test_deleting(
    dock: ModelsDock, model: Path, monkeypatch: pytest.MonkeyPatch, qtbot: Any, settle: Settle
) -> None:
    asked: list[str] = []

    def answer(button: Any) -> None:
        def question(*arguments: Any) -> Any:
            asked.append(arguments[2])
            return button

        monkeypatch.setattr(QMessageBox, "question", question)

    answer(QMessageBox.StandardButton.No)
    dock.delete_button.click()
    settle(dock)
    assert model.exists()
    assert str(model) in asked[0]
    (model / "mine.txt").write_text("notes")
    answer(QMessageBox.StandardButton.Yes)
    dock.delete_button.click()
    settle(dock)
    assert "mine.txt" in errors(dock)[0]
    assert dock.path() == model
    (model / "mine.txt").unlink()
    dock.delete_button.click()
    settle(dock)
    assert not model.exists()
    assert names(dock) == []
    assert errors(dock) == []


def test_exporting(
    dock: ModelsDock,
    model: Path,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    qtbot: Any,
    settle: Settle,
) -> None:
    target = runs / "shared"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    dock.export_button.click()
    settle(dock)
    assert read_metadata(target.with_suffix(".safetensors")).classes
    assert dock.path() == target.with_suffix(".safetensors")
    assert sorted(names(dock)) == ["shared", "tiny"]
    nowhere = target.with_suffix(".safetensors") / "file"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(nowhere), ""))
    dock.export_button.click()
    settle(dock)
    assert f"cannot write {nowhere}" in errors(dock)[0]


def test_another_folder(
    dock: ModelsDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qtbot: Any, settle: Settle
) -> None:
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "else"))
    dock.change_button.click()
    settle(dock)
    assert load_preferences().runs == tmp_path / "else"
    assert names(dock) == []
    assert str(tmp_path / "else") in dock.folder.text()


def test_less_may_be_kept_for_painting(dock: ModelsDock, runs: Path, qtbot: Any) -> None:
    kept = kept_features()
    kept.put(bytes(32), np.zeros(4, np.float32))
    kept.wait()
    (file,) = (runs / "features").iterdir()
    control: Any = dock.limits.control("features_gb")
    assert control.value() == load_preferences().features_gb == 2
    control.setValue(1)
    qtbot.waitUntil(lambda: load_preferences().features_gb == 1, timeout=60_000)
    control.setValue(0)
    qtbot.waitUntil(lambda: not file.exists(), timeout=60_000)
    kept.put(bytes(32), np.zeros(4, np.float32))
    kept.wait()
    assert not file.exists()


def test_a_folder_that_cannot_be_remembered(
    dock: ModelsDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settle: Settle
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(preferences, "preferences_file", lambda: tmp_path / "file" / "x.json")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "else"))
    dock.change_button.click()
    settle(dock)
    assert str(tmp_path / "file") in errors(dock)[0]


def test_opening_the_folder(
    dock: ModelsDock, model: Path, monkeypatch: pytest.MonkeyPatch, qtbot: Any, settle: Settle
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", opened.append)
    dock.open_button.click()
    assert Path(opened[0].toLocalFile()) == model


def test_damaged_runs_are_listed_with_their_problem(
    dock: ModelsDock, model: Path, runs: Path, qtbot: Any, settle: Settle
) -> None:
    record = model / "run.json"
    record.write_text(json.dumps({"format": 99}))
    dock.refresh_button.click()
    settle(dock)
    assert dock.list.topLevelItem(0).text(2) == "cannot be used"
    assert "newer version" in dock.card.text()
    assert not dock.export_button.isEnabled()


def test_importing(
    dock: ModelsDock, runs: Path, tmp_path: Path, qtbot: Any, settle: Settle
) -> None:
    checkpoint = tmp_path / "authors.pth"
    torch.save({"model": {"nothing.weight": torch.zeros(3)}}, checkpoint)
    dialog = ImportDialog(runs, dock)
    qtbot.addWidget(dialog)
    assert not dialog.ok_button.isEnabled()
    dialog.file.setText(str(checkpoint))
    assert dialog.name.text() == "authors"
    assert dialog.ok_button.isEnabled()
    dialog.name.setText("tiny/")
    assert not dialog.ok_button.isEnabled()
    dialog.name.setText("authors")
    chosen = dialog.chosen()
    assert chosen == (checkpoint, runs / "authors.safetensors", "pretrain")
    dock.import_file(*chosen)
    settle(dock)
    assert "does not hold the weights" in errors(dock)[0]
    assert not chosen[1].exists()


def test_a_checkpoint_of_the_paper_comes_in(
    dock: ModelsDock,
    runs: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    qtbot: Any,
    settle: Settle,
) -> None:
    weights: dict[str, torch.Tensor] = {}
    for path in sorted((request.config.rootpath / "tests/model/golden").glob("weights*.npz")):
        weights |= {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    torch.save(weights, tmp_path / "authors.pth")
    dock.import_file(tmp_path / "authors.pth", runs / "authors.safetensors", "segment")
    settle(dock)
    assert errors(dock) == []
    assert "imported as" in dock.messages.texts[0][1]
    assert dock.path() == runs / "authors.safetensors"
    assert "class&nbsp;1" in dock.card.text()
