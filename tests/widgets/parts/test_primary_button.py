"""The button that a dock is for stands out in each theme."""

from typing import Any

from napari.settings import get_settings
from napari.utils.theme import get_theme
from qtpy.QtCore import QPoint
from qtpy.QtGui import QColor

from napari_affmae.widgets.parts.primary_button import PrimaryButton

_MUCH = 16  # of 255: Qt's styles blend edges


def difference(button: PrimaryButton, color: QColor) -> int:
    """Largest difference of a channel between the frame of a button and a colour."""
    shown = button.grab().toImage().pixelColor(QPoint(button.width() // 2, 1))
    channels = zip(shown.getRgb(), color.getRgb(), strict=True)
    return max(abs(one - other) for one, other in channels)


def test_its_frame_follows_the_theme_and_goes_while_it_cannot_be_used(qtbot: Any) -> None:
    button = PrimaryButton("Start")
    qtbot.addWidget(button)
    button.show()
    for name in ("light", "dark"):
        get_settings().appearance.theme = name
        wanted = QColor(get_theme(name).current.as_hex())
        assert difference(button, wanted) < _MUCH
        button.setEnabled(False)
        assert difference(button, wanted) > _MUCH
        button.setEnabled(True)
