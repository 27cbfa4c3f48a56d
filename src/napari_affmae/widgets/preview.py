"""Pictures of the same few crops, as a run goes on."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

_ROWS = 2


class PreviewGrid(QWidget):
    """A column for each kind of picture, a row for each crop; hidden until there are some."""

    def __init__(self) -> None:
        super().__init__()
        self._layout = QGridLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(3)
        self._labels: list[QLabel] = []
        self.images: Mapping[str, NDArray[np.float32]] = {}
        self.setVisible(False)

    def show_images(self, images: Mapping[str, NDArray[np.float32]]) -> None:
        """Show arrays (count, height, width); those of one name share their contrast."""
        self.images = images
        self._clear()
        side = max(40, (self.parentWidget().width() - 24) // len(images) - 3)
        # The input's contrast serves the pictures that belong beside it.
        limits = np.percentile(images["input"], (0.5, 99.5))
        for column, (name, stack) in enumerate(images.items()):
            own = np.percentile(stack, (0.5, 99.5)) if name == "error" else limits
            self._add(QLabel(name), 0, column)
            for row, picture in enumerate(stack[:_ROWS], 1):
                label = QLabel()
                pixmap = to_pixmap(picture, *own)
                label.setPixmap(
                    pixmap.scaled(
                        side,
                        side,
                        Qt.AspectRatioMode.KeepAspectRatio,
                        Qt.TransformationMode.SmoothTransformation,
                    )
                )
                self._add(label, row, column)
        self.setVisible(True)

    def _add(self, label: QLabel, row: int, column: int) -> None:
        label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._layout.addWidget(label, row, column)
        self._labels.append(label)

    def _clear(self) -> None:
        while self._labels:
            label = self._labels.pop()
            self._layout.removeWidget(label)
            label.deleteLater()


def to_pixmap(picture: NDArray[np.float32], low: float, high: float) -> QPixmap:
    """Make a grey picture of an array (height, width)."""
    grey = np.clip((picture - low) / max(high - low, 1e-6), 0, 1) * 255
    data = np.ascontiguousarray(grey.astype(np.uint8))
    height, width = data.shape
    image = QImage(data.data, width, height, width, QImage.Format.Format_Grayscale8)
    return QPixmap.fromImage(image.copy())
