"""Choosing images: open layers, files and folders."""

from pathlib import Path
from typing import Any

import napari
from napari.layers import Image
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.engine.events import Event, FilesLookedAt, Notice
from napari_affmae.widgets.layers.layer_sources import LayerImage, is_own
from napari_affmae.widgets.parts.channels_edit import ChannelsEdit
from napari_affmae.widgets.parts.checkable_list import CheckableList
from napari_affmae.widgets.parts.error_text import in_words
from napari_affmae.widgets.parts.lifetime import connect_while_alive
from napari_affmae.widgets.parts.messages import Messages
from napari_affmae.widgets.pretrain.selection import Selection, Summary
from napari_affmae.widgets.running.background_job import BackgroundJob

_LAYER, _PATH = "layer", "path"
_ROLE = Qt.ItemDataRole.UserRole
_HEIGHT = 66
_SETTLE_MILLISECONDS = 300


class SourceList(QWidget):
    """A list of open image layers, files and folders with check marks, and a summary.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer whose image layers are offered.
    """

    changed = Signal()
    """Other images are chosen."""
    summarized = Signal(object)
    """The chosen images were opened and checked: a `Summary`."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._crop = 256
        self._job = BackgroundJob(self)
        self._job.happened.connect(self._take)
        self._job.failed.connect(self._fail)
        self._list = CheckableList()
        self._list.setFixedHeight(_HEIGHT)
        self._list.setSelectionMode(QListWidget.SelectionMode.ExtendedSelection)
        self._list.setToolTip("Check the images to use; drop files and folders here.")
        self._list.itemChanged.connect(self._settle)
        self.setAcceptDrops(True)
        self.files_button = QPushButton("Add files ...")
        self.folder_button = QPushButton("Add folder ...")
        self.remove_button = QPushButton("Remove")
        self.remove_button.setToolTip("Takes the selected files and folders off this list.")
        self.files_button.clicked.connect(self._ask_for_files)
        self.folder_button.clicked.connect(self._ask_for_folder)
        self.remove_button.clicked.connect(self._remove_selected)
        self.channels = ChannelsEdit()
        self.channels.changed.connect(self._settle)
        self.channels.setVisible(False)
        self.summary = QLabel("No image chosen.")
        self.summary.setWordWrap(True)
        self.messages = Messages()
        buttons = QHBoxLayout()
        for button in (self.files_button, self.folder_button, self.remove_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._list)
        layout.addLayout(buttons)
        for widget in (self.channels, self.summary, self.messages):
            layout.addWidget(widget)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MILLISECONDS)
        self._timer.timeout.connect(self._sum_up)
        self._connect_layers()

    def _connect_layers(self) -> None:
        events = self._viewer.layers.events
        connect_while_alive(self, events.inserted, self._add_inserted)
        connect_while_alive(self, events.removed, self._drop_removed)
        connect_while_alive(self, events.renamed, self._rename)
        for layer in self._viewer.layers:
            self._add_layer(layer)

    def _add_inserted(self, event: Any) -> None:
        self._add_layer(event.value)

    def _drop_removed(self, event: Any) -> None:
        for item in self._items(_LAYER):
            if item.data(_ROLE)[1] is event.value:
                self._list.takeItem(self._list.row(item))
        self._settle()

    def _add_layer(self, layer: Any) -> None:
        if not isinstance(layer, Image) or is_own(layer):
            return  # the plugin made the layer
        # The first image that is open is what a run is for; of several the user chooses.
        self._add_item(layer.name, (_LAYER, layer), checked=self._list.count() == 0)
        self._settle()

    def _rename(self, event: Any) -> None:
        layer = self._viewer.layers[event.index]
        for item in self._items(_LAYER):
            if item.data(_ROLE)[1] is layer:
                item.setText(layer.name)
                item.setToolTip(layer.name)

    def _add_item(self, text: str, data: tuple[str, object], *, checked: bool) -> QListWidgetItem:
        item = QListWidgetItem(text)
        item.setToolTip(text)
        item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
        item.setCheckState(Qt.CheckState.Checked if checked else Qt.CheckState.Unchecked)
        item.setData(_ROLE, data)
        self._list.addItem(item)
        return item

    def _items(self, kind: str) -> list[QListWidgetItem]:
        items = [self._list.item(row) for row in range(self._list.count())]
        return [item for item in items if item.data(_ROLE)[0] == kind]

    def _checked(self, kind: str) -> list[object]:
        return [
            item.data(_ROLE)[1]
            for item in self._items(kind)
            if item.checkState() == Qt.CheckState.Checked
        ]

    def check_layer(self, layer: Image, *, checked: bool = True) -> None:
        """Check or uncheck a layer."""
        for item in self._items(_LAYER):
            if item.data(_ROLE)[1] is layer:
                item.setCheckState(Qt.CheckState.Checked if checked else Qt.CheckState.Unchecked)

    def add_paths(self, paths: list[Path]) -> None:
        """Add files and folders, checked."""
        known = {item.data(_ROLE)[1] for item in self._items(_PATH)}
        for path in paths:
            if path not in known:
                self._add_item(str(path), (_PATH, path), checked=True)
        self._settle()

    def layers(self) -> list[Image]:
        """Return the chosen layers."""
        return self._checked(_LAYER)

    def paths(self) -> list[Path]:
        """Return the chosen files and folders."""
        return self._checked(_PATH)  # type: ignore[return-value]

    def selection(self) -> Selection:
        """Return the chosen images.

        Raises
        ------
        ValueError
            If the channels are not a list of numbers, or a layer does not have them.
        """
        channels = self.channels.chosen()
        layers = tuple(LayerImage(layer, channels) for layer in self.layers())
        return Selection(layers, tuple(self.paths()), channels)

    def set_crop(self, crop: int) -> None:
        """Check the images for crops of this side from now on."""
        self._crop = crop

    def dragEnterEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Accept files."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Add dropped files and folders."""
        urls = event.mimeData().urls()
        self.add_paths([Path(url.toLocalFile()) for url in urls if url.isLocalFile()])

    def _ask_for_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Images")
        self.add_paths([Path(name) for name in names])

    def _ask_for_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "A folder of images, or an OME-Zarr")
        if name:
            self.add_paths([Path(name)])

    def _remove_selected(self) -> None:
        for item in self._list.selectedItems():
            if item.data(_ROLE)[0] == _PATH:
                self._list.takeItem(self._list.row(item))
        self._settle()

    def _settle(self, *_: Any) -> None:
        self._timer.start()

    def _sum_up(self) -> None:
        """Open and check the chosen images in a worker: a large folder takes long."""
        self._job.stop()
        self.messages.clear()
        try:
            chosen = self.selection()
        except ValueError as error:
            self.messages.add(str(error), "error")
            return
        self.changed.emit()
        if not chosen:
            self.summary.setText("No image chosen.")
            return
        self.summary.setText("looking at the images ...")
        crop = self._crop
        self._job.run(lambda: chosen.summary(crop))

    def _take(self, event: Event) -> None:
        match event:
            case Summary():
                self.summary.setText(event.text)
                several = event.channels != 1 or bool(self.channels.edit.text().strip())
                self.channels.setVisible(several)
                self.summarized.emit(event)
            case FilesLookedAt():
                self.summary.setText(f"looking at the images: {event.count:,} so far ...")
            case Notice():
                source = f"{event.source}: " if event.source else ""
                self.messages.add(f"{source}{event.message}", event.level)

    def _fail(self, error: Exception) -> None:
        self.summary.setText("")
        self.messages.add(in_words(error), "error")
