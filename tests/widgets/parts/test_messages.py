from typing import Any

import pytest
from napari.settings import get_settings
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QLabel

from napari_affmae.widgets.parts.messages import Messages


def lightness(messages: Messages) -> float:
    """Of the words of the only message."""
    (label,) = messages.findChildren(QLabel)
    return QColor(label.styleSheet().removeprefix("color: ")).lightnessF()


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_messages_can_be_read_in_every_theme(viewer: Any, qtbot: Any, level: str) -> None:
    messages = Messages()
    qtbot.addWidget(messages)
    get_settings().appearance.theme = "dark"
    messages.add("what happened", level)
    assert lightness(messages) > 0.5
    get_settings().appearance.theme = "light"
    qtbot.wait(10)  # until the old label is gone
    assert lightness(messages) < 0.45
    assert messages.texts == [(level, "what happened")]
