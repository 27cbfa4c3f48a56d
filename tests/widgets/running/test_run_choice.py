import shutil
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_affmae.widgets.running.run_choice import RunChoice


def test_a_run_is_listed_once(finetuned: Path, runs: Path, qtbot: Any, tmp_path: Path) -> None:
    choice = RunChoice("none", {"finetune"})
    qtbot.addWidget(choice)
    elsewhere = tmp_path / "elsewhere" / "tiny"
    for path in (runs / "tiny", elsewhere):
        shutil.copytree(finetuned, path)
        assert choice.choose(path) is None
        assert choice.path() == path
    assert choice.combo.count() == 3


def test_the_newest_is_chosen_until_the_user_chooses(
    finetuned: Path, runs: Path, qtbot: Any
) -> None:
    choice = RunChoice("none", {"finetune"}, newest="finetune")
    qtbot.addWidget(choice)
    told: list[Path | None] = []
    choice.changed.connect(lambda: told.append(choice.path()))
    shutil.copytree(finetuned, runs / "first")
    choice.refresh()
    assert choice.path() == runs / "first"
    choice.combo.setCurrentIndex(0)
    choice.refresh()
    assert choice.path() is None
    assert told == [runs / "first", None]


@pytest.mark.parametrize(("name", "why"), [("empty", "no run"), ("tiny", "it is finished")])
def test_what_cannot_be_chosen_is_told(
    model: Path, runs: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    choice = RunChoice("none", {"finetune"}, resumable=True)
    qtbot.addWidget(choice)
    told: list[str] = []
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(runs / name))
    monkeypatch.setattr(QMessageBox, "information", lambda *words: told.append(words[-1]))
    choice.browse.click()
    assert why in told[0]
    assert choice.path() is None
