import subprocess
import sys
import threading
import warnings
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QObject

from napari_affmae.engine.events import Event, Notice
from napari_affmae.widgets.running import worker as worker_module
from napari_affmae.widgets.running.background_job import BackgroundJob
from napari_affmae.widgets.running.worker import RunWorker


class Generated:
    """A run that notes where and when it was closed."""

    def __init__(self, count: int | None = None, error: Exception | None = None) -> None:
        self.count, self.error = count, error
        self.closed_in: threading.Thread | None = None
        self.made = 0

    def events(self) -> Generator[Event, None, None]:
        try:
            while self.count is None or self.made < self.count:
                self.made += 1
                yield Notice(f"{self.made}")
            if self.error is not None:
                raise self.error
        finally:
            self.closed_in = threading.current_thread()


class Listener(QObject):
    """Notes what it hears, and in which threads."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []
        self.threads: set[threading.Thread] = set()

    def hear(self, what: Any) -> None:
        self.heard.append(what)
        self.threads.add(threading.current_thread())


def started(run: Generated, qtbot: Any) -> tuple[RunWorker, Listener]:
    """Start, and wait for the first event."""
    # Not by `waitSignal`: it disconnects while the thread goes on, which PySide does not survive.
    worker, listener = RunWorker(run.events), Listener()
    worker.happened.connect(listener.hear)
    worker.start()
    qtbot.waitUntil(lambda: bool(listener.heard))
    return worker, listener


def test_all_events_arrive_in_the_window_s_thread(qtbot: Any) -> None:
    run, listener = Generated(3), Listener()
    worker = RunWorker(run.events)
    worker.happened.connect(listener.hear)
    with qtbot.waitSignal(worker.finished):
        worker.start()
    assert listener.heard == [Notice(str(n)) for n in (1, 2, 3)]
    assert listener.threads == {threading.main_thread()}
    assert run.closed_in is not threading.main_thread()


@pytest.mark.parametrize("error", [RuntimeError("a torch error"), MemoryError("none left")])
def test_every_error_is_reported(qtbot: Any, error: Exception) -> None:
    worker, listener = RunWorker(Generated(1, error).events), Listener()
    worker.errored.connect(listener.hear)
    with qtbot.waitSignal(worker.finished):
        worker.start()
    assert listener.heard == [error]


def test_stopping_closes_the_generator_in_its_own_thread(qtbot: Any) -> None:
    run = Generated()
    worker, _listener = started(run, qtbot)
    with qtbot.waitSignal(worker.finished):
        worker.quit()
    assert worker.wait(10)
    assert run.closed_in not in {None, threading.main_thread()}


def test_a_paused_run_makes_no_step_and_can_be_stopped(qtbot: Any, note_rest: Any) -> None:
    run = Generated()
    worker, _listener = started(run, qtbot)
    is_resting = note_rest(worker)
    worker.pause()
    qtbot.waitUntil(is_resting)
    made = run.made
    busy = RunWorker(Generated(1000).events)
    with qtbot.waitSignal(busy.finished):
        busy.start()
    assert run.made == made
    worker.resume()
    qtbot.waitUntil(lambda: run.made > made)
    worker.pause()
    with qtbot.waitSignal(worker.finished):
        worker.quit()
    assert run.closed_in is not None


def test_warnings_are_handled_afterwards_as_before(qtbot: Any) -> None:
    before = (warnings.showwarning, list(warnings.filters))
    one, _heard = started(Generated(), qtbot)
    other, _heard_too = started(Generated(), qtbot)
    for worker in (one, other):
        with qtbot.waitSignal(worker.finished):
            worker.quit()
    assert (warnings.showwarning, warnings.filters) == before


def test_steps_of_a_run_leave_the_window_its_share(
    qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for name in ("_step_back", "load_torch"):
        monkeypatch.setattr(worker_module, name, partial(steps.append, name))

    def events() -> list[Event]:
        steps.append("made")
        return []

    worker = RunWorker(events)
    with qtbot.waitSignal(worker.finished):
        worker.start()
    assert steps == ["_step_back", "load_torch", "made"]


def test_a_run_that_outlives_qt_ends(qtbot: Any) -> None:
    run = Generated(3)
    worker = RunWorker(run.events)
    gone: list[bool] = []
    worker.signals.destroyed.connect(lambda: gone.append(True))
    worker.signals.deleteLater()
    qtbot.waitUntil(lambda: bool(gone))
    worker.run()
    assert run.made == 0


SCRIPT = """
import sys, time
from pathlib import Path
from qtpy.QtWidgets import QApplication
from napari_affmae.widgets.running.worker import RunWorker
from napari_affmae.engine.events import Notice

def events():
    try:
        while True:
            yield Notice("a step")
            worker.made_a_step = True
            time.sleep(0.01)
    finally:
        time.sleep(1)
        Path(sys.argv[1]).write_text("checkpoint")

application = QApplication([])
worker = RunWorker(events, loads_torch=False)
worker.made_a_step = False
worker.happened.connect(lambda _: application.quit())
worker.start()
if sys.argv[2] == "loop":
    application.exec()
else:
    while not worker.made_a_step:
        pass
"""


@pytest.mark.parametrize("end", ["loop", "script"])
def test_a_process_that_ends_waits_for_the_checkpoints_of_its_runs(
    tmp_path: Path, end: str
) -> None:
    """After Qt's loop, and after a script that closed its window."""
    path = tmp_path / "checkpoint"
    subprocess.run([sys.executable, "-c", SCRIPT, str(path), end], check=True, timeout=120)
    assert path.read_text() == "checkpoint"


def test_a_run_that_hangs_is_given_up(qtbot: Any, caplog: pytest.LogCaptureFixture) -> None:
    hold = threading.Event()

    def events() -> Generator[Event, None, None]:
        yield Notice("a step")
        hold.wait(30)

    worker, listener = RunWorker(events), Listener()
    worker.happened.connect(listener.hear)
    worker.start()
    qtbot.waitUntil(lambda: bool(listener.heard))
    worker_module.stop_all(seconds=0)
    assert "waiting for what still runs" in caplog.text
    assert "did not stop" in caplog.text
    with qtbot.waitSignal(worker.finished):
        hold.set()


def test_only_the_newest_job_is_heard(qtbot: Any) -> None:
    parent, heard = QObject(), []
    job = BackgroundJob(parent)
    job.happened.connect(heard.append)
    slow = Generated()
    job.run(slow.events)
    qtbot.waitUntil(lambda: bool(heard))
    with qtbot.waitSignal(job.ended):
        job.run(lambda: iter([Notice("newest")]))
        heard.clear()
    assert heard == [Notice("newest")]
    qtbot.waitUntil(lambda: slow.closed_in is not None)
    assert not job.is_running


def test_a_failed_job_says_why(qtbot: Any) -> None:
    parent = QObject()
    job = BackgroundJob(parent)
    listener = Listener()
    job.failed.connect(listener.hear)
    with qtbot.waitSignal(job.ended):
        job.run(Generated(0, RuntimeError("broken")).events)
    assert [str(error) for error in listener.heard] == ["broken"]
