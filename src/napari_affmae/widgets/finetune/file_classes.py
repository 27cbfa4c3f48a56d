"""The classes that the file of a labels layer names, read in the background."""

import logging
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_affmae.config import LabelClass
from napari_affmae.data import open_source
from napari_affmae.engine.events import Event
from napari_affmae.errors import AffmaeError
from napari_affmae.widgets.running.background_job import BackgroundJob

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Named(Event):
    classes: tuple[LabelClass, ...]


class FileClasses(QObject):
    """Reads the names and colours that files keep of the classes of labels.

    Parameters
    ----------
    parent : QObject
        The reading ends when this is destroyed.
    """

    found = Signal(object, object)
    """A file names classes: the layer that was opened from it, and the classes."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._waiting: list[Labels] = []
        self._job = BackgroundJob(self, loads_torch=False)
        self._job.happened.connect(self._take)
        self._job.ended.connect(self._go_on)

    @property
    def is_reading(self) -> bool:
        """Whether a file is being read."""
        return bool(self._waiting)

    def ask(self, layer: Labels) -> None:
        """Look into the file of a layer, if it has one, after those that were asked for before."""
        if layer.source.path is not None:
            self._waiting.append(layer)
            if len(self._waiting) == 1:
                self._read_next()

    def _read_next(self) -> None:
        path = Path(self._waiting[0].source.path)
        self._job.run(lambda: _read(path))

    def _take(self, named: _Named) -> None:
        if named.classes:
            self.found.emit(self._waiting[0], named.classes)

    def _go_on(self) -> None:
        del self._waiting[0]
        if self._waiting:
            self._read_next()


def _read(path: Path) -> Generator[_Named, None, None]:
    """Read the classes that a file names; in a worker's thread."""
    try:
        source = open_source(path, labels=True)
    except (AffmaeError, OSError) as error:
        # napari could read the labels, so only their names are missing: another of its plugins
        # may have opened a kind of file that is not known here.
        logger.info("no names of classes can be read from %s: %s", path, error)
        return
    yield _Named(source.classes)
