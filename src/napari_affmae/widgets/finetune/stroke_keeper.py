"""Strokes are kept on disk within seconds, so that a crash of napari does not lose them."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_affmae.data.sources.source import ImageSource
from napari_affmae.engine.events import Event
from napari_affmae.engine.store.projects import PROJECTS, Project, write_project, write_strokes
from napari_affmae.engine.store.run_names import new_run_path
from napari_affmae.engine.store.starting_weights import start_name
from napari_affmae.widgets.finetune.annotation import Annotation
from napari_affmae.widgets.finetune.painted import Square
from napari_affmae.widgets.finetune.pair_table import Pair
from napari_affmae.widgets.parts.preferences import load_preferences
from napari_affmae.widgets.running.background_job import BackgroundJob
from napari_affmae.widgets.running.run_choice import RunChoice

_MILLISECONDS = 1000
# Key of a layer's metadata: the folder that its strokes are kept in.
_FOLDER = "napari-affmae project"


@dataclass(frozen=True)
class _Written(Event):
    """The strokes of a layer are on disk."""

    labels: Labels
    folder: Path


class StrokeKeeper(QObject):
    """Writes what is painted to a folder beside the runs, a second after a stroke.

    It begins with the first stroke on a layer: labels that are only looked at are not copied.

    Parameters
    ----------
    annotation : Annotation
        The pairs, classes and strokes.
    start_from : RunChoice
        The model that training starts from.
    """

    failed = Signal(object)
    """Strokes cannot be kept: the exception."""
    kept = Signal()
    """Strokes were written."""

    def __init__(self, annotation: Annotation, start_from: RunChoice) -> None:
        super().__init__(annotation)
        self._annotation, self._start_from = annotation, start_from
        self._model: Path | None = None
        self._unwritten: dict[Labels, set[Square]] = {}
        self._writing: tuple[Labels, set[Square]] | None = None
        self._has_failed = False
        self._job = BackgroundJob(self, loads_torch=False)
        self._job.happened.connect(self._take)
        self._job.failed.connect(self._fail)
        self._job.ended.connect(self._end)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_MILLISECONDS)
        self._timer.timeout.connect(self._write)
        annotation.touched.connect(self._note)
        annotation.renamed.connect(self._note_all)
        start_from.changed.connect(self._note_all)

    @property
    def is_busy(self) -> bool:
        """Whether something is not written yet."""
        return self._job.is_running or self._timer.isActive()

    def note_model(self, model: Path) -> None:
        """Note that a model was saved, which is reopened with the strokes."""
        self._model = model
        self._note_all()

    def _note(self, labels: Labels, squares: Sequence[Square]) -> None:
        if labels not in self._unwritten and folder_of(labels) is None:
            self._unwritten[labels] = set(self._annotation.painted(labels).squares())
        self._unwritten.setdefault(labels, set()).update(squares)
        self._has_failed = False
        self._go_on()

    def _note_all(self) -> None:
        """Write the classes and models again, of all that is kept."""
        for _, labels in self._annotation.pairs():
            if folder_of(labels) is not None:
                self._note(labels, ())

    def _go_on(self) -> None:
        if self._unwritten and not self.is_busy:
            self._timer.start()

    def _end(self) -> None:
        if not self._has_failed:
            self._go_on()

    def _write(self) -> None:
        pairs = {labels: image for image, labels in self._annotation.pairs()}
        labels, squares = self._unwritten.popitem()
        if labels not in pairs:
            self._go_on()
            return
        source = self._annotation.painted(labels).source
        project = self._describe((pairs[labels], labels))
        folder = folder_of(labels)
        self._writing, self._has_failed = (labels, squares), False
        self._job.run(lambda: _write(labels, folder, project, source, squares))

    def _describe(self, pair: Pair) -> Project:
        image, labels = pair
        annotation, start = self._annotation, self._start_from.path()
        return Project(
            image=image.name,
            path=image.source.path,
            shape=tuple(int(size) for size in labels.data.shape),
            scale=tuple(float(size) for size in labels.scale),
            units=tuple(str(unit) for unit in labels.units),
            classes=annotation.classes(),
            ignore_value=annotation.ignore_value,
            start_from=None if start is None else start_name(start),
            model=None if self._model is None else str(self._model),
            changed=datetime.now(UTC).isoformat(timespec="seconds"),
            pixels=annotation.painted(labels).counts.total(),
        )

    def _take(self, event: _Written) -> None:
        event.labels.metadata = {**event.labels.metadata, _FOLDER: str(event.folder)}
        self.kept.emit()

    def _fail(self, error: Exception) -> None:
        """Try again after the next stroke, and say so."""
        self._has_failed = True
        if self._writing is not None:
            labels, squares = self._writing
            self._unwritten.setdefault(labels, set()).update(squares)
        self.failed.emit(error)


def folder_of(labels: Labels) -> Path | None:
    """Return the folder that the strokes of a layer are kept in; None if there is none yet."""
    noted = labels.metadata.get(_FOLDER)
    return None if noted is None else Path(noted)


def keep_in(labels: Labels, folder: Path) -> None:
    """Keep the strokes of a layer in the folder from which they were brought back."""
    labels.metadata = {**labels.metadata, _FOLDER: str(folder)}


def _write(
    labels: Labels,
    folder: Path | None,
    project: Project,
    source: ImageSource,
    squares: set[Square],
) -> Generator[Event, None, None]:
    """Write squares of labels, then the record, to a new folder if there is none yet.

    Called in a worker's thread.
    """
    if folder is None:
        folder = new_run_path(load_preferences().runs / PROJECTS, "painted", project.image)
    blocks = (
        (
            _index(square, project.shape),
            source.read(square.plane, square.rows, square.columns)[0],
        )
        for square in sorted(squares)
    )
    write_strokes(folder, project.shape, source.dtype, blocks)
    write_project(folder, project)
    yield _Written(labels, folder)


def _index(square: Square, shape: tuple[int, ...]) -> tuple[int | slice, ...]:
    """Return where a square lies in an array with axes before the rows and columns."""
    lead = shape[:-2]
    place = np.unravel_index(square.plane, lead) if lead else ()
    return (*(int(number) for number in place), square.rows, square.columns)
