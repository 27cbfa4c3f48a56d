"""Sample data as napari's menu opens it."""

import numpy as np
import pytest
from napari.layers import Layer

from napari_affmae import data
from napari_affmae.data import default_classes
from napari_affmae.widgets.samples import LayerData, real_em_layers, synthetic_em_layers


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


def test_synthetic() -> None:
    check(synthetic_em_layers(), 8)


def test_real(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = np.random.default_rng(0).integers(0, 255, (2, 70, 80), np.uint8)
    classes = tuple(
        item.model_copy(update={"name": name})
        for item, name in zip(default_classes(range(2)), ("cell", "membrane"), strict=True)
    )
    monkeypatch.setattr(
        data, "real_sample", lambda: (volume, volume // 128, classes), raising=False
    )
    check(real_em_layers(), 10)
