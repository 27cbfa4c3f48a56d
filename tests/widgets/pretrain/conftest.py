"""A dock with settings of a run that takes a second."""

from pathlib import Path
from typing import Any

import pytest

from napari_affmae.config import PretrainConfig
from napari_affmae.data import open_source
from napari_affmae.engine import pretrain
from napari_affmae.engine.events import StepDone
from napari_affmae.widgets.pretrain.dock import PretrainDock


@pytest.fixture
def dock(viewer: Any, listed: Any) -> PretrainDock:
    _, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "1. Pretrain")
    listed(dock.training)
    listed(dock.start_from)
    dock.training.length.set_values(4, None)
    dock.training.form.set_values({"crop": 64, "batch": 2, "device": "cpu", "validation_steps": 2})
    return dock  # type: ignore[no-any-return]


@pytest.fixture
def layer(viewer: Any, dock: PretrainDock, volume: Any) -> Any:
    layer = viewer.add_image(volume[0], name="volume", scale=(8, 8, 8), units="nm")
    dock.sources.check_layer(layer)
    return layer


@pytest.fixture
def foreign(runs: Path, volume: Any) -> Path:
    """A run that was started outside the dock, with settings that it shows rounded or not."""
    config = PretrainConfig(
        crop=64,
        batch=1,
        device="cpu",
        minutes=5 / 3,
        betas=(0.9, 0.95),
        learning_rate=0.1234567890123 / 1000,
    )
    run = runs / "foreign"
    events = pretrain([open_source(volume[0], axes="ZYX", name="em")], config, run)
    while not isinstance(next(events), StepDone):
        pass
    events.close()
    return run
