"""A list whose entries are checked, with boxes that can be seen."""

from napari.settings import get_settings
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QListWidget

from napari_affmae.widgets.parts.lifetime import connect_while_alive

_SIDE = 12


class CheckableList(QListWidget):
    """Draws the boxes like napari's other ones; napari's style leaves those of lists dark."""

    def __init__(self) -> None:
        super().__init__()
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        connect_while_alive(self, get_settings().appearance.events.theme, self._take_theme)
        self._take_theme()

    def _take_theme(self) -> None:
        name = get_settings().appearance.theme
        theme = get_theme(name)
        self.setStyleSheet(
            f"QListView::indicator {{ width: {_SIDE}px; height: {_SIDE}px; "
            f"border: 1px solid {theme.text.as_hex()}; border-radius: 2px; "
            f"background: {theme.background.as_hex()}; }}"
            f'QListView::indicator:checked {{ image: url("theme_{name}:/check.svg"); }}'
        )
