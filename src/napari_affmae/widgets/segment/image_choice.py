"""Choosing one image: an open layer, or a file."""

from pathlib import Path
from typing import Any

import napari
from napari.layers import Image, Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.widgets.layers.layer_sources import is_own
from napari_affmae.widgets.parts.channels_edit import ChannelsEdit
from napari_affmae.widgets.parts.eliding_combo import ElidingCombo
from napari_affmae.widgets.parts.lifetime import connect_while_alive

NO_IMAGE = "no image layer is open"


class ImageChoice(QWidget):
    """A choice among open image layers and files, and their channels.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer whose image layers are offered.
    """

    changed = Signal()

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._items: list[Image | Path] = []
        self.combo = ElidingCombo()
        self.combo.setPlaceholderText(NO_IMAGE)
        self.combo.currentIndexChanged.connect(self._show_channels)
        self.combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.browse = QPushButton("...")
        self.browse.setToolTip("A file that is not open in napari; it is read piece by piece.")
        self.browse.setMaximumWidth(32)
        self.browse.clicked.connect(self._ask)
        self.channels = ChannelsEdit()
        top = QHBoxLayout()
        top.addWidget(self.combo, 1)
        top.addWidget(self.browse)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(top)
        layout.addWidget(self.channels)
        self._connect_layers()
        self._show_channels()

    def _connect_layers(self) -> None:
        events = self._viewer.layers.events
        connect_while_alive(self, events.inserted, self._take_inserted)
        connect_while_alive(self, events.removed, self._drop_removed)
        connect_while_alive(self, events.renamed, self._rename)
        for layer in self._viewer.layers:
            self._add_layer(layer)

    def _take_inserted(self, event: Any) -> None:
        self._add_layer(event.value)

    def _drop_removed(self, event: Any) -> None:
        layer = event.value
        if layer in self._items:
            index = self._items.index(layer)
            del self._items[index]
            self.combo.removeItem(index)

    def _add_layer(self, layer: Layer) -> None:
        if not isinstance(layer, Image) or is_own(layer):
            return  # the plugin made the layer
        self._add(layer, layer.name)

    def _add(self, item: Image | Path, text: str) -> None:
        self._items.append(item)
        self.combo.addItem(text)
        if self.combo.currentIndex() < 0:  # Qt chooses nothing if there is a placeholder
            self.combo.setCurrentIndex(0)

    def _rename(self, event: Any) -> None:
        layer = self._viewer.layers[event.index]
        if layer in self._items:
            self.combo.setItemText(self._items.index(layer), layer.name)

    def _chosen(self) -> Image | Path | None:
        index = self.combo.currentIndex()
        return self._items[index] if 0 <= index < len(self._items) else None

    def layer(self) -> Image | None:
        """Return the chosen layer; None if a file or nothing is chosen."""
        chosen = self._chosen()
        return chosen if isinstance(chosen, Layer) else None

    def path(self) -> Path | None:
        """Return the chosen file; None if a layer or nothing is chosen."""
        chosen = self._chosen()
        return chosen if isinstance(chosen, Path) else None

    def choose_layer(self, layer: Layer) -> None:
        """Choose a layer.

        Raises
        ------
        ValueError
            If the layer is not offered.
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
        """Return the channels to use; None for all.

        Raises
        ------
        ValueError
            If the entered channels are not a list of numbers.
        """
        return self.channels.chosen() if self._several() else None

    def _show_channels(self) -> None:
        self.channels.setVisible(self._several())

    def _several(self) -> bool:
        """Return whether the image has or may have several channels."""
        layer = self.layer()
        return self.path() is not None or (layer is not None and bool(layer.rgb))

    def _ask(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "An image or stack")
        if name:
            self.choose_path(Path(name))
