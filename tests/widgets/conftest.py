"""Real viewers on a virtual screen, tiny data, and folders of the tests' own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_affmae.data import synthetic_em
from napari_affmae.widgets import preferences
from napari_affmae.widgets.run_panel import Outcome, RunPanel

SECONDS = 120


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the runs; preferences are the test's own."""
    monkeypatch.setattr(preferences, "preferences_file", lambda: tmp_path / "preferences.json")
    folder = tmp_path / "runs"
    preferences.remember(runs=folder)
    return folder


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer()


@pytest.fixture(scope="session")
def volume() -> tuple[np.ndarray, np.ndarray]:
    """Image and labels, (4, 128, 160)."""
    return synthetic_em((4, 128, 160), seed=0)


@pytest.fixture
def finish(qtbot: Any) -> Callable[[RunPanel], Outcome]:
    """Wait for a run to end, and return how."""

    def wait(panel: RunPanel) -> Outcome:
        with qtbot.waitSignal(panel.ended, timeout=1000 * SECONDS) as ended:
            pass
        outcome: Outcome = ended.args[0]
        return outcome

    return wait
