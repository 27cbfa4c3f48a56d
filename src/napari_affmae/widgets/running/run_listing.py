"""Listing runs and models in the background: their logs may be long and their disk slow."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import QObject, Signal

from napari_affmae.engine.events import Event
from napari_affmae.engine.store.registry import RunSummary, list_runs, list_weights
from napari_affmae.widgets.parts.preferences import load_preferences
from napari_affmae.widgets.running.background_job import BackgroundJob


@dataclass(frozen=True)
class Listing(Event):
    """Runs and models, newest first: those of the folder of runs, then those from elsewhere.

    `weights` are those that come with the program.
    """

    folder: Path
    runs: tuple[RunSummary, ...]
    weights: tuple[RunSummary, ...]


class RunListing(QObject):
    """Lists the runs and models that there are, without keeping the window waiting."""

    listed = Signal(object)
    """The list is read: a `Listing`."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._waiting: list[Callable[[], None]] = []
        self._job = BackgroundJob(self, loads_torch=False)
        self._job.happened.connect(self.listed)
        self._job.failed.connect(self._fail)
        self._job.ended.connect(self._release)

    @property
    def is_reading(self) -> bool:
        """Whether a list is being read."""
        return self._job.is_running

    def read(self, elsewhere: Sequence[Path] = ()) -> None:
        """Read the list again; `listed` emits it.

        Parameters
        ----------
        elsewhere : sequence of Path
            Runs and models outside the folder of runs, to be listed as well.
        """
        paths = tuple(elsewhere)
        self._job.run(lambda: _list(paths))

    def when_read(self, action: Callable[[], None]) -> None:
        """Call an action once no list is being read: now, or after `listed`."""
        if not self.is_reading:
            action()
        elif action not in self._waiting:
            self._waiting.append(action)

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for action in waiting:
            action()

    def _fail(self, error: Exception) -> None:
        raise error  # what is damaged is listed with its problem: this is a bug, for napari to show


def _list(elsewhere: Sequence[Path]) -> Generator[Listing, None, None]:
    folder = load_preferences().runs
    runs, weights = list_runs(folder), list_weights()
    listed = {run.path for run in (*runs, *weights)}
    for path in elsewhere:
        if path not in listed:
            runs += [run for run in list_runs(path.parent) if run.path == path]
    yield Listing(folder, tuple(runs), tuple(weights))
