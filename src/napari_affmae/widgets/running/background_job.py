"""Small jobs in the background, of which only the newest counts."""

from collections.abc import Callable, Iterable

from qtpy.QtCore import QObject, Signal

from napari_affmae.engine.events import Event
from napari_affmae.widgets.running.worker import RunWorker


class BackgroundJob(QObject):
    """Runs generators of events in the background, one at a time.

    Starting another stops the one before, whose events are ignored from then on.

    Parameters
    ----------
    parent : QObject
        The job stops when this is destroyed.
    loads_torch : bool
        Whether the generators import torch; see `RunWorker`.
    """

    happened = Signal(object)
    """An `Event` of the newest job."""
    failed = Signal(object)
    """The newest job raised this exception."""
    ended = Signal()
    """The newest job has ended: it finished or failed."""

    def __init__(self, parent: QObject, *, loads_torch: bool = True) -> None:
        super().__init__(parent)
        self._loads_torch = loads_torch
        self._worker: RunWorker | None = None
        parent.destroyed.connect(self.stop)

    @property
    def is_running(self) -> bool:
        """Whether a job is running."""
        return self._worker is not None

    def run(self, make_events: Callable[[], Iterable[Event]]) -> None:
        """Start a job in place of the one that is running."""
        self.stop()
        self._worker = worker = RunWorker(make_events, loads_torch=self._loads_torch)
        # Bound methods of a Qt object: they are called in its thread.
        worker.happened.connect(self._take)
        worker.errored.connect(self._fail)
        worker.finished.connect(self._end)
        worker.start()

    def stop(self) -> None:
        """Stop the job that is running."""
        if self._worker is not None:
            self._worker.quit()
            self._worker = None

    def _is_newest(self) -> bool:
        return self._worker is not None and self.sender() is self._worker.signals

    def _take(self, event: Event) -> None:
        if self._is_newest():
            self.happened.emit(event)

    def _fail(self, error: Exception) -> None:
        if self._is_newest():
            self.failed.emit(error)

    def _end(self) -> None:
        if self._is_newest():
            self._worker = None
            self.ended.emit()
