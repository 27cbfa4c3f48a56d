"""Choosing a run while the list is read in the background."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_affmae.engine.store.starting_weights import starting_weights
from napari_affmae.widgets.running import run_listing
from napari_affmae.widgets.running.run_choice import RunChoice

Listed = Callable[[RunChoice], Path | None]


class SlowDisk:
    """Answers when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = threading.Event()
        self.threads: list[threading.Thread] = []
        list_runs = run_listing.list_runs

        def wait(folder: Path) -> Any:
            self.threads.append(threading.current_thread())
            assert self.answers.wait(30)
            return list_runs(folder)

        monkeypatch.setattr(run_listing, "list_runs", wait)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    return SlowDisk(monkeypatch)


def test_the_window_lives_while_a_slow_disk_is_read(
    model: Path, slow_disk: SlowDisk, qtbot: Any, listed: Listed
) -> None:
    choice = RunChoice("none", {"finetune"})
    qtbot.addWidget(choice)
    choice.choose(model)
    ticks: list[int] = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start(1)
    done: list[Path | None] = []
    choice.when_listed(lambda: done.append(choice.path()))
    qtbot.waitUntil(lambda: len(ticks) > 10 and bool(slow_disk.threads))
    timer.stop()
    assert choice.is_listing
    assert [choice.combo.itemText(i) for i in range(choice.combo.count())] == ["none"]
    assert not done
    slow_disk.answers.set()
    assert listed(choice) == model
    assert done == [model]
    assert threading.main_thread() not in slow_disk.threads


def test_what_the_user_chooses_meanwhile_stays(
    model: Path, runs: Path, qtbot: Any, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model, runs / "other")
    choice = RunChoice("none", {"finetune"})
    qtbot.addWidget(choice)
    listed(choice)
    slow_disk = SlowDisk(monkeypatch)
    choice.refresh(wanted=runs / "other")
    choice.combo.setCurrentIndex(choice.combo.findText("tiny"))
    slow_disk.answers.set()
    assert listed(choice) == model


def test_a_run_is_listed_once(
    finetuned: Path, runs: Path, qtbot: Any, tmp_path: Path, listed: Listed
) -> None:
    choice = RunChoice("none", {"finetune"})
    qtbot.addWidget(choice)
    elsewhere = tmp_path / "elsewhere" / "tiny"
    for path in (runs / "tiny", elsewhere):
        shutil.copytree(finetuned, path)
        choice.choose(path)
        assert listed(choice) == path
    assert choice.combo.count() == 3


def test_the_preferred_is_chosen_until_the_user_chooses(
    finetuned: Path, runs: Path, qtbot: Any, listed: Listed
) -> None:
    choice = RunChoice("none", {"finetune"}, preferred=lambda runs: runs[0] if runs else None)
    qtbot.addWidget(choice)
    told: list[Path | None] = []
    choice.changed.connect(lambda: told.append(choice.path()))
    shutil.copytree(finetuned, runs / "first")
    choice.refresh()
    assert listed(choice) == runs / "first"
    choice.combo.setCurrentIndex(0)
    choice.refresh()
    assert listed(choice) is None
    assert told == [runs / "first", None]


def test_shipped_weights_stand_first_where_they_are_offered(
    model: Path, runs: Path, qtbot: Any, listed: Listed, weights: Path
) -> None:
    names: dict[str, list[str]] = {}
    # Both live to the end: what Python collects in the middle of Qt's loop can crash PySide6.
    choices = {
        kinds: RunChoice("none", kinds.split()) for kinds in ("weights finetune", "finetune")
    }
    for kinds, choice in choices.items():
        qtbot.addWidget(choice)
        assert listed(choice) is None
        names[kinds] = [choice.combo.itemText(i) for i in range(choice.combo.count())]
        choice.choose(weights)
        assert choice.path() == (weights if "weights" in kinds else None)
    assert names == {
        "weights finetune": [*starting_weights(), "none", "tiny"],
        "finetune": ["none", "tiny"],
    }


def test_only_networks_without_classes_can_be_pretrained_on(
    model: Path, qtbot: Any, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = RunChoice("none", {"finetune"}, segmenting=False)
    qtbot.addWidget(choice)
    assert listed(choice) is None
    assert choice.combo.count() == 1


def test_an_open_list_shows_new_runs(model: Path, runs: Path, qtbot: Any, listed: Listed) -> None:
    choice = RunChoice("none", {"finetune"})
    qtbot.addWidget(choice)
    choice.show()
    listed(choice)
    shutil.copytree(model, runs / "other")
    choice.combo.showPopup()
    listed(choice)
    assert choice.combo.count() == 3
    assert choice.combo.view().isVisible()
    choice.combo.hidePopup()


@pytest.mark.parametrize(("name", "why"), [("empty", "no run"), ("tiny", "it is finished")])
def test_a_run_that_cannot_be_chosen_is_refused(
    model: Path,
    runs: Path,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
    listed: Listed,
    name: str,
    why: str,
) -> None:
    choice = RunChoice("none", {"finetune"}, resumable=True)
    qtbot.addWidget(choice)
    told: list[str] = []
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(runs / name))
    monkeypatch.setattr(QMessageBox, "information", lambda *words: told.append(words[-1]))
    choice.browse.click()
    assert listed(choice) is None
    assert why in told[0]
