"""Messages in a dock, which say what went wrong and what to do."""

from typing import Any

from napari.settings import get_settings
from napari.utils.theme import get_theme
from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QFrame, QLabel, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from napari_affmae.widgets.parts.lifetime import connect_while_alive

_SIGNS = {"info": "i", "warning": "⚠", "error": "✖"}
# The first of two colours is for dark themes, the second for light ones.
_COLORS = {
    "info": ("#6fa8dc", "#1f5fa8"),
    "warning": ("#e6b450", "#8a5a00"),
    "error": ("#f07178", "#b3261e"),
}
_HALF_LIGHT = 0.5
_HEIGHT = 110


class Messages(QScrollArea):
    """A list of messages, errors first. It is hidden while it is empty."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[tuple[str, str]] = []
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.setVisible(False)
        inner = QWidget()
        self._layout = QVBoxLayout(inner)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(2)
        self._layout.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.setWidget(inner)
        connect_while_alive(self, get_settings().appearance.events.theme, self._take_theme)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for the height of the messages, up to a limit."""
        width = self.viewport().width()
        height = self._layout.heightForWidth(width) if width > 0 else _HEIGHT
        return QSize(width, min(_HEIGHT, max(height, 0) + 2))

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for the same height, not for the larger one of other scroll areas."""
        return QSize(0, self.sizeHint().height())

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Ask for another height when the width changes, because the text wraps."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self.updateGeometry()

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Level and text of each message."""
        return list(self._texts)

    def add(self, text: str, level: str = "info") -> None:
        """Add a message, unless it is shown already."""
        if (level, text) in self._texts:
            return
        self._texts.append((level, text))
        label = QLabel(f"{_SIGNS[level]}  {text}")
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setWordWrap(True)
        label.setStyleSheet(_style(level))
        label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        if level == "error":
            self._layout.insertWidget(0, label)
        else:
            self._layout.addWidget(label)
        self.setVisible(True)
        self.updateGeometry()

    def remove(self, level: str) -> None:
        """Remove the messages of a level."""
        kept = [(known, text) for known, text in self._texts if known != level]
        if len(kept) < len(self._texts):
            self.clear()
            for known, text in kept:
                self.add(text, known)

    def clear(self) -> None:
        """Remove all messages."""
        self._texts.clear()
        while item := self._layout.takeAt(0):
            item.widget().deleteLater()
        self.setVisible(False)

    def _take_theme(self) -> None:
        """Show the messages in the colours of another theme."""
        texts = self.texts
        self.clear()
        for level, text in texts:
            self.add(text, level)


def _style(level: str) -> str:
    theme = get_theme(get_settings().appearance.theme)
    *_, lightness = theme.background.as_hsl_tuple(alpha=False)
    return f"color: {_COLORS[level][lightness > _HALF_LIGHT]}"
