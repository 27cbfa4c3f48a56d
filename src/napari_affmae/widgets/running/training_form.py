"""The settings of a training run: whether it is new or resumed, and how long it is."""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_affmae.config import FinetuneConfig, PretrainConfig
from napari_affmae.engine import events as ev
from napari_affmae.engine.store.registry import RunSummary
from napari_affmae.engine.store.run_folder import Kind, read_config
from napari_affmae.engine.store.run_names import new_run_path
from napari_affmae.engine.training.resuming import FREE
from napari_affmae.errors import CheckpointError
from napari_affmae.widgets.parts.forms import SettingsForm
from napari_affmae.widgets.parts.length import LengthEdit
from napari_affmae.widgets.parts.preferences import load_preferences
from napari_affmae.widgets.running.background_job import BackgroundJob
from napari_affmae.widgets.running.plan_line import PlanLine
from napari_affmae.widgets.running.run_choice import RunChoice
from napari_affmae.widgets.running.run_panel import Outcome, RunPanel

C = TypeVar("C", PretrainConfig, FinetuneConfig)

#: These advanced settings belong to every training. The form of a dock shows `STEPS` after its
#: own ones, and `REST` at its end.
STEPS = ("warmup", "weight_decay", "clip", "precision", "seed", "memory_share", "validation")
REST = ("checkpoint_minutes", "normalization", "augmentation")


@dataclass(frozen=True)
class _Read(ev.Event):
    """The settings of the chosen run."""

    stored: Any


@dataclass(frozen=True)
class _Targeted(ev.Event):
    """The folder of a run, and whether a run is resumed in it."""

    run: Path
    resume: bool


class TrainingForm(QWidget, Generic[C]):
    """The settings of a training run. They cannot change during the run, so it hides them.

    Parameters
    ----------
    panel : RunPanel
        Runs the training.
    settings : type[PretrainConfig] or type[FinetuneConfig]
        The class of the settings.
    kind : {"pretrain", "finetune"}
        The kind of training.
    minutes : float
        The length that is offered at first.
    basic, advanced : sequence of str
        See `SettingsForm`.
    """

    changed = Signal()
    """Other settings are entered, or another run is chosen to be resumed."""
    resuming = Signal(object)
    """A run was chosen to be resumed: its settings."""
    replaced = Signal()
    """A run starts that is not the former one, whose curves and pictures must go."""

    def __init__(
        self,
        panel: RunPanel,
        settings: type[C],
        *,
        kind: Kind,
        minutes: float,
        basic: tuple[str, ...],
        advanced: tuple[str, ...],
    ) -> None:
        super().__init__()
        self._panel, self._kind = panel, kind
        self._settings: type[C] = settings
        self.stored: C | None = None
        """Settings of the run that is to be resumed; None for a new run."""
        self.run: Path | None = None
        """The run that was started last; None until a new one has its name."""
        self._entered_before: dict[str, Any] = {}
        self._waiting: list[Callable[[], None]] = []
        self._reading = BackgroundJob(self, loads_torch=False)
        self._reading.happened.connect(self._take_settings)
        self._reading.failed.connect(self._refuse_run)
        self._reading.ended.connect(self._release_when_listed)
        self._show_target: Callable[[Path, bool], None] | None = None
        self._targeting = BackgroundJob(self, loads_torch=False)
        self._targeting.happened.connect(self._take_target)
        self.run_choice = RunChoice("a new run", {kind}, resumable=True)
        self.length = LengthEdit(minutes, "minutes")
        self.form: SettingsForm[C] = SettingsForm(
            settings,
            basic=basic,
            advanced=advanced,
            above=[("Run", self.run_choice), ("Length", self.length)],
        )
        self.plan = PlanLine()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.form)
        layout.addWidget(self.plan)
        self.run_choice.changed.connect(self._show_run)
        self.form.changed.connect(self.changed)
        self.length.changed.connect(self.changed)
        panel.running_changed.connect(self._make_room)
        panel.happened.connect(self._note_target)
        panel.ended.connect(self._choose_next)

    @property
    def is_reading(self) -> bool:
        """Whether the settings of the chosen run are being read."""
        return self._reading.is_running

    def when_ready(self, action: Callable[[], None]) -> None:
        """Call an action once the choice of a run is final and its settings are shown.

        It is not called if they cannot be read.
        """
        if action not in self._waiting:
            self._waiting.append(action)
        self._release_when_listed()

    def _release_when_listed(self) -> None:
        self.run_choice.when_listed(self._release)

    def _release(self) -> None:
        if self.is_reading:
            return
        waiting, self._waiting = self._waiting, []
        for action in waiting:
            action()

    def config(self, **others: Any) -> C:
        """Return the settings; for a resumed run, its own, except those that may change.

        Parameters
        ----------
        **others
            Settings of a new run that have no control.

        Raises
        ------
        ValueError
            If a setting is not valid.
        """
        kept = {} if self.stored is None else self.stored.model_dump(exclude=set(FREE))
        return self.form.build(**{**others, **kept, **self.length.values()})

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Enter settings."""
        self.form.set_values(values)
        self.length.set_values(values.get("steps"), values.get("minutes"))

    def follow_start(self, start: RunSummary | None) -> None:
        """Show the size of the network that a new run starts from, which decides about it.

        Parameters
        ----------
        start : RunSummary or None
            What it starts from; None for random weights, whose size the user chooses.
        """
        if self.stored is not None:
            return
        self.form.control("preset").setEnabled(start is None)
        if start is not None:
            self.form.set_values({"preset": start.preset})

    def find_target(self, label: str, show: Callable[[Path, bool], None]) -> None:
        """Look in the background where the run would be written.

        Parameters
        ----------
        label : str
            The subject of a new run, for its name.
        show : Callable[[Path, bool], None]
            Called with the folder of the run, and whether a run is resumed in it.
        """
        kind, chosen = self._kind, self.run_choice.path()
        self._show_target = show
        self._targeting.run(lambda: _find_target(kind, label, chosen))

    def _take_target(self, target: _Targeted) -> None:
        show, self._show_target = self._show_target, None
        if show is not None:
            show(target.run, target.resume)

    def start(self, label: str, make_events: Callable[[Path, bool], Iterable[ev.Event]]) -> None:
        """Start or resume the run.

        Parameters
        ----------
        label : str
            The subject of a new run, for its name.
        make_events : Callable[[Path, bool], Iterable[Event]]
            Makes the run's generator from the folder of the run and whether a run is resumed
            in it; called in the worker's thread.
        """
        kind, chosen, former = self._kind, self.run_choice.path(), self.run
        self.run = chosen
        if chosen is None or chosen != former:
            self.replaced.emit()
        self._panel.run(lambda: _run(kind, label, chosen, make_events))

    def _note_target(self, event: ev.Event) -> None:
        if isinstance(event, _Targeted):
            self.run = event.run

    def _show_run(self) -> None:
        """Show what can be entered for the chosen run, and read its settings if it is resumed.

        Until they come, the form shows what it showed before.
        """
        run = self.run_choice.path()
        self.stored = None
        self._reading.stop()
        self.form.set_enabled(None if run is None else FREE)
        self._panel.start_button.setText("Start" if run is None else self._resume_text())
        if run is None:
            self.changed.emit()
            self._release_when_listed()
            return
        self._entered_before = self._entered()
        settings = self._settings
        self._reading.run(lambda: _read(run, settings))

    def _take_settings(self, read: _Read) -> None:
        """Show the settings of the run that is to be resumed, of which few can be changed."""
        self.stored = read.stored
        entered, before = self._entered(), self._entered_before
        typed = {name: value for name, value in entered.items() if value != before[name]}
        if any(name in typed for name in self.length.values()):
            typed |= self.length.values()
        self.set_values({**self.stored.model_dump(), **typed})
        self.resuming.emit(self.stored)
        self.changed.emit()

    def _entered(self) -> dict[str, Any]:
        """Return what is entered of the settings that a resumed run lets change."""
        free = {name: value for name, value in self.form.values().items() if name in FREE}
        return {**free, **self.length.values()}

    def _refuse_run(self, error: Exception) -> None:
        """Go back to a new run: the chosen one was deleted or damaged since it was listed."""
        self._waiting.clear()
        self.run_choice.choose(None)
        self.run_choice.refresh()
        self._panel.fail(error)  # the last: what is said goes when another run is chosen

    def _resume_text(self) -> str:
        """Name the start button, and say if the run has nothing to go on from."""
        run = self.run_choice.run()
        if run is None or run.has_checkpoint:
            return "Resume"
        self._panel.messages.add(
            f"{run.name} ended before its first checkpoint: it begins anew, with its settings.",
            "info",
        )
        return "Begin anew"

    def _choose_next(self, outcome: Outcome) -> None:
        """Offer to resume a run that was stopped or has failed."""
        if outcome is Outcome.FINISHED:
            self.run_choice.choose(None)
            self.run_choice.refresh()
        else:
            self.run_choice.refresh(wanted=self.run)

    def _make_room(self, running: bool) -> None:
        # The settings cannot change while a run is going on, so its curves and pictures are
        # shown in their place.
        self.setVisible(not running)


def _read(run: Path, settings: type[C]) -> Generator[_Read, None, None]:
    """Read the settings of a run; in a worker's thread."""
    config = read_config(run)
    if not isinstance(config, settings):
        raise CheckpointError(f"{run} holds a run of another kind; choose another run")
    yield _Read(config)


def _find_target(kind: Kind, label: str, chosen: Path | None) -> Generator[_Targeted, None, None]:
    """Name the folder of a run, which must not exist unless it was chosen; in a worker's thread."""
    if chosen is None:
        yield _Targeted(new_run_path(load_preferences().runs, kind, label), resume=False)
    else:
        yield _Targeted(chosen, resume=True)


def _run(
    kind: Kind,
    label: str,
    chosen: Path | None,
    make_events: Callable[[Path, bool], Iterable[ev.Event]],
) -> Generator[ev.Event, None, None]:
    """Name the folder of a run, and run; in a worker's thread."""
    (target,) = _find_target(kind, label, chosen)
    yield target
    yield from make_events(target.run, target.resume)
