"""What is loaded in the background, and when."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from napari_affmae.engine.events import Event
from napari_affmae.widgets.finetune import warming_up
from napari_affmae.widgets.finetune.dock import FinetuneDock

PAINT, PREDICT = "_load_to_paint", "_load_to_predict"


def test_torch_is_loaded_once_there_are_labels(
    viewer: Any, image: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def load(name: str) -> Iterator[Event]:
        loaded.append(name)
        yield from ()

    for name in (PAINT, PREDICT):
        monkeypatch.setattr(warming_up, name, partial(load, name))
    dock = FinetuneDock(viewer)
    qtbot.addWidget(dock)
    dock.show()
    qtbot.waitUntil(lambda: loaded == [PAINT])
    warming = dock.quick._warming
    qtbot.waitUntil(lambda: not warming._job.is_running and not warming._timer.isActive())
    assert loaded == [PAINT]
    dock.pairs.new_button.click()
    qtbot.waitUntil(lambda: loaded == [PAINT, PREDICT])
