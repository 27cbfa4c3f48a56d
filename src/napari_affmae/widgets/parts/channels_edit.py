"""A control for the channels of images."""

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QWidget

from napari_affmae.data.sources.layout import parse_channels


class ChannelsEdit(QWidget):
    """A row in which channels are entered. Hide it for images that have one channel."""

    changed = Signal()
    """Something else was entered."""

    def __init__(self) -> None:
        super().__init__()
        self.edit = QLineEdit()
        self.edit.setPlaceholderText("all")
        self.edit.setToolTip(
            "The channels to take, counted from 0: 0 takes the first, 0,2 the first and the third."
        )
        self.edit.editingFinished.connect(self.changed)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(QLabel("Channels"))
        row.addWidget(self.edit)

    def chosen(self) -> tuple[int, ...] | None:
        """Return the channels to take; None for all.

        Raises
        ------
        ValueError
            If the text is not a list of numbers.
        """
        return parse_channels(self.edit.text())
