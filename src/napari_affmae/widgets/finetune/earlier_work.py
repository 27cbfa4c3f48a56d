"""Going on with what was painted earlier: image, labels, classes and model at once."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Image, Labels, Layer
from napari.types import FullLayerData
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_affmae.engine.events import Event
from napari_affmae.engine.store.projects import Kept, list_projects, read_strokes
from napari_affmae.errors import DataError
from napari_affmae.widgets.contributions.reader import read_layers
from napari_affmae.widgets.finetune.stroke_keeper import folder_of, keep_in
from napari_affmae.widgets.layers.label_layers import add_labels_layer, empty_labels, show_classes
from napari_affmae.widgets.layers.layer_sources import is_own
from napari_affmae.widgets.layers.view import pixel_shape
from napari_affmae.widgets.parts.eliding_combo import ElidingCombo
from napari_affmae.widgets.parts.lifetime import connect_while_alive
from napari_affmae.widgets.parts.preferences import load_preferences
from napari_affmae.widgets.running.background_job import BackgroundJob

_NONE = "earlier work ..."
_MOST = 30


@dataclass(frozen=True)
class _Listed(Event):
    kept: tuple[Kept, ...]


@dataclass(frozen=True)
class _Read(Event):
    """Strokes that were read, and layers to choose the image from if it is not open."""

    kept: Kept
    labels: NDArray[Any]
    layers: tuple[FullLayerData, ...]
    model: Path | None


@dataclass(frozen=True)
class Reopened:
    """A pair that was brought back, its project, and the saved model if it is still there."""

    image: Image
    labels: Labels
    kept: Kept
    model: Path | None


class EarlierWork(QWidget):
    """A list of what was painted earlier, and a button that brings it back.

    What fits an open image and is not open itself is chosen by itself. The widget is hidden
    while there is nothing to bring back.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer that image and labels are opened in.
    """

    reopened = Signal(object)
    """Image and labels are open: a `Reopened`."""
    failed = Signal(object)
    """They cannot be opened: the exception."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._kept: tuple[Kept, ...] = ()
        self.combo = ElidingCombo()
        self.combo.setToolTip(
            "What you paint is kept within seconds, also if napari crashes. "
            "Choose what to go on with."
        )
        self.button = QPushButton("Reopen")
        self.button.setToolTip("Opens the image, the strokes, the classes and the model.")
        self.button.clicked.connect(self.reopen)
        self.combo.currentIndexChanged.connect(self._enable)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.combo, 1)
        row.addWidget(self.button)
        self._listing = BackgroundJob(self, loads_torch=False)
        self._listing.happened.connect(self._show)
        self._reading = BackgroundJob(self, loads_torch=False)
        self._reading.happened.connect(self._open)
        self._reading.failed.connect(self.failed)
        self._reading.ended.connect(self._enable)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            connect_while_alive(self, event, self._offer)
        self.setVisible(False)

    @property
    def is_busy(self) -> bool:
        """Whether the list or a project is being read."""
        return self._listing.is_running or self._reading.is_running

    def refresh(self) -> None:
        """Look again for what there is."""
        self._listing.run(_list)

    def reopen(self) -> None:
        """Bring back what is chosen."""
        kept: Kept | None = self.combo.currentData()
        if kept is not None:
            is_open = self._find_image(kept) is not None
            self._reading.run(lambda: _read(kept, with_image=not is_open))
            self._enable()

    def _show(self, listed: _Listed) -> None:
        self._kept = listed.kept
        self._offer()

    def _offer(self) -> None:
        """List what is not open, and choose the newest that fits an open image."""
        open_folders = {folder_of(one) for one in self._viewer.layers if isinstance(one, Labels)}
        free = [kept for kept in self._kept if kept.folder not in open_folders][:_MOST]
        chosen = self.combo.currentData()
        self.combo.clear()
        self.combo.addItem(_NONE, None)
        for kept in free:
            self.combo.addItem(_words(kept), kept)
            row = self.combo.count() - 1
            self.combo.setItemData(row, _words(kept), Qt.ItemDataRole.ToolTipRole)
        fitting = (number for number, one in enumerate(free, 1) if self._find_image(one))
        index = free.index(chosen) + 1 if chosen in free else next(fitting, 0)
        self.combo.setCurrentIndex(index)
        self.setVisible(bool(free))
        self._enable()

    def _enable(self) -> None:
        is_free = not self._reading.is_running
        self.button.setEnabled(is_free and self.combo.currentData() is not None)

    def _find_image(self, kept: Kept) -> Image | None:
        """Return the open image that was painted on: it has the name and the shape."""
        return next(
            (
                layer
                for layer in self._viewer.layers
                if isinstance(layer, Image)
                and not is_own(layer)
                and layer.name == kept.project.image
                and pixel_shape(layer) == kept.project.shape
            ),
            None,
        )

    def _open(self, read: _Read) -> None:
        image = self._find_image(read.kept) or self._open_image(read)
        if image is None:
            project = read.kept.project
            where = project.path or "no file: it was made by a script, or is a sample"
            self.failed.emit(
                DataError(
                    f"the image {project.image!r} of shape {project.shape} is not open ({where}). "
                    "Open it under this name, and press the button again"
                )
            )
            return
        labels = add_labels_layer(self._viewer, image, read.labels)
        show_classes(labels, read.kept.project.classes)
        keep_in(labels, read.kept.folder)
        self.reopened.emit(Reopened(image, labels, read.kept, read.model))
        self._offer()

    def _open_image(self, read: _Read) -> Image | None:
        project = read.kept.project
        for data in read.layers:
            layer = Layer.create(*data)
            if pixel_shape(layer) == project.shape:
                layer.name, layer.scale, layer.units = project.image, project.scale, project.units
                return self._viewer.add_layer(layer)
        return None


def _words(kept: Kept) -> str:
    project = kept.project
    return f"{project.image}, {kept.changed.astimezone():%d %b %H:%M}, {project.pixels:,} px"


def _list() -> Generator[_Listed, None, None]:
    yield _Listed(tuple(list_projects(load_preferences().runs)))


def _read(kept: Kept, *, with_image: bool) -> Generator[_Read, None, None]:
    """Read the strokes plane by plane, and open the image; called in a worker's thread."""
    stored = read_strokes(kept.folder, kept.project)
    labels = empty_labels(stored.shape, stored.dtype)
    for index in np.ndindex(*stored.shape[:-2]):
        plane = np.asarray(stored[index])
        if plane.any():
            labels[index] = plane
    path, model = kept.project.path, kept.project.model
    layers: tuple[FullLayerData, ...] = ()
    if with_image and path is not None and Path(path).exists():
        layers = tuple(read_layers(path))
    is_there = model is not None and Path(model).exists()
    yield _Read(kept, labels, layers, Path(model) if model and is_there else None)
