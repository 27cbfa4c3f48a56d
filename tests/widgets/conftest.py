"""Real viewers on a virtual screen, tiny data, and folders of the tests' own."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from napari.layers import Labels

from napari_affmae.config import FinetuneConfig
from napari_affmae.data import SYNTHETIC_CLASSES, default_classes, open_source, synthetic_em
from napari_affmae.engine import finetune
from napari_affmae.engine.store.starting_weights import starting_weights
from napari_affmae.widgets.finetune.dock import FinetuneDock
from napari_affmae.widgets.parts import preferences
from napari_affmae.widgets.running import worker
from napari_affmae.widgets.running.run_choice import RunChoice
from napari_affmae.widgets.running.run_panel import Outcome, RunPanel
from napari_affmae.widgets.running.training_form import TrainingForm
from napari_affmae.widgets.running.triton_apart import load_triton_apart
from napari_affmae.widgets.running.worker import RunWorker

SECONDS = 120


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def _triton_apart() -> None:
    """Load it as workers do: some tests train in the window's thread, beside OpenGL."""
    load_triton_apart()


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the runs; preferences are the test's own."""
    monkeypatch.setattr(preferences, "preferences_file", lambda: tmp_path / "preferences.json")
    folder = tmp_path / "runs"
    preferences.remember(runs=folder)
    return folder


@pytest.fixture(autouse=True)
def _no_stepping_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers have their share of a busy machine: no one looks at the window here."""
    monkeypatch.setattr(worker, "_NICENESS", 0)


class NotedRest(threading.Event):
    """What a worker waits for while it is paused: knows whether the worker rests."""

    def __init__(self) -> None:
        super().__init__()
        self.set()
        self._lock, self._resting = threading.Lock(), 0

    def wait(self, timeout: float | None = None) -> bool:
        with self._lock:
            self._resting += 1
        is_set = super().wait(timeout)
        with self._lock:
            self._resting -= 1
        return is_set

    def is_waited_for(self) -> bool:
        """Whether the worker rests, and makes no step until it is told to."""
        with self._lock:
            return self._resting > 0 and not self.is_set()


@pytest.fixture
def note_rest() -> Callable[[RunWorker], Callable[[], bool]]:
    """Have a worker tell whether it rests."""

    def note(worker: RunWorker) -> Callable[[], bool]:
        worker._going = rest = NotedRest()
        return rest.is_waited_for

    return note


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer()


@pytest.fixture(scope="session")
def volume() -> tuple[np.ndarray, np.ndarray]:
    """Image and labels, (4, 128, 160)."""
    return synthetic_em((4, 128, 160), seed=0)


@pytest.fixture
def image(viewer: Any, volume: tuple[np.ndarray, np.ndarray]) -> Any:
    return viewer.add_image(
        volume[0], name="em", scale=(30, 8, 8), translate=(0, 80, 160), units=("nm",) * 3
    )


@pytest.fixture
def dock(viewer: Any, image: Any, qtbot: Any, listed: Any) -> FinetuneDock:
    """The dock that fine-tunes; tests of others have their own."""
    made = FinetuneDock(viewer)
    qtbot.addWidget(made)
    listed(made.start_from)
    listed(made.full.training.run_choice)
    return made


@pytest.fixture
def labels(dock: FinetuneDock) -> Labels:
    dock.pairs.new_button.click()
    return dock.pairs.pairs()[0][1]


@pytest.fixture
def finish(qtbot: Any) -> Callable[[RunPanel], Outcome]:
    """Wait for a run to end, and return how; one that does not even start is an error."""

    def wait(panel: RunPanel) -> Outcome:
        ended: list[Outcome] = []

        def is_over() -> bool:
            errors = [text for level, text in panel.messages.texts if level == "error"]
            assert panel.is_running or ended or not errors, errors
            return bool(ended)

        panel.ended.connect(ended.append)
        qtbot.waitUntil(is_over, timeout=1000 * SECONDS)
        panel.ended.disconnect(ended.append)
        return ended[0]

    return wait


@pytest.fixture
def listed(qtbot: Any) -> Callable[[RunChoice | TrainingForm[Any]], Path | None]:
    """Wait until the list of runs is read, and return the chosen one.

    Of a form, wait also for the settings of that run.
    """

    def wait(asked: RunChoice | TrainingForm[Any]) -> Path | None:
        choice = asked if isinstance(asked, RunChoice) else asked.run_choice
        qtbot.waitUntil(lambda: not choice.is_listing, timeout=1000 * SECONDS)
        if isinstance(asked, TrainingForm):
            qtbot.waitUntil(lambda: not asked.is_reading, timeout=1000 * SECONDS)
        return choice.path()

    return wait


@pytest.fixture(scope="session")
def finetuned(
    tmp_path_factory: pytest.TempPathFactory, volume: tuple[np.ndarray, np.ndarray]
) -> Path:
    """Run folder of a tiny network that was fine-tuned for a few steps; look, do not touch."""
    image, labels = (
        open_source(array, axes="ZYX", name=name)
        for array, name in zip(volume, ("em", "labels"), strict=True)
    )
    classes = tuple(
        item.model_copy(update={"name": name})
        for item, name in zip(default_classes(range(4)), SYNTHETIC_CLASSES, strict=True)
    )
    config = FinetuneConfig(
        crop=64, batch=2, steps=3, validation_steps=3, device="cpu", classes=classes
    )
    run = tmp_path_factory.mktemp("finetuned") / "tiny"
    for _ in finetune([(image, labels)], config, run):
        pass
    return run


@pytest.fixture
def weights() -> Path:
    """The smallest of the weights that come with the program."""
    return starting_weights()["em-nano"]


@pytest.fixture
def model(finetuned: Path, runs: Path) -> Path:
    """A copy of it among the test's own runs."""
    path = runs / finetuned.name
    shutil.copytree(finetuned, path)
    return path
