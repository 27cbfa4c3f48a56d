"""The settings of a training run: whether it is new or resumed, and how long it is."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_affmae.config import FinetuneConfig, PretrainConfig
from napari_affmae.engine import events as ev
from napari_affmae.engine.store.run_folder import Kind, read_config
from napari_affmae.engine.store.run_names import new_run_path
from napari_affmae.engine.training.resuming import FREE
from napari_affmae.errors import CheckpointError
from napari_affmae.widgets.parts.forms import SettingsForm
from napari_affmae.widgets.parts.length import LengthEdit
from napari_affmae.widgets.parts.preferences import load_preferences
from napari_affmae.widgets.running.plan_line import PlanLine
from napari_affmae.widgets.running.run_choice import RunChoice
from napari_affmae.widgets.running.run_panel import Outcome, RunPanel

C = TypeVar("C", PretrainConfig, FinetuneConfig)

#: These advanced settings belong to every training. The form of a dock shows `STEPS` after its
#: own ones, and `REST` at its end.
STEPS = ("warmup", "weight_decay", "clip", "precision", "seed", "memory_share", "validation")
REST = ("checkpoint_minutes", "normalization", "augmentation")


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
        """The run that was started last."""
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
        panel.ended.connect(self._choose_next)

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

    def target(self, label: str) -> tuple[Path, bool]:
        """Return the folder of the run, and whether a run is resumed in it.

        Parameters
        ----------
        label : str
            The subject of a new run, for its name.
        """
        chosen = self.run_choice.path()
        if chosen is not None:
            return chosen, True
        return new_run_path(load_preferences().runs, self._kind, label), False

    def start(self, label: str, make_events: Callable[[Path, bool], Iterable[ev.Event]]) -> None:
        """Start or resume the run.

        Parameters
        ----------
        label : str
            The subject of a new run, for its name.
        make_events : Callable[[Path, bool], Iterable[Event]]
            Makes the run's generator from what `target` returns; called in the worker's thread.
        """
        run, resume = self.target(label)
        if run != self.run or not resume:  # a new run may have the name of a deleted one
            self.run = run
            self.replaced.emit()
        self._panel.run(lambda: make_events(run, resume))

    def _show_run(self) -> None:
        """Show the settings of the run that is to be resumed, of which few can be changed."""
        run = self.run_choice.path()
        try:
            self.stored = None if run is None else self._read(run)
        except CheckpointError as error:  # the run was deleted or damaged since it was listed
            self.run_choice.choose(None)
            self.run_choice.refresh()
            self._panel.fail(error)  # the last: what is said goes when another run is chosen
            return
        self.form.set_enabled(None if run is None else FREE)
        self._panel.start_button.setText("Start" if run is None else self._resume_text())
        if self.stored is not None:
            self.set_values(self.stored.model_dump())
            self.resuming.emit(self.stored)
        self.changed.emit()

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

    def _read(self, run: Path) -> C:
        config = read_config(run)
        if not isinstance(config, self._settings):
            raise CheckpointError(f"{run} holds a run of another kind; choose another run")
        return config

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
