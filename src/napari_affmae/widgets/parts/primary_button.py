"""The button that a dock is for."""

from napari.settings import get_settings
from napari.utils.theme import get_theme
from qtpy.QtWidgets import QPushButton

from napari_affmae.widgets.parts.lifetime import connect_while_alive


class PrimaryButton(QPushButton):
    """While it can be used, it has a frame in the colour in which napari marks what is chosen.

    Parameters
    ----------
    text : str
        What it says.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        connect_while_alive(self, get_settings().appearance.events.theme, self._take_theme)
        self._take_theme()

    def _take_theme(self) -> None:
        theme = get_theme(get_settings().appearance.theme)
        frame = f"border: 2px solid {theme.current.as_hex()}; padding: 2px; font-weight: bold;"
        self.setStyleSheet(f"QPushButton:enabled {{ {frame} }}")
