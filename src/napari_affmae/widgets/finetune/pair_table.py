"""Pairs of an image layer and the labels layer that is painted for it."""

from collections.abc import Callable
from typing import Any

import napari
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.widgets.layers.label_layers import (
    add_labels_layer,
    fits,
    is_named_for,
    may_be_for,
)
from napari_affmae.widgets.layers.layer_sources import is_own
from napari_affmae.widgets.parts.channels_edit import ChannelsEdit
from napari_affmae.widgets.parts.eliding_combo import ElidingCombo
from napari_affmae.widgets.parts.lifetime import connect_while_alive

Pair = tuple[Image, Labels]
_IMAGE, _LABELS = range(2)
_CHOOSE = {_IMAGE: "choose an image", _LABELS: "choose labels"}
_HEIGHT = 80
# Property of a choice of labels that the user has made: if it is "none", none are offered again.
_DECLINED = "declined"


class PairTable(QWidget):
    """A row for each pair, with a choice of layers in both columns.

    An image and labels are chosen by themselves for a new row, and for the first image that
    is opened; labels also for a row without any, when fitting ones are opened. Fitting
    labels have the image's shape and noted classes, preferably bear the image's name, and
    never that of another image. The user must choose any other labels, because the labels of
    a pair are given the colours of the classes.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers are offered.
    """

    refused = Signal(object)
    """A button cannot do what it is for: the exception."""
    changed = Signal()
    """The pairs have changed; they may be incomplete."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._pairs: list[Pair] = []
        self._emitted: list[tuple[Image | None, Labels | None]] = []
        self.table = QTableWidget(0, 2)
        self.table.setHorizontalHeaderLabels(["Image", "Labels"])
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(26)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setFixedHeight(_HEIGHT)
        self.new_button = QPushButton("New labels layer")
        self.new_button.setToolTip("Makes an empty labels layer for the image, to paint on.")
        self.add_button = QPushButton("Add pair")
        self.remove_button = QPushButton("Remove")
        self.remove_button.setToolTip("Takes the selected pair off this list.")
        self.new_button.clicked.connect(self._make_for_selected)
        self.add_button.clicked.connect(self.add_pair)
        self.remove_button.clicked.connect(self.remove_selected)
        buttons = QHBoxLayout()
        for button in (self.new_button, self.add_button, self.remove_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addLayout(buttons)
        self.channels = ChannelsEdit()
        self.channels.setVisible(False)
        layout.addWidget(self.channels)
        self.add_pair()
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            connect_while_alive(self, event, self._take_layers)
        connect_while_alive(self, events.renamed, self._refill)

    def pairs(self) -> list[Pair]:
        """Return the pairs whose row is complete."""
        return list(self._pairs)

    def channels_of(self, image: Image) -> tuple[int, ...] | None:
        """Return the channels of an image to use; None for all.

        Raises
        ------
        ValueError
            If the entered channels are not a list of numbers.
        """
        return self.channels.chosen() if image.rgb else None

    def check(self) -> None:
        """Check that there are pairs, each complete and of one shape.

        Raises
        ------
        ValueError
            If something is missing; the message names it.
        """
        used: set[Labels] = set()
        for row, (image, labels) in enumerate(self._rows()):
            if image is None and labels is None and self._pairs:
                raise ValueError(f"Pair {row + 1} is empty: choose its layers, or remove it.")
            if image is None:
                raise ValueError("There is no image to train on: open one, and choose it above.")
            if labels is None:
                raise ValueError(
                    f"The image {image.name!r} has no labels: press {self.new_button.text()!r} "
                    "and paint, or choose a labels layer."
                )
            if not fits(image, labels):
                raise ValueError(
                    f"The labels {labels.name!r} do not have the shape of the image "
                    f"{image.name!r}; choose others, or press {self.new_button.text()!r}."
                )
            if labels in used:
                raise ValueError(
                    f"The labels {labels.name!r} are chosen for two images: choose others for "
                    "one of them, or remove its pair."
                )
            used.add(labels)
        if not self._pairs:
            raise ValueError("There is no pair of an image and labels: add one.")

    def add_pair(self) -> None:
        """Add a row, with an image that is in no other row, if there is one."""
        self._append(None, None)
        row = self.table.rowCount() - 1
        self._offer(row)
        self.table.selectRow(row)
        self._emit_changed()

    def remove_selected(self) -> None:
        """Remove the selected row; one row remains in any case."""
        row = self._row()
        kept = [pair for number, pair in enumerate(self._rows()) if number != row]
        self.table.setRowCount(0)
        for image, labels in kept or [(None, None)]:
            self._append(image, labels)
        self._emit_changed()

    def set_pair(self, image: Image, labels: Labels | None) -> None:
        """Choose labels for an image, in its own row or in a new one."""
        rows = self._rows()
        row = next((i for i, (known, _) in enumerate(rows) if known in {image, None}), None)
        if row is None:
            self._append(None, None)
            row = self.table.rowCount() - 1
        self._choose(row, _IMAGE, image)
        for number, (_, known) in enumerate(rows):
            if known is labels and number != row:
                self._choose(number, _LABELS, None)
        self._choose(row, _LABELS, labels)
        self._emit_changed()

    def make_labels(self, image: Image) -> None:
        """Make a labels layer for an image, and pair them."""
        self.set_pair(image, add_labels_layer(self._viewer, image))

    def _make_for_selected(self) -> None:
        image = self._chosen(self._row(), _IMAGE)
        if image is None:
            self.refused.emit(
                ValueError("There is no image to paint on: open one, and choose it above.")
            )
        else:
            self.make_labels(image)

    def _append(self, image: Layer | None, labels: Layer | None) -> None:
        row = self.table.rowCount()
        self.table.insertRow(row)
        for column in (_IMAGE, _LABELS):
            combo = ElidingCombo()
            combo.currentIndexChanged.connect(self._changed(row, column))
            self.table.setCellWidget(row, column, combo)
        self._refill()
        self._choose(row, _IMAGE, image)
        self._choose(row, _LABELS, labels)

    def _changed(self, row: int, column: int) -> Callable[[], None]:
        def settle() -> None:
            if column == _IMAGE:
                self._choose(row, _LABELS, self._fitting(row))
            self._combo(row, _LABELS).setProperty(_DECLINED, column == _LABELS)
            self._emit_changed()

        return settle

    def _row(self) -> int:
        rows = {index.row() for index in self.table.selectedIndexes()}
        return rows.pop() if rows else self.table.rowCount() - 1

    def _combo(self, row: int, column: int) -> ElidingCombo:
        combo: ElidingCombo = self.table.cellWidget(row, column)
        return combo

    def _chosen(self, row: int, column: int) -> Any:
        return self._combo(row, column).currentData()

    def _choose(self, row: int, column: int, layer: Layer | None) -> None:
        combo = self._combo(row, column)
        blocker = QSignalBlocker(combo)
        layers = [combo.itemData(index) for index in range(combo.count())]
        combo.setCurrentIndex(next((i for i, item in enumerate(layers) if item is layer), 0))
        del blocker

    def _rows(self) -> list[tuple[Image | None, Labels | None]]:
        return [
            (self._chosen(row, _IMAGE), self._chosen(row, _LABELS))
            for row in range(self.table.rowCount())
        ]

    def _offer(self, row: int) -> None:
        """Choose an image that is in no other row, and labels that were made for it."""
        used = {id(image) for image, _ in self._rows()}
        if self._chosen(row, _IMAGE) is None:
            free = (layer for layer in self._layers(_IMAGE) if id(layer) not in used)
            self._choose(row, _IMAGE, next(free, None))
        if self._chosen(row, _LABELS) is None:
            self._choose(row, _LABELS, self._fitting(row))

    def _fitting(self, row: int) -> Layer | None:
        image = self._chosen(row, _IMAGE)
        if image is None:
            return None
        used = {id(labels) for number, (_, labels) in enumerate(self._rows()) if number != row}
        free = [
            layer
            for layer in self._layers(_LABELS)
            if id(layer) not in used and may_be_for(image, layer)
        ]
        named = [layer for layer in free if is_named_for(image, layer)]
        images = self._layers(_IMAGE)
        nameless = (layer for layer in free if not any(is_named_for(one, layer) for one in images))
        return next(iter(named), next(nameless, None))

    def _layers(self, column: int) -> list[Layer]:
        kind = Image if column == _IMAGE else Labels
        return [
            layer for layer in self._viewer.layers if isinstance(layer, kind) and not is_own(layer)
        ]

    def _take_layers(self, event: Any) -> None:
        self._refill()
        is_empty = not any(image for image, _ in self._rows())
        if is_empty and event.type == "inserted" and isinstance(event.value, Image):
            self._offer(0)
        if event.type == "inserted" and isinstance(event.value, Labels):
            self._offer_labels()
        self._emit_changed()

    def _offer_labels(self) -> None:
        """Choose labels that were just opened for the rows without any."""
        for row, (_, labels) in enumerate(self._rows()):
            if labels is None and not self._combo(row, _LABELS).property(_DECLINED):
                self._choose(row, _LABELS, self._fitting(row))

    def _refill(self) -> None:
        """Update the layers and names that are offered, and keep the choices."""
        for row in range(self.table.rowCount()):
            for column in (_IMAGE, _LABELS):
                combo = self._combo(row, column)
                chosen = combo.currentData()
                blocker = QSignalBlocker(combo)
                combo.clear()
                combo.addItem(_CHOOSE[column], None)
                for layer in self._layers(column):
                    combo.addItem(layer.name, layer)
                del blocker
                self._choose(row, column, chosen)

    def _emit_changed(self) -> None:
        rows = self._rows()
        if rows != self._emitted:
            self._emitted = rows
            self.channels.setVisible(any(image is not None and image.rgb for image, _ in rows))
            self._pairs = [(image, labels) for image, labels in rows if image and labels]
            self.changed.emit()
