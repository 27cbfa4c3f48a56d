from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Points

from napari_affmae.widgets.pretrain.tokens_button import TokensButton


@pytest.fixture
def button(viewer: Any, finetuned: Path, qtbot: Any) -> TokensButton:
    made = TokensButton(viewer, lambda: finetuned)
    qtbot.addWidget(made)
    return made


def test_tokens_lie_on_what_is_in_view(viewer: Any, button: TokensButton, qtbot: Any) -> None:
    large = np.random.default_rng(0).integers(0, 255, (3, 1100, 64), np.uint8)
    image = viewer.add_image(large, scale=(30, 8, 8), translate=(0, 80, 160))
    viewer.dims.set_current_step(0, 1)
    viewer.window._qt_viewer.canvas.on_draw(None)
    button.click()
    qtbot.waitUntil(button.isEnabled, timeout=60_000)
    stages = [layer for layer in viewer.layers if isinstance(layer, Points)]
    assert len(stages) == 4
    # Each stage keeps fewer; none sees more than the middle of a large view.
    assert [len(layer.data) for layer in stages] == sorted(len(layer.data) for layer in stages)
    for layer in stages:
        assert (layer.data[:, 0] == 1).all()
        assert (layer.data[:, 1] >= 38).all()
        assert (layer.data[:, 1] < 38 + 1024).all()
        assert tuple(layer.scale) == tuple(image.scale)
    # Asked again, they take the place of these.
    viewer.layers.remove(stages.pop())
    viewer.layers.selection = {image}
    button.click()
    qtbot.waitUntil(button.isEnabled, timeout=60_000)
    again = [layer for layer in viewer.layers if isinstance(layer, Points)]
    assert len(again) == 4
    assert not set(again) & set(stages)


def test_what_has_no_view_is_told(viewer: Any, button: TokensButton, image: Any) -> None:
    told: list[Exception] = []
    button.failed.connect(told.append)
    viewer.dims.ndisplay = 3
    button.click()
    viewer.layers.clear()
    button.click()
    assert "2-D" in str(told[0])
    assert "choose an image layer first" in str(told[1])
