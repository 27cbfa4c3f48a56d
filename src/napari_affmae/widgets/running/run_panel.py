"""Starting, pausing and stopping a run, and showing its progress and messages."""

import logging
from collections.abc import Callable, Iterable
from enum import Enum, auto

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.engine import events as ev
from napari_affmae.engine import wording
from napari_affmae.widgets.parts.curves import load_plots
from napari_affmae.widgets.parts.error_text import in_words
from napari_affmae.widgets.parts.messages import Messages
from napari_affmae.widgets.parts.primary_button import PrimaryButton
from napari_affmae.widgets.running.activity import Activity
from napari_affmae.widgets.running.ended_runs import ended_runs
from napari_affmae.widgets.running.loading import loading
from napari_affmae.widgets.running.run_choice import RunChoice
from napari_affmae.widgets.running.worker import RunWorker

logger = logging.getLogger(__name__)

_PARTS = 1000
# A fast GPU makes hundreds of steps a second, which nobody can read: only the newest is shown
# after each of these pauses.
_MILLISECONDS_BETWEEN_STEPS = 50


class Outcome(Enum):
    """How a run ended."""

    FINISHED = auto()
    STOPPED = auto()
    FAILED = auto()


class RunPanel(QWidget):
    """The lower part of each dock: buttons, progress, and messages of one run.

    Parameters
    ----------
    title : str
        The name of the run in messages: "Pretraining".
    start_text : str
        Text of the start button.
    pausable : bool
        Whether there is a pause button.
    kept : str
        A sentence for questions: what remains of a run that is stopped.
    draws_curves : bool
        Whether the dock draws curves of the run.
    """

    start_requested = Signal()
    """The start button was pressed; the dock then calls `run`."""
    happened = Signal(object)
    """An `Event` of the run."""
    ended = Signal(object)
    """The run is over: its `Outcome`."""
    running_changed = Signal(bool)

    def __init__(
        self,
        title: str,
        start_text: str,
        *,
        pausable: bool = True,
        kept: str = "What it has learned is saved, and it can be resumed.",
        draws_curves: bool = True,
    ) -> None:
        super().__init__()
        self._title = title
        self._kept, self._draws_curves = kept, draws_curves
        self._doing = ""
        self._has_refused = self._is_timed = False
        self._worker: RunWorker | None = None
        self._outcome = Outcome.FINISHED
        self._newest: ev.StepDone | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_MILLISECONDS_BETWEEN_STEPS)
        self._timer.timeout.connect(self._show_newest)
        self.start_button = PrimaryButton(start_text)
        self.start_button.clicked.connect(self.start_requested)
        self.pause_button = QPushButton("Pause")
        self.pause_button.setCheckable(True)
        self.pause_button.setVisible(pausable)
        self.pause_button.toggled.connect(self._pause)
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("Stops after the step that is being made; nothing is lost.")
        self.stop_button.clicked.connect(self.stop)
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.messages = Messages()
        self._activity = Activity(title, self)
        buttons = QHBoxLayout()
        for button in (self.start_button, self.pause_button, self.stop_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        for widget in (self.bar, self.status, self.messages):
            layout.addWidget(widget)
        self._show_running(running=False)
        self.bar.setVisible(False)
        self.status.setVisible(False)

    @property
    def is_running(self) -> bool:
        """Whether a run has started and not ended yet."""
        return self._worker is not None

    def run(self, make_events: Callable[[], Iterable[ev.Event]]) -> None:
        """Start a run.

        Parameters
        ----------
        make_events : Callable[[], Iterable[Event]]
            Makes the run's generator; called in the worker's thread.
        """
        if self.is_running:
            raise ValueError(f"{self._title} is running already")
        self.messages.clear()
        self._has_refused = False
        self._outcome = Outcome.FINISHED
        self.show_progress(0, None, "starting ...")

        def begin() -> Iterable[ev.Event]:
            if self._draws_curves:
                with loading():
                    load_plots()
            return make_events()

        self._worker = worker = RunWorker(begin)
        worker.happened.connect(self._take)
        worker.errored.connect(self._fail)
        worker.finished.connect(self._end)
        self._show_running(running=True)
        worker.start()

    def start_when_listed(self, choice: RunChoice, start: Callable[[], None]) -> None:
        """Call `start` as soon as the list of runs is read, so that the choice is final."""
        if choice.is_listing and not self.is_running:
            self.status.setText("looking for runs and models ...")
        choice.when_listed(start)

    def stop(self) -> None:
        """Ask the run to stop after its step."""
        if self._worker is not None:
            self._outcome = Outcome.STOPPED
            self.stop_button.setEnabled(False)
            self.pause_button.setEnabled(False)  # a run that is paused would not stop
            self.status.setText("stopping after this step ...")
            self._worker.quit()

    def confirm_stop(self) -> bool:
        """Ask whether the run may be stopped, and ask it to stop.

        It saves its checkpoint in its own thread, for which the process waits at its end.

        Returns
        -------
        bool
            False if the user wants the run to go on.
        """
        if not self.is_running:
            return True
        answer = QMessageBox.question(
            self,
            self._title,
            f"{self.what_stops()} Stop it?",
        )
        if answer == QMessageBox.StandardButton.Yes:
            self.stop()
        return bool(answer == QMessageBox.StandardButton.Yes)

    def what_stops(self) -> str:
        """Say what is running, and what remains of it when it is stopped."""
        return f"{self._title} is running. {self._kept}"

    def fail(self, error: Exception) -> None:
        """Show an error that has kept a run from starting."""
        if not self.is_running:  # what the former run has said is out of date
            self.messages.clear()
            self.status.clear()
            self._has_refused = True
        self.messages.add(in_words(error), "error")

    def forget_refusal(self) -> None:
        """Take back why a run did not start: something has changed since."""
        if self._has_refused and not self.is_running:
            self._has_refused = False
            self.messages.remove("error")

    def _pause(self, paused: bool) -> None:
        if self._worker is not None:
            self.pause_button.setText("Go on" if paused else "Pause")
            self._worker.pause() if paused else self._worker.resume()
            self._show_status(self._doing)

    def _show_status(self, doing: str) -> None:
        """Show what is being done, and whether it is paused.

        The step in which the pause was asked for still reports its end.
        """
        self._doing = doing
        self.status.setText(f"{doing}  (paused)" if self.pause_button.isChecked() else doing)

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.RunStarted():
                self.messages.add(wording.started(event), "info")
                self._is_timed = event.total_steps is None
                if event.on_gpu:
                    self._activity.begin()
            case ev.Notice():
                source = f"{event.source}: " if event.source else ""
                self.messages.add(f"{source}{event.message}", event.level)
            case ev.MicroBatchHalved():
                self.messages.add(wording.halved(event), "warning")
            case ev.StepDone():
                self._newest = event
                if not self._timer.isActive():
                    self._show_newest()
            case ev.FilesLookedAt():
                self.show_progress(0, None, f"looking at the images: {event.count:,} so far")
            case ev.PoolFilled() if event.step == 0:
                self.show_progress(0, None, wording.pool(event))
        self.happened.emit(event)

    def _show_newest(self) -> None:
        """Show the step that was made last, unless it is shown."""
        if self._newest is not None:
            event, self._newest = self._newest, None
            self._show_step(event)
            self._timer.start()

    def _show_step(self, event: ev.StepDone) -> None:
        """Show a step. In a run by time, the number of all steps is a guess that changes."""
        if self._is_timed and event.total_steps:
            part = event.step / event.total_steps
            self.show_progress(part, 1, f"step {event.step:,}  {wording.step(event)}")
        else:
            self.show_progress(event.step, event.total_steps, wording.step(event))

    def show_progress(self, done: float, total: float | None, text: str) -> None:
        """Show how far the run is; `total` is None if it is not known."""
        if self._worker is not None and self._worker.abort_requested:
            return
        if total:
            self.bar.setRange(0, _PARTS)
            self.bar.setValue(min(_PARTS, int(_PARTS * done / total)))
            self.bar.setFormat(f"{done:,.0f} of {total:,.0f}" if total > 1 else "%p %")
            self._activity.show(min(1.0, done / total), text)
        else:
            self.bar.setRange(0, 0)
        self._show_status(text)

    def _fail(self, error: Exception) -> None:
        self._outcome = Outcome.FAILED
        self.messages.add(in_words(error), "error")

    def _end(self) -> None:
        self._newest = None
        self._timer.stop()
        self._worker = None
        self._activity.end()
        self._show_running(running=False)
        endings = {
            Outcome.FINISHED: "finished",
            Outcome.STOPPED: "stopped",
            Outcome.FAILED: "ended by an error",
        }
        self.bar.setVisible(False)
        self.status.setText(f"{self._title} {endings[self._outcome]}.")
        self.ended.emit(self._outcome)
        ended_runs().happened.emit()

    def _show_running(self, *, running: bool) -> None:
        self.start_button.setEnabled(not running)
        self.pause_button.setEnabled(running)
        self.pause_button.setChecked(False)
        self.pause_button.setText("Pause")
        self.stop_button.setEnabled(running)
        self.bar.setVisible(running)
        self.status.setVisible(True)
        self.running_changed.emit(running)
