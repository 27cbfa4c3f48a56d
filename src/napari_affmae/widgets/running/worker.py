"""Runs of the engine in a thread of their own, beside napari's window."""

import os
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import ClassVar

from napari.qt.threading import WorkerBase, WorkerBaseSignals
from qtpy.QtCore import QCoreApplication, QThread, QThreadPool, Signal

from napari_affmae.engine.events import Event
from napari_affmae.widgets.running.triton_apart import load_triton_apart

_NICENESS = 10
_MILLISECONDS_AT_END = 5000


class RunWorkerSignals(WorkerBaseSignals):
    """Signals of a `RunWorker`."""

    happened = Signal(object)
    """An `Event` of the run."""


class RunWorker(WorkerBase):
    """Drives a generator of events in a thread.

    napari's own generator workers drop every `RuntimeError`, which nearly all of
    torch's errors are, and leave a generator that is stopped to the garbage
    collector. This one reports every exception, and closes the generator in its
    own thread, so that a stopped run leaves its checkpoint before the worker ends.

    Parameters
    ----------
    make_events : Callable[[], Iterable[Event]]
        Makes the generator; called in the thread, so that what it imports
        (torch) never keeps the window waiting.
    """

    #: Threads of a low priority: the window comes first. napari's own pool is
    #: left alone, for a thread's priority cannot be raised again on Linux.
    _pool: QThreadPool | None = None
    #: Apart from those of other plugins, which are not to be stopped with these.
    _worker_set: ClassVar[set[WorkerBase]] = set()

    def __init__(self, make_events: Callable[[], Iterable[Event]]) -> None:
        super().__init__(SignalsClass=RunWorkerSignals)
        self._make_events = make_events
        self._going = threading.Event()
        self._going.set()
        self._over = threading.Event()

    def start(self) -> None:
        """Start in a thread of the plugin's own pool."""
        self._worker_set.add(self)
        self._finished.connect(self._set_discard)
        self._threads().start(self)

    @classmethod
    def _threads(cls) -> QThreadPool:
        if cls._pool is None:
            cls._pool = QThreadPool()
            cls._pool.setMaxThreadCount(8)
            cls._pool.setThreadPriority(QThread.Priority.LowPriority)
            # OpenMP's threads stay as long as the thread that started them. While a spare
            # one keeps some, there are more than cores, and all of them wait less eagerly.
            cls._pool.setExpiryTimeout(0)
            QCoreApplication.instance().aboutToQuit.connect(cls._stop_all)
        return cls._pool

    @classmethod
    def _stop_all(cls) -> None:
        """Stop what still runs when napari ends; for a while, so that it ends at all."""
        for worker in list(cls._worker_set):
            worker.quit()
        if cls._pool is not None:
            cls._pool.waitForDone(_MILLISECONDS_AT_END)

    def run(self) -> None:
        """Work, and tell how it went.

        The base class catches Python's warnings meanwhile. They are the whole
        process's: of two workers that overlap, the one that ends last would
        restore what the other had put there.
        """
        self._tell("started")
        try:
            self.work()
        except Exception as error:  # noqa: BLE001 - the listeners decide what it means
            self._tell("errored", error)
        self._tell("finished")
        self._tell("_finished", self)

    def _tell(self, signal: str, *what: object) -> None:
        try:
            getattr(self.signals, signal).emit(*what)
        except RuntimeError:  # "has been deleted": a job that outlives Qt has no one left to tell
            self.quit()

    def work(self) -> None:
        """Run to the end, or until it is to stop; called in the thread."""
        try:
            _step_back()
            load_triton_apart()
            with closing(_as_generator(self._make_events())) as events:
                while not self.abort_requested:
                    try:
                        event = next(events)
                    except StopIteration:
                        return
                    self._tell("happened", event)
                    self._going.wait()
        finally:
            self._over.set()

    def pause(self) -> None:
        """Rest after the step that is being made."""
        self._going.clear()

    def resume(self) -> None:
        """Go on after a pause."""
        self._going.set()

    def quit(self) -> None:
        """Stop after the step that is being made."""
        super().quit()
        self._going.set()

    def wait(self, seconds: float) -> bool:
        """Wait until the run is over and its checkpoint written; False if it is not."""
        return self._over.wait(seconds)


def _as_generator(events: Iterable[Event]) -> Generator[Event, None, None]:
    yield from events


def _step_back() -> None:
    """Let the window's thread go first where both want the same core.

    Qt's thread priorities have no effect on Linux, where each thread has a
    niceness; OpenMP's threads, which this one starts, inherit it.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
