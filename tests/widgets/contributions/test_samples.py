"""Sample data as napari's menu opens it."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from napari.layers import Layer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_affmae import data
from napari_affmae.data import default_classes
from napari_affmae.errors import AffmaeError
from napari_affmae.widgets.contributions.samples import (
    LayerData,
    real_em_layers,
    synthetic_em_layers,
)
from napari_affmae.widgets.parts.progress_dialog import WaitingDialog


def check(layers: list[LayerData], nanometres: float) -> None:
    image, labels = (Layer.create(*layer) for layer in layers)
    assert image.data.shape == labels.data.shape
    for layer in (image, labels):
        assert tuple(layer.scale) == (nanometres,) * 3
        assert [str(unit) for unit in layer.units] == ["nanometer"] * 3
        assert layer.axis_labels == ("z", "y", "x")
    values = np.unique(labels.data)
    assert set(values) <= set(labels.features["index"])
    assert all(labels.get_color(value)[3] == 1 for value in values if value)
    assert "class: membrane" in labels._get_properties(np.argwhere(labels.data == 1)[0])


@pytest.mark.usefixtures("qapp")
def test_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    make, threads = data.synthetic_sample, []

    def note() -> Any:
        threads.append(threading.current_thread())
        return make()

    monkeypatch.setattr(data, "synthetic_sample", note, raising=False)
    check(synthetic_em_layers(), 8)
    assert threads[0] is not threading.main_thread()


@pytest.mark.usefixtures("qapp")
def test_real(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = np.random.default_rng(0).integers(0, 255, (2, 70, 80), np.uint8)
    classes = tuple(
        item.model_copy(update={"name": name})
        for item, name in zip(default_classes(range(2)), ("cell", "membrane"), strict=True)
    )
    threads = []

    def download(tell: Callable[[int, int], None]) -> tuple[Any, Any, Any]:
        threads.append(threading.current_thread())
        tell(1, 2)
        return volume, volume // 128, classes

    monkeypatch.setattr(data, "real_sample", download, raising=False)
    check(real_em_layers(), 10)
    assert threads[0] is not threading.main_thread()


@pytest.mark.usefixtures("qapp")
def test_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(tell: Callable[[int, int], None]) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            tell(1, 2)
            time.sleep(0.01)

    shown = []

    def cancel() -> None:
        for widget in QApplication.topLevelWidgets():
            if isinstance(widget, WaitingDialog) and widget.bar.value() > 0 and not shown:
                shown.append(widget.bar.value() / widget.bar.maximum())
                widget.cancel_button.click()

    monkeypatch.setattr(data, "real_sample", download, raising=False)
    timer = QTimer()
    timer.timeout.connect(cancel)
    timer.start(100)
    with pytest.raises(AffmaeError, match="cancelled"):
        real_em_layers()
    timer.stop()
    assert shown == [0.5]
