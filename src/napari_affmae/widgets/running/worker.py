"""Runs of the engine in a thread of their own, beside napari's window."""

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import ClassVar

from napari.qt.threading import WorkerBase, WorkerBaseSignals
from qtpy.QtCore import QCoreApplication, QThread, QThreadPool, Signal

from napari_affmae.engine.events import Event
from napari_affmae.widgets.running.loading import load_torch

logger = logging.getLogger(__name__)

_NICENESS = 10
# The longest time for which the process waits for checkpoints, and that before it says so.
_SECONDS_AT_EXIT = 300.0
_SECONDS_OF_SILENCE = 2.0
_MILLISECONDS_TO_LEAVE = 2000


class RunWorkerSignals(WorkerBaseSignals):
    """Signals of a `RunWorker`."""

    happened = Signal(object)
    """An `Event` of the run."""
    left = Signal(object)
    """The worker itself, as the last of its signals."""


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
    loads_torch : bool
        Whether the generator imports torch; see `loading`.
    """

    #: Threads of a low priority: the window comes first. napari's own pool is
    #: left alone, for a thread's priority cannot be raised again on Linux.
    _pool: QThreadPool | None = None
    #: Keeps workers until their last signal has arrived.
    _alive: ClassVar[set["RunWorker"]] = set()

    def __init__(
        self, make_events: Callable[[], Iterable[Event]], *, loads_torch: bool = True
    ) -> None:
        super().__init__(SignalsClass=RunWorkerSignals)
        self._make_events, self._loads_torch = make_events, loads_torch
        self._going = threading.Event()
        self._going.set()
        self._over = threading.Event()

    def start(self) -> None:
        """Start in a thread of the plugin's own pool."""
        self._alive.add(self)
        self.left.connect(self._alive.discard)
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
            # On macOS the process may end without leaving Qt's loop, elsewhere without entering it.
            QCoreApplication.instance().aboutToQuit.connect(stop_all)
            atexit.register(stop_all)
        return cls._pool

    def run(self) -> None:
        """Work, and report how it went.

        The base class catches Python's warnings meanwhile. They are the whole
        process's: of two workers that overlap, the one that ends last would
        restore what the other had put there.
        """
        try:
            self._emit("started")
            try:
                self.work()
            except Exception as error:  # noqa: BLE001 - the listeners decide what it means
                self._emit("errored", error)
            self._emit("finished")
            self._emit("left", self)
        finally:
            self._over.set()

    def _emit(self, signal: str, *values: object) -> None:
        try:
            getattr(self.signals, signal).emit(*values)
        except RuntimeError:  # "has been deleted": the run outlives Qt, and nobody listens
            self.quit()

    def work(self) -> None:
        """Run to the end, or until it is to stop; called in the thread."""
        _step_back()
        if self._loads_torch:
            load_torch()
        with closing(_as_generator(self._make_events())) as events:
            while not self.abort_requested:
                try:
                    event = next(events)
                except StopIteration:
                    return
                self._emit("happened", event)
                self._going.wait()

    def pause(self) -> None:
        """Pause after the step that is being made."""
        self._going.clear()

    def resume(self) -> None:
        """Continue after a pause."""
        self._going.set()

    def quit(self) -> None:
        """Stop after the step that is being made."""
        super().quit()
        self._going.set()

    def wait(self, seconds: float) -> bool:
        """Wait until the run is over and has sent its last signal; False if it is not."""
        return self._over.wait(seconds)


def stop_all(seconds: float = _SECONDS_AT_EXIT) -> None:
    """Stop all runs before the process ends, and wait until their checkpoints are written.

    No window is open any more: nothing but the end of the process waits.

    Parameters
    ----------
    seconds : float
        The longest time to wait; a run that hangs must not keep the process for ever.
    """
    workers = list(RunWorker._alive)  # noqa: SLF001 - of this module
    for worker in workers:
        worker.quit()
    end = time.monotonic() + seconds
    if not all(worker.wait(_SECONDS_OF_SILENCE / len(workers)) for worker in workers):
        logger.warning("waiting for what still runs to stop and to save its checkpoint ...")
        for worker in workers:
            if not worker.wait(max(0.0, end - time.monotonic())):
                logger.error("a run did not stop within %.0f s and is given up", seconds)
    if (pool := RunWorker._pool) is not None:  # noqa: SLF001 - of this module
        # A thread that is still on its way out of Qt when Python takes Qt down crashes the process.
        pool.waitForDone(_MILLISECONDS_TO_LEAVE)


def _as_generator(events: Iterable[Event]) -> Generator[Event, None, None]:
    yield from events


def _step_back() -> None:
    """Let the window's thread go first where both want the same core.

    Qt's thread priorities have no effect on Linux, where each thread has a
    niceness; OpenMP's threads, which this one starts, inherit it.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
