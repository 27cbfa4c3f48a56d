"""The dock that fine-tunes, and how tests paint in it."""

import threading
from pathlib import Path
from typing import Any

import pytest
from napari.layers import Labels

from napari_affmae.engine.store.run_names import new_run_path
from napari_affmae.widgets.finetune import quick_panel, stroke_keeper
from napari_affmae.widgets.finetune.dock import FinetuneDock


class Drive:
    """Paints, and chooses what ends soon."""

    def paint(self, layer: Labels, value: int, *places: tuple[int, int, int]) -> None:
        for place in places:
            layer.paint(place, value)

    def paint_both(self, layer: Labels, plane: int) -> None:
        """Paint two classes on a plane."""
        self.paint(layer, 1, (plane, 20, 20), (plane, 60, 40))
        self.paint(layer, 2, (plane, 40, 60), (plane, 90, 100))

    def shorten(self, dock: FinetuneDock, steps: int) -> None:
        """Choose a full training of a few steps on small crops."""
        dock.full_button.setChecked(True)
        form = dock.full.training.form
        for name, value in {"crop": 64, "batch": 1, "validation_steps": 2}.items():
            form.control(name).setValue(value)
        dock.full.training.length.set_values(steps, None)

    def errors(self, messages: Any) -> str:
        return "\n".join(text for level, text in messages.texts if level == "error")


@pytest.fixture
def naming(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Threads in which names of new models and folders are looked for on disk."""
    threads: list[threading.Thread] = []

    def note(*words: Any, **more: Any) -> Path:
        threads.append(threading.current_thread())
        return new_run_path(*words, **more)

    for module in (quick_panel, stroke_keeper):
        monkeypatch.setattr(module, "new_run_path", note)
    return threads


@pytest.fixture
def drive() -> Drive:
    return Drive()
