"""Fine-tuning of the whole network: its settings, its run, and its predictions of the view."""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import napari
import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import (
    QLabel,
    QSizePolicy,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.config import FinetuneConfig, SegmentConfig
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.engine import events as ev
from napari_affmae.engine import wording
from napari_affmae.errors import AffmaeError
from napari_affmae.widgets.finetune.annotation import Annotation, check_painted
from napari_affmae.widgets.finetune.pair_table import Pair
from napari_affmae.widgets.finetune.prediction import PredictionLayers
from napari_affmae.widgets.layers.view import PART_ONLY, LayerView, shown_part
from napari_affmae.widgets.parts.curves import Curves
from napari_affmae.widgets.parts.error_text import in_words
from napari_affmae.widgets.parts.lifetime import connect_while_alive
from napari_affmae.widgets.running.background_job import BackgroundJob
from napari_affmae.widgets.running.run_choice import RunChoice
from napari_affmae.widgets.running.run_panel import RunPanel
from napari_affmae.widgets.running.training_form import REST, STEPS, TrainingForm

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
    """The settings, the run and the curves of a fine-tuning run.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer whose view is predicted.
    panel : RunPanel
        Runs the training.
    annotation : Annotation
        The pairs, classes and strokes.
    start_from : RunChoice
        The pretrained model.
    layers : PredictionLayers
        The layers that show predictions.
    """

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
        self._running: FinetuneConfig | None = None
        self._asked: tuple[Pair, LayerView] | None = None
        self._trained_on: list[Any] = []
        self.training = TrainingForm(
            panel, FinetuneConfig, kind="finetune", minutes=30, basic=_BASIC, advanced=_ADVANCED
        )
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
        self._job = BackgroundJob(self)
        self._job.happened.connect(self._take_prediction)
        self._job.failed.connect(self._fail_prediction)
        self._arrange()
        self.training.changed.connect(self.note_settings)
        self.training.replaced.connect(self._clear)
        panel.start_requested.connect(self._start)
        panel.happened.connect(self._take)
        panel.ended.connect(start_from.refresh)
        connect_while_alive(self, viewer.layers.events.removed, self._note_removed)

    def _arrange(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.training, self.panel, self.score, self.curves):
            layout.addWidget(widget)

    def config(self) -> FinetuneConfig:
        """Return the entered settings; for a resumed run, those of its record.

        Raises
        ------
        ValueError
            If a setting is not valid, or the classes are not those of the resumed run.
        AffmaeError
            If an image cannot be read.
        """
        annotation, pairs = self._annotation, self._annotation.pairs()
        classes, stored = annotation.classes(), self.training.stored
        if stored is not None and [item.value for item in stored.classes] != [
            item.value for item in classes
        ]:
            raise ValueError(
                "The run that is to be resumed has the classes "
                f"{', '.join(item.name for item in stored.classes)}: keep to them, or choose a "
                "new run."
            )
        return self.training.config(
            in_channels=annotation.image(pairs[0][0]).n_channels if pairs else 1,
            classes=classes,
            ignore_value=annotation.ignore_value,
        )

    def note_settings(self) -> None:
        """Measure the entered settings, if there is something to train on."""
        pretrained, plan = self._start_from.path(), self.training.plan
        self.training.follow_start(self._start_from.run())
        try:
            config = self.config()
        except (ValueError, AffmaeError) as error:
            plan.refuse(in_words(error))
            return
        if not self._annotation.pairs():
            plan.refuse()
            return
        # Names and colours have no effect on time: a change of them is not measured again.
        bare = config.model_copy(update={"classes": (), "ignore_value": None})
        plan.offer(bare, classes=len(config.classes), pretrained=pretrained)

    def _start(self) -> None:
        """Start as soon as the list of models is up to date: a pretraining may have ended."""
        if self._check() is not None:
            self._start_from.refresh()
            self.panel.start_when_listed(self._start_from, self._start_listed)

    def _start_listed(self) -> None:
        self.training.when_ready(self._train)

    def _check(self) -> FinetuneConfig | None:
        """Return the settings if the run can start, else show why it cannot."""
        try:
            self._annotation.check()
            return self.config()
        except (ValueError, AffmaeError) as error:
            self.panel.fail(error)
            return None

    def _train(self) -> None:
        config = self._check()
        if config is None:
            return
        layers = self._annotation.pairs()
        pairs = [
            (self._annotation.image(image), self._annotation.painted(labels).source)
            for image, labels in layers
        ]
        recount = self._annotation.recount()
        pretrained = self._start_from.path()
        self._running = config
        self._trained_on = [layer for pair in layers for layer in pair]
        self.training.start(
            layers[0][0].name,
            lambda run, resume: _train(pairs, recount, config, run, pretrained, resume=resume),
        )
        if pretrained is None and self.training.stored is None and self._start_from.preferred():
            self.panel.messages.add(
                "It starts from random weights. There are networks that have learned from images: "
                "to learn more from the same labels, choose one under 'Start from'.",
                "info",
            )

    def _clear(self) -> None:
        self.losses.clear()
        self.scores.clear()
        self.curves.setVisible(False)
        self.score.setVisible(False)

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.StepDone():
                self.curves.setVisible(True)
                self.losses.add(event.step, {"training": event.loss})
            case ev.Validated():
                self.losses.add(event.step, {"validation": event.loss})
                self.scores.add(event.step, event.iou)
                self.score.setVisible(True)
                self.score.setText(wording.validated(event))
            case ev.CheckpointSaved():
                self._predict()

    def _predict(self) -> None:
        """Predict the view with the newest model, unless a prediction is running."""
        annotation, run = self._annotation, self.training.run
        if self._job.is_running or run is None or self._running is None:
            return
        try:
            pair = annotation.pairs()[annotation.shown_pair()]
            view = shown_part(self._viewer, pair[0])
        except ValueError:
            return  # no image of the pairs is in view
        source, device = annotation.image(pair[0]), self._running.device
        self._asked = (pair, view)
        self._job.run(lambda: _predict_view(source, view, run, device))

    def _take_prediction(self, event: ev.Event) -> None:
        if not isinstance(event, ev.ViewPredicted) or self._asked is None or not self._running:
            return
        pair, view = self._asked
        if pair[0] in self._viewer.layers:
            self._layers.show(pair, view, event, self._running.classes)
            if view.is_part:
                self.panel.messages.add(PART_ONLY, "info")

    def _fail_prediction(self, error: Exception) -> None:
        self.panel.messages.add(f"The view cannot be predicted: {in_words(error)}", "warning")

    def _note_removed(self, event: Any) -> None:
        if self.panel.is_running and event.value in self._trained_on:
            self.panel.messages.add(
                f"The layer {event.value.name!r} was deleted; the run continues with its data. "
                "Stop the run if you do not want that.",
                "warning",
            )


def _train(
    pairs: Sequence[tuple[ImageSource, ImageSource]],
    recount: Callable[[], Counter[int]] | None,
    config: FinetuneConfig,
    run: Path,
    pretrained: Path | None,
    *,
    resume: bool,
) -> Generator[ev.Event, None, None]:
    """Check the strokes, then train; called in the worker's thread."""
    from napari_affmae.engine import finetune

    if recount is not None:
        check_painted(recount(), config.classes)
    yield from finetune(pairs, config, run, pretrained=pretrained, resume=resume)


def _predict_view(
    source: ImageSource, view: LayerView, run: Path, device: str
) -> Generator[ev.Event, None, None]:
    """Segment the view; called in a worker's thread."""
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
