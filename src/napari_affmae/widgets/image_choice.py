"""Choosing one image: an open layer, or a file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import napari
from napari.layers import Image, Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.widgets.layer_sources import is_own

NO_IMAGE = "no image layer is open"


class ImageChoice(QWidget):
    """A list of the open image layers and of files, and which channels to take.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose image layers are offered.
    """

    changed = Signal()

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._items: list[Image | Path] = []
        self._renaming: dict[Layer, Callable[..., None]] = {}
        self.combo = QComboBox()
        self.combo.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.combo.setMinimumContentsLength(18)
        self.combo.setPlaceholderText(NO_IMAGE)
        self.combo.currentIndexChanged.connect(self._show_channels)
        self.combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.browse = QPushButton("...")
        self.browse.setToolTip("A file that is not open in napari; it is read piece by piece.")
        self.browse.setMaximumWidth(32)
        self.browse.clicked.connect(self._ask)
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("all")
        self.channels.setToolTip(
            "Which channels to take, counted from 0: 0 for the first alone, 0,2 for two."
        )
        self._channel_row = QWidget()
        row = QHBoxLayout(self._channel_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(QLabel("Channels"))
        row.addWidget(self.channels)
        top = QHBoxLayout()
        top.addWidget(self.combo, 1)
        top.addWidget(self.browse)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(top)
        layout.addWidget(self._channel_row)
        self._follow_layers()
        self._show_channels()

    def _follow_layers(self) -> None:
        events = self._viewer.layers.events
        events.inserted.connect(self._take_inserted)
        events.removed.connect(self._drop_removed)
        # Not a method of this widget: when the signal comes, it is one no longer.
        self.destroyed.connect(partial(_unfollow, events, self._take_inserted, self._drop_removed))
        for layer in self._viewer.layers:
            self._add_layer(layer)

    def _take_inserted(self, event: Any) -> None:
        self._add_layer(event.value)

    def _drop_removed(self, event: Any) -> None:
        layer = event.value
        if layer in self._items:
            index = self._items.index(layer)
            layer.events.name.disconnect(self._renaming.pop(layer))
            del self._items[index]
            self.combo.removeItem(index)

    def _add_layer(self, layer: Layer) -> None:
        if not isinstance(layer, Image) or is_own(layer):
            return  # the plugin's own pictures are no input
        self._renaming[layer] = rename = partial(self._rename, layer)
        layer.events.name.connect(rename)
        self._add(layer, layer.name)

    def _add(self, item: Image | Path, text: str) -> None:
        self._items.append(item)
        self.combo.addItem(text)
        if self.combo.currentIndex() < 0:  # Qt leaves it so where there is a placeholder
            self.combo.setCurrentIndex(0)

    def _rename(self, layer: Layer, *_: Any) -> None:
        self.combo.setItemText(self._items.index(layer), layer.name)

    def _chosen(self) -> Image | Path | None:
        index = self.combo.currentIndex()
        return self._items[index] if 0 <= index < len(self._items) else None

    def layer(self) -> Image | None:
        """Return the chosen layer; None where it is a file, or nothing."""
        chosen = self._chosen()
        return chosen if isinstance(chosen, Layer) else None

    def path(self) -> Path | None:
        """Return the chosen file; None where it is a layer, or nothing."""
        chosen = self._chosen()
        return chosen if isinstance(chosen, Path) else None

    def choose_layer(self, layer: Layer) -> None:
        """Choose a layer.

        Raises
        ------
        ValueError
            If it is no image that is open here.
        """
        if layer not in self._items:
            raise ValueError(f"the layer {layer.name!r} is no image that can be chosen here")
        self.combo.setCurrentIndex(self._items.index(layer))

    def choose_path(self, path: Path) -> None:
        """Choose a file, or a zarr folder."""
        if path not in self._items:
            self._add(path, path.name)
        self.combo.setCurrentIndex(self._items.index(path))

    def chosen_channels(self) -> tuple[int, ...] | None:
        """Return the channels to take; None for all.

        Raises
        ------
        ValueError
            If they are no list of numbers.
        """
        text = self.channels.text().strip()
        if not self._several() or not text or text == "all":
            return None
        try:
            return tuple(int(part) for part in text.split(","))
        except ValueError:
            raise ValueError(
                f"channels must be numbers from 0 on with commas between them, got {text!r}"
            ) from None

    def _show_channels(self) -> None:
        self._channel_row.setVisible(self._several())

    def _several(self) -> bool:
        """Whether the image has, or may have, several channels."""
        layer = self.layer()
        return self.path() is not None or (layer is not None and bool(layer.rgb))

    def _ask(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "An image or stack")
        if name:
            self.choose_path(Path(name))


def _unfollow(events: Any, inserted: Callable[..., None], removed: Callable[..., None]) -> None:
    events.inserted.disconnect(inserted)
    events.removed.disconnect(removed)
