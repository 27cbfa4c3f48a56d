"""Pictures of a few crops, which a run updates."""

from collections.abc import Mapping

import numpy as np
from napari.layers import Image, Layer
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QWidget

from napari_affmae.widgets.layers.layer_sources import OWN

_ROWS = 2
_GAP = 3
_SMALLEST = 40
# The gap between the crops of a layer is this part of a crop's height.
_GAPS = 16
_PLACE = ("scale", "translate", "units", "axis_labels")


class PreviewGrid(QWidget):
    """A grid of pictures: a column for each kind, a row for each crop. Hidden while empty."""

    def __init__(self) -> None:
        super().__init__()
        self._layout = QGridLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(_GAP)
        self._headings: list[QLabel] = []
        self._pictures: list[tuple[QLabel, QPixmap]] = []
        self.contrast = (0.0, 1.0)
        self.images: Mapping[str, NDArray[np.float32]] = {}
        self.setVisible(False)

    def show_images(self, images: Mapping[str, NDArray[np.float32]]) -> None:
        """Show arrays (count, height, width) by their names."""
        self.images = images
        self._clear()
        # All pictures but the error have the contrast of the input, so that they compare.
        self.contrast = _contrast(images["input"])
        for column, (name, stack) in enumerate(images.items()):
            own = _contrast(stack) if name == "error" else self.contrast
            heading = QLabel(name)
            heading.setStyleSheet("font-size: 10px")
            self._add(heading, 0, column)
            self._headings.append(heading)
            for row, picture in enumerate(stack[:_ROWS], 1):
                label = QLabel()
                self._pictures.append((label, to_pixmap(picture, *own)))
                self._add(label, row, column)
        self._fit()
        self.setVisible(True)

    def layers(self, image: Layer | None) -> list[Image]:
        """Make a layer for each kind; layers lie beside each other, crops below each other.

        Parameters
        ----------
        image : napari.layers.Layer, optional
            The layers have its pixel size. They have its rows and columns only, so that
            they are shown at each of its planes.
        """
        pixels = {} if image is None else {name: getattr(image, name)[-2:] for name in _PLACE}
        corner = np.asarray(pixels.pop("translate", (0.0, 0.0)))
        _, column = pixels.get("scale", (1.0, 1.0))
        made = []
        for number, (name, stack) in enumerate(self.images.items()):
            _, height, width = stack.shape
            gap = max(1, height // _GAPS)
            framed = np.pad(stack, [(0, 0), (0, gap), (0, 0)], constant_values=stack.min())
            made.append(
                Image(
                    framed.reshape(-1, width)[:-gap],
                    name=f"crops: {name}",
                    colormap="magma" if name == "error" else "gray",
                    contrast_limits=None if name == "error" else self.contrast,
                    translate=corner + np.array((0, number * (width + gap) * column)),
                    metadata=OWN,
                    **pixels,
                )
            )
        return made

    def resizeEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Scale the pictures to the width."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        width = self.width() if self.isVisible() else self.parentWidget().width()
        side = max(_SMALLEST, width // max(1, len(self._headings)) - _GAP)
        for label, pixmap in self._pictures:
            if label.height() != side or label.pixmap().isNull():
                label.setFixedHeight(side)
                label.setPixmap(
                    pixmap.scaled(
                        side,
                        side,
                        Qt.AspectRatioMode.KeepAspectRatio,
                        Qt.TransformationMode.SmoothTransformation,
                    )
                )

    def _add(self, label: QLabel, row: int, column: int) -> None:
        label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        # A picture that asked for its own width would keep the dock from becoming narrower.
        label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._layout.addWidget(label, row, column)

    def _clear(self) -> None:
        for label in (*self._headings, *(label for label, _ in self._pictures)):
            self._layout.removeWidget(label)
            label.deleteLater()
        self._headings.clear()
        self._pictures.clear()


def _contrast(stack: NDArray[np.float32]) -> tuple[float, float]:
    """Return limits of grey values; they differ even if all values are equal."""
    low, high = np.percentile(stack, (0.5, 99.5)).tolist()
    return low, high if high > low else low + 1


def to_pixmap(picture: NDArray[np.float32], low: float, high: float) -> QPixmap:
    """Make a grey picture of an array (height, width)."""
    grey = np.clip((picture - low) / max(high - low, 1e-6), 0, 1) * 255
    data = np.ascontiguousarray(grey.astype(np.uint8))
    height, width = data.shape
    image = QImage(data.data, width, height, width, QImage.Format.Format_Grayscale8)
    return QPixmap.fromImage(image.copy())
