"""Keeping runs and models in order through the dock."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMessageBox

from napari_affmae.engine import read_metadata
from napari_affmae.engine.store.housekeeping import export_model
from napari_affmae.widgets.models.dock import ModelsDock
from napari_affmae.widgets.models.import_dialog import ImportDialog
from napari_affmae.widgets.parts import preferences
from napari_affmae.widgets.parts.preferences import load_preferences


@pytest.fixture
def dock(viewer: Any, model: Path) -> ModelsDock:
    _, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "Runs and models")
    dock.choose(model)
    return dock


def errors(dock: ModelsDock) -> list[str]:
    return [text for level, text in dock.messages.texts if level == "error"]


def names(dock: ModelsDock) -> list[str]:
    return [dock.list.topLevelItem(i).text(0) for i in range(dock.list.topLevelItemCount())]


def test_the_chosen_run(dock: ModelsDock, model: Path, qtbot: Any) -> None:
    assert names(dock) == ["tiny"]
    assert "membrane" in dock.card.text()
    qtbot.waitUntil(lambda: len(dock.curves.points("training")[0]) == 3, timeout=30_000)
    assert dock.curves.points("validation")[0] == [3]
    assert dock.curves.isVisibleTo(dock)


def test_a_model_file_has_no_curves_of_the_run_chosen_before(
    dock: ModelsDock, model: Path, runs: Path, qtbot: Any
) -> None:
    qtbot.waitUntil(lambda: not dock._log.is_running, timeout=30_000)
    export_model(model, runs / "file.safetensors")
    dock.choose(model)
    dock.choose(runs / "file.safetensors")
    assert not dock._log.is_running
    qtbot.wait(200)
    assert dock.curves.points("training")[0] == []


def test_nothing_chosen(viewer: Any, runs: Path, qtbot: Any) -> None:
    dock = ModelsDock(viewer)
    qtbot.addWidget(dock)
    assert names(dock) == []
    assert not any(button.isEnabled() for button in dock._of_chosen)


def test_renaming(
    dock: ModelsDock, model: Path, monkeypatch: pytest.MonkeyPatch, qtbot: Any
) -> None:
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: ("better", True))
    dock.rename_button.click()
    assert dock.path() == model.with_name("better")
    assert not model.exists()
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: ("a/b", True))
    dock.rename_button.click()
    assert "cannot be a name" in errors(dock)[0]
    assert dock.path() == model.with_name("better")


def test_deleting(
    dock: ModelsDock, model: Path, monkeypatch: pytest.MonkeyPatch, qtbot: Any
) -> None:
    asked: list[str] = []

    def answer(button: Any) -> None:
        def question(*arguments: Any) -> Any:
            asked.append(arguments[2])
            return button

        monkeypatch.setattr(QMessageBox, "question", question)

    answer(QMessageBox.StandardButton.No)
    dock.delete_button.click()
    assert model.exists()
    assert str(model) in asked[0]
    (model / "mine.txt").write_text("notes")
    answer(QMessageBox.StandardButton.Yes)
    dock.delete_button.click()
    assert "mine.txt" in errors(dock)[0]
    assert dock.path() == model
    (model / "mine.txt").unlink()
    dock.delete_button.click()
    assert not model.exists()
    assert names(dock) == []
    assert errors(dock) == []


def test_exporting(
    dock: ModelsDock, model: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, qtbot: Any
) -> None:
    target = runs / "shared"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    dock.export_button.click()
    assert read_metadata(target.with_suffix(".safetensors")).classes
    assert dock.path() == target.with_suffix(".safetensors")
    assert sorted(names(dock)) == ["shared", "tiny"]
    nowhere = target.with_suffix(".safetensors") / "file"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(nowhere), ""))
    dock.export_button.click()
    assert f"cannot write {nowhere}" in errors(dock)[0]


def test_another_folder(
    dock: ModelsDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qtbot: Any
) -> None:
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "else"))
    dock.change_button.click()
    assert load_preferences().runs == tmp_path / "else"
    assert names(dock) == []
    assert str(tmp_path / "else") in dock.folder.text()


def test_a_folder_that_cannot_be_remembered(
    dock: ModelsDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(preferences, "preferences_file", lambda: tmp_path / "file" / "x.json")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "else"))
    dock.change_button.click()
    assert str(tmp_path / "file") in errors(dock)[0]


def test_opening_the_folder(
    dock: ModelsDock, model: Path, monkeypatch: pytest.MonkeyPatch, qtbot: Any
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", opened.append)
    dock.open_button.click()
    assert Path(opened[0].toLocalFile()) == model


def test_damaged_runs_are_listed_with_their_problem(
    dock: ModelsDock, model: Path, runs: Path, qtbot: Any
) -> None:
    record = model / "run.json"
    record.write_text(json.dumps({"format": 99}))
    dock.refresh_button.click()
    assert dock.list.topLevelItem(0).text(2) == "cannot be used"
    assert "newer version" in dock.card.text()
    assert not dock.export_button.isEnabled()


def test_importing(dock: ModelsDock, runs: Path, tmp_path: Path, qtbot: Any) -> None:
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
    qtbot.waitUntil(dock.import_button.isEnabled, timeout=60_000)
    assert "does not hold the weights" in errors(dock)[0]
    assert not chosen[1].exists()


def test_a_checkpoint_of_the_paper_comes_in(
    dock: ModelsDock, runs: Path, tmp_path: Path, request: pytest.FixtureRequest, qtbot: Any
) -> None:
    weights: dict[str, torch.Tensor] = {}
    for path in sorted((request.config.rootpath / "tests/model/golden").glob("weights*.npz")):
        weights |= {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    torch.save(weights, tmp_path / "authors.pth")
    dock.import_file(tmp_path / "authors.pth", runs / "authors.safetensors", "segment")
    qtbot.waitUntil(dock.import_button.isEnabled, timeout=60_000)
    assert errors(dock) == []
    assert "imported as" in dock.messages.texts[0][1]
    assert dock.path() == runs / "authors.safetensors"
    assert "class&nbsp;1" in dock.card.text()
