"""Fine-tuning of the whole network: its settings, its run, and its prediction of the view."""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Image
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QLabel,
    QSizePolicy,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.config import FinetuneConfig, SegmentConfig
from napari_affmae.data.source import ImageSource
from napari_affmae.engine import events as ev
from napari_affmae.engine import words
from napari_affmae.engine.run_folder import read_config
from napari_affmae.engine.run_names import new_run_path
from napari_affmae.errors import AffmaeError, CheckpointError
from napari_affmae.widgets.annotation import Annotation, check_painted
from napari_affmae.widgets.curves import Curves
from napari_affmae.widgets.errand import Errand
from napari_affmae.widgets.following import follow
from napari_affmae.widgets.forms import SettingsForm
from napari_affmae.widgets.length import LengthEdit
from napari_affmae.widgets.plan_line import PlanLine
from napari_affmae.widgets.prediction import PredictionLayers
from napari_affmae.widgets.preferences import load_preferences
from napari_affmae.widgets.run_choice import RunChoice
from napari_affmae.widgets.run_panel import Outcome, RunPanel, in_words, log_unforeseen
from napari_affmae.widgets.training_fields import FREE, REST, STEPS
from napari_affmae.widgets.view import PART_ONLY, View, shown_part

_BASIC = ("preset", "crop", "batch", "device")
_ADVANCED = (
    "learning_rate",
    "layer_decay",
    "class_weights",
    "focal_gamma",
    *STEPS,
    "validation_gap",
    "validation_steps",
    *REST,
)


class FullPanel(QWidget):
    """Everything of a fine-tuning run but what is painted.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose view is predicted.
    panel : RunPanel
        Runs it.
    annotation : Annotation
        What is painted.
    start_from : RunChoice
        The pretrained model.
    layers : PredictionLayers
        Where predictions go.
    """

    resuming = Signal(object)
    """A run is to go on: its classes, and the label value that means unknown."""

    def __init__(
        self,
        viewer: "napari.viewer.Viewer",
        panel: RunPanel,
        annotation: Annotation,
        start_from: RunChoice,
        layers: PredictionLayers,
    ) -> None:
        super().__init__()
        self._viewer, self.panel, self._annotation = viewer, panel, annotation
        self._start_from, self._layers = start_from, layers
        self._run: Path | None = None
        self._running: FinetuneConfig | None = None
        self._asked: tuple[Image, View] | None = None
        self._trained_on: list[Any] = []
        self.run_choice = RunChoice("a new run", {"finetune"}, resumable=True)
        self.run_choice.changed.connect(self._show_run)
        self.length = LengthEdit(30, "minutes")
        self.form = SettingsForm(FinetuneConfig, basic=_BASIC, advanced=_ADVANCED)
        self.plan = PlanLine()
        self.losses = Curves("loss", logarithmic=True)
        self.scores = Curves("IoU")
        self.curves = QTabWidget()
        self.curves.addTab(self.losses, "Loss")
        self.curves.addTab(self.scores, "IoU of the classes")
        self.curves.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.curves.setVisible(False)
        self.score = QLabel()
        self.score.setWordWrap(True)
        self.score.setVisible(False)
        self.uncertainty = QCheckBox("Show where it is uncertain")
        self.uncertainty.toggled.connect(layers.show_uncertainty)
        self._errand = Errand(self)
        self._errand.happened.connect(self._take_prediction)
        self._errand.failed.connect(self._fail_prediction)
        self._arrange()
        self.form.changed.connect(self.note_settings)
        self.length.changed.connect(self.note_settings)
        panel.start_requested.connect(self._start)
        panel.happened.connect(self._take)
        panel.ended.connect(self._end)
        panel.running_changed.connect(self._lock)
        follow(self, viewer.layers.events.removed, self._note_removed)

    def _arrange(self) -> None:
        self._settings = QWidget()
        rows = QFormLayout(self._settings)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addRow("Run", self.run_choice)
        rows.addRow("Length", self.length)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (
            self._settings,
            self.form,
            self.plan,
            self.panel,
            self.score,
            self.uncertainty,
            self.curves,
        ):
            layout.addWidget(widget)

    def config(self) -> FinetuneConfig:
        """Return the settings that are entered; of a resumed run those of its record.

        Raises
        ------
        ValueError
            If they do not fit.
        AffmaeError
            If the record cannot be read.
        """
        annotation, pairs = self._annotation, self._annotation.pairs()
        channels = annotation.image(pairs[0][0]).n_channels if pairs else 1
        config = self.form.build(
            in_channels=channels,
            classes=annotation.classes(),
            ignore_value=annotation.ignore_value,
            **self.length.values(),
        )
        run = self.run_choice.run()
        if run is None:
            return config
        stored = _stored(run.path)
        known = run.classes
        if [item.value for item in known] != [item.value for item in config.classes]:
            raise ValueError(
                "The run that is to go on knows the classes "
                f"{', '.join(item.name for item in known)}: keep to them, or choose a new run."
            )
        changes = {name: getattr(config, name) for name in (*FREE, "steps", "minutes")}
        return stored.model_copy(update=changes)

    def values(self) -> dict[str, Any]:
        """Return what is entered, to be remembered."""
        return {**self.form.values(), **self.length.values()}

    def set_values(self, values: dict[str, Any]) -> None:
        """Enter remembered settings."""
        self.form.set_values(values)
        self.length.set_values(values.get("steps"), values.get("minutes"))

    def note_settings(self) -> None:
        """Measure the settings that are entered, if they are looked at."""
        if not self.isVisible() or self.panel.is_running:
            return
        pretrained = self._start_from.path()
        self.form.control("preset").setEnabled(pretrained is None and not self.run_choice.path())
        try:
            config = self.config()
        except (ValueError, AffmaeError) as error:
            self.plan.refuse(in_words(error))
            return
        # Neither names nor colours take time: changing them measures nothing again.
        bare = config.model_copy(update={"classes": (), "ignore_value": None})
        self.plan.offer(bare, classes=len(config.classes), pretrained=pretrained)

    def showEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Measure the settings once they are looked at."""
        super().showEvent(event)
        self.note_settings()

    def hideEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Measure nothing that is not looked at."""
        super().hideEvent(event)
        self.plan.stop()

    def _show_run(self) -> None:
        """Show the settings of the run that is to go on, of which few can be changed."""
        run = self.run_choice.run()
        self.form.set_enabled(None if run is None else FREE)
        self.panel.start_button.setText("Start" if run is None else "Resume")
        self._start_from.setEnabled(run is None)
        if run is not None:
            config = _stored(run.path)
            self.form.set_values(config.model_dump())
            self.length.set_values(config.steps, config.minutes)
            self.resuming.emit((run.classes, config.ignore_value))
        self.note_settings()

    def _start(self) -> None:
        try:
            self._annotation.check()
            config = self.config()
        except (ValueError, AffmaeError) as error:
            self.panel.fail(error)
            return
        layers = self._annotation.pairs()
        pairs = [
            (self._annotation.image(image), self._annotation.painted(labels).source)
            for image, labels in layers
        ]
        recount = self._annotation.recount()
        resumed, pretrained = self.run_choice.path(), self._start_from.path()
        folder = load_preferences().runs
        self._run = run = resumed or new_run_path(folder, "finetune", layers[0][0].name)
        self._running = config
        self._trained_on = [layer for pair in layers for layer in pair]
        self.plan.stop()
        if resumed is None:
            self.losses.clear()
            self.scores.clear()
        self.panel.run(
            lambda: _train(pairs, recount, config, run, pretrained, resume=resumed is not None)
        )

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.StepDone():
                self.curves.setVisible(True)
                self.losses.add(event.step, {"training": event.loss})
            case ev.Validated():
                self.losses.add(event.step, {"validation": event.loss})
                self.scores.add(event.step, event.iou)
                self.score.setVisible(True)
                self.score.setText(words.validated(event))
            case ev.CheckpointSaved():
                self._predict()

    def _predict(self) -> None:
        """Predict the view with the newest model, unless that is going on."""
        if self._errand.is_running or self._run is None or self._running is None:
            return
        annotation, run = self._annotation, self._run
        try:
            image = annotation.pairs()[annotation.shown_pair()][0]
            view = shown_part(self._viewer, image)
        except ValueError:
            return  # nothing of the images is in view: there is nothing to predict
        source, device = annotation.image(image), self._running.device
        self._asked = (image, view)
        self._errand.run(lambda: _predict_view(source, view, run, device))

    def _take_prediction(self, event: ev.Event) -> None:
        if not isinstance(event, ev.ViewPredicted) or self._asked is None or not self._running:
            return
        image, view = self._asked
        if image in self._viewer.layers:
            self._layers.show(image, view, event, self._running.classes)
            if view.is_part:
                self.panel.messages.add(PART_ONLY, "info")

    def _fail_prediction(self, error: Exception) -> None:
        self.panel.messages.add(f"The view cannot be predicted: {in_words(error)}", "warning")
        log_unforeseen("Predicting the view", error)

    def _end(self, outcome: Outcome) -> None:
        self.run_choice.refresh()
        self._start_from.refresh()
        self.run_choice.choose(self._run if outcome is not Outcome.FINISHED else None)

    def _lock(self, running: bool) -> None:
        # A run keeps its settings: its curves have their place while it goes on.
        for widget in (self._settings, self.form, self.plan):
            widget.setVisible(not running)

    def _note_removed(self, event: Any) -> None:
        if self.panel.is_running and event.value in self._trained_on:
            self.panel.messages.add(
                f"The layer {event.value.name!r} was deleted; the run goes on with what it held. "
                "Stop it if that is not wanted.",
                "warning",
            )


def _stored(run: Path) -> FinetuneConfig:
    config = read_config(run)
    if not isinstance(config, FinetuneConfig):
        raise CheckpointError(f"{run} is no fine-tuning run; choose one")
    return config


def _train(
    pairs: Sequence[tuple[ImageSource, ImageSource]],
    recount: Callable[[], Counter[int]] | None,
    config: FinetuneConfig,
    run: Path,
    pretrained: Path | None,
    *,
    resume: bool,
) -> Generator[ev.Event, None, None]:
    """Check the strokes and train; in the worker's thread."""
    from napari_affmae.engine import finetune

    if recount is not None:
        check_painted(recount(), config.classes)
    yield from finetune(pairs, config, run, pretrained=pretrained, resume=resume)


def _predict_view(
    source: ImageSource, view: View, run: Path, device: str
) -> Generator[ev.Event, None, None]:
    """Segment what is in view; in a worker's thread."""
    from napari_affmae.data import window
    from napari_affmae.engine import segment, uncertainty

    part = window(source, planes=[view.plane], rows=view.rows, columns=view.columns)
    bands: list[NDArray[np.float32]] = []
    for event in segment(part, run, SegmentConfig(probabilities=True, device=device)):
        if isinstance(event, ev.BandDone) and event.probabilities is not None:
            bands.append(event.probabilities)
        elif isinstance(event, ev.PlaneDone):
            probabilities = np.concatenate(bands, axis=1)
            yield ev.ViewPredicted(event.labels, probabilities, uncertainty(probabilities))
        else:
            yield event
