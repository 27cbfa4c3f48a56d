"""Training while painting: each stroke updates the prediction of the view."""

from pathlib import Path

import napari
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.config import LabelClass, QuickConfig
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.engine import events as ev
from napari_affmae.engine import wording
from napari_affmae.engine.store.run_names import new_run_path
from napari_affmae.errors import TooFewClassesError
from napari_affmae.widgets.finetune.ahead import Ahead
from napari_affmae.widgets.finetune.annotation import COMPLETE, Annotation
from napari_affmae.widgets.finetune.pair_table import Pair
from napari_affmae.widgets.finetune.prediction import PredictionLayers
from napari_affmae.widgets.finetune.quality_light import QualityLight
from napari_affmae.widgets.finetune.quick_session import (
    QuickRequest,
    QuickSession,
    QuickSetup,
    Saved,
)
from napari_affmae.widgets.finetune.uncertain_button import UncertainButton
from napari_affmae.widgets.finetune.warming_up import WarmingUp
from napari_affmae.widgets.layers.view import PART_ONLY, LayerView, camera_of, shown_part
from napari_affmae.widgets.parts.error_text import in_words
from napari_affmae.widgets.parts.forms import SettingsForm
from napari_affmae.widgets.parts.lifetime import connect_while_alive
from napari_affmae.widgets.parts.messages import Messages
from napari_affmae.widgets.parts.preferences import load_preferences
from napari_affmae.widgets.parts.primary_button import PrimaryButton
from napari_affmae.widgets.running.background_job import BackgroundJob
from napari_affmae.widgets.running.run_choice import RunChoice

_SETTLE_MILLISECONDS = 400
_ADVANCED = ("steps", "hidden", "learning_rate", "smoothness", "seed", "device", "precision")


class QuickPanel(QWidget):
    """The controls of the training that runs while the user paints.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer whose view is predicted.
    annotation : Annotation
        The pairs, classes and strokes.
    start_from : RunChoice
        The pretrained model.
    layers : PredictionLayers
        The layers that show predictions.
    """

    saved = Signal(object)
    """A model was saved: its path."""
    predicted = Signal()
    """A new prediction is shown."""

    def __init__(
        self,
        viewer: "napari.viewer.Viewer",
        annotation: Annotation,
        start_from: RunChoice,
        layers: PredictionLayers,
    ) -> None:
        super().__init__()
        self._viewer, self._annotation = viewer, annotation
        self._start_from, self._layers = start_from, layers
        self._session = QuickSession()
        self._asked: tuple[Pair, LayerView, tuple[LabelClass, ...]] | None = None
        self._again = False
        self._source: ImageSource | None = None
        self._has_predicted = False
        self.ahead = Ahead(self._session, self)
        self.ahead.failed.connect(self._tell_not_ahead)
        self.predict_button = PrimaryButton("Predict while painting")
        self.predict_button.setCheckable(True)
        self.predict_button.setToolTip(
            "Learns from all strokes and predicts what is in view, a moment after each stroke "
            "and after the view was moved."
        )
        self.predict_button.toggled.connect(self._switch)
        self.save_button = QPushButton("Save model")
        self.save_button.setToolTip("Keeps what was learned, for the dock that segments.")
        self.save_button.setEnabled(False)
        self.save_button.clicked.connect(self._save)
        self.quality = QualityLight(self._session)
        self.predicted.connect(self.quality.judge_soon)
        self.uncertain_button = UncertainButton(viewer, annotation, self._session)
        self.uncertain_button.setEnabled(False)
        self.uncertain_button.failed.connect(self.fail)
        self.uncertain_button.clicked.connect(self.quality.make_way)
        self.form = SettingsForm(QuickConfig, basic=(), advanced=_ADVANCED)
        self.form.changed.connect(self.schedule)
        self.bar = QProgressBar()
        self.status = QLabel("Paint some strokes of each class.")
        self.status.setWordWrap(True)
        self.messages = Messages()
        self._job, self._saving = BackgroundJob(self), BackgroundJob(self)
        self._warming = WarmingUp(annotation, self)
        self._job.happened.connect(self._take)
        self._job.failed.connect(self.fail)
        self._job.ended.connect(self._end)
        self._saving.happened.connect(self._take)
        self._saving.failed.connect(self.fail)
        self._saving.ended.connect(self.quality.judge_soon)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MILLISECONDS)
        self._timer.timeout.connect(self._update)
        annotation.stroked.connect(self.quality.note_strokes)
        annotation.stroked.connect(self.schedule)
        annotation.renamed.connect(self._rename)
        annotation.looked.connect(self._note_looked)
        start_from.changed.connect(self.schedule)
        self._arrange()
        self._connect_view()

    def showEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Load what is needed soon."""
        super().showEvent(event)
        self._warming.begin()

    def _arrange(self) -> None:
        row = QHBoxLayout()
        row.addWidget(self.predict_button)
        row.addWidget(self.save_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        policy = self.bar.sizePolicy()
        policy.setRetainSizeWhenHidden(True)  # otherwise the dock would jump at each stroke
        self.bar.setSizePolicy(policy)
        self.bar.setVisible(False)
        for widget in (self.bar, self.status, self.messages, self.uncertain_button, self.form):
            layout.addWidget(widget)

    def _connect_view(self) -> None:
        camera, dims = camera_of(self._viewer).events, self._viewer.dims.events
        moves = (camera.zoom, camera.center, dims.current_step, dims.order, dims.ndisplay)
        for event in moves:
            connect_while_alive(self, event, self._note_moved)

    @property
    def is_busy(self) -> bool:
        """Whether an update is due or running."""
        return self._job.is_running or self._timer.isActive()

    def switch_off(self) -> None:
        """Stop predicting: something else needs the machine."""
        self.predict_button.setChecked(False)

    def schedule(self) -> None:
        """Update a moment after the last change, if predicting is on."""
        if self.predict_button.isChecked():
            self.quality.make_way()
            self._timer.start()

    def _switch(self, on: bool) -> None:
        self.messages.clear()
        if on:
            self._start_from.refresh()  # a pretraining may have ended since the list was read
            self._update()
        else:
            self._timer.stop()
            self._job.stop()
            self.quality.make_way()
            self.ahead.stop()
            self.bar.setVisible(False)
            self.status.setText("")

    def _note_moved(self) -> None:
        # The prediction that is being made is of a view that the user has left.
        if self.predict_button.isChecked():
            self._job.stop()
            self.schedule()
            self._show_ahead()

    def _show_ahead(self) -> None:
        """Show at once what was predicted ahead; what is learned since comes after it."""
        if self._asked is None or self._asked[0][0] not in self._viewer.layers:
            return
        pair, _, classes = self._asked
        try:
            view = shown_part(self._viewer, pair[0])
        except ValueError:  # the viewer shows the volume, or nothing of the image
            return
        found = self.ahead.find(pair, view, classes)
        if found is not None:
            self._asked = (pair, view, classes)
            self._show(found)

    def _note_looked(self) -> None:
        try:
            image = self._annotation.pairs()[self._annotation.shown_pair()][0]
        except ValueError:
            image = None
        if self._asked is None or image is not self._asked[0][0]:
            self._note_moved()

    def _update(self) -> None:
        if self._job.is_running:
            # Stopping it at each stroke would keep a quick painter from ever seeing a result.
            self._again = True
            return
        self._again = False
        self.messages.clear()
        try:
            setup, request, pair = self._gather()
        except ValueError as error:
            self._show_waiting(str(error))
            return
        if not request.strokes:
            self._show_waiting("Nothing is painted yet: paint some strokes of each class.")
            self._annotation.look_again()
            return
        self.quality.make_way()
        self._asked = (pair, request.view, setup.classes)
        self._source, self._has_predicted = setup.images[request.pair], False
        self.ahead.stop()
        self.bar.setRange(0, 0)
        self.bar.setVisible(True)
        self._job.run(lambda: self._session.update(setup, request))

    def _show_waiting(self, what: str) -> None:
        self.bar.setVisible(False)
        self.status.setText(what)

    def _gather(self) -> tuple[QuickSetup, QuickRequest, Pair]:
        """Return what to learn and what to predict now."""
        annotation = self._annotation
        annotation.check()
        pairs = annotation.pairs()
        number = annotation.shown_pair()
        setup = QuickSetup(
            self._start_from.path(),
            tuple(annotation.image(image) for image, _ in pairs),
            tuple(annotation.painted(labels).source for _, labels in pairs),
            annotation.classes(),
            annotation.ignore_value,
            self.form.build(),
        )
        view = shown_part(self._viewer, pairs[number][0])
        return setup, QuickRequest(annotation.strokes(), number, view), pairs[number]

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.RunStarted():
                self.status.setText(wording.started(event))
            case ev.Notice():
                self.messages.add(event.message, event.level)
            case ev.TileDone():
                self._show_progress(event.done, event.total, "looking at the image ...")
            case ev.StepDone():
                self._show_progress(event.step, event.total_steps, "learning ...")
            case ev.ViewPredicted():
                self._has_predicted = True
                self._show(event)
            case Saved():
                self.status.setText(f"Saved as {event.path.name!r}.")
                self.saved.emit(event.path)

    def _show_progress(self, done: int, total: int | None, text: str) -> None:
        self.bar.setRange(0, total or 0)
        self.bar.setValue(done)
        self.status.setText(text)

    def _show(self, event: ev.ViewPredicted) -> None:
        if not self.save_button.isEnabled():
            self.save_button.setEnabled(True)
            self.uncertain_button.setEnabled(True)
        if self._asked is None:
            return
        pair, view, classes = self._asked
        if pair[0] not in self._viewer.layers:
            return  # the layer was deleted meanwhile
        self._layers.show(pair, view, event, classes)
        self.status.setText(PART_ONLY if view.is_part else "Paint where it is wrong or uncertain.")
        self.predicted.emit()

    def forget_refusal(self) -> None:
        """Take back why nothing is predicted: something has changed since."""
        if not self._job.is_running:
            self.messages.remove("error")

    def fail(self, error: Exception) -> None:
        """Show an error; too few strokes are no error, but a state that is shown."""
        if isinstance(error, TooFewClassesError):
            hint = "" if self._annotation.ignore_value is None else f". {COMPLETE}"
            self._show_waiting(f"{in_words(error)}{hint}")
            self._annotation.look_again()
            return
        self.status.setText("")
        self.messages.add(in_words(error), "error")

    def _end(self) -> None:
        self.bar.setVisible(False)
        if self._again:
            self._update()
        elif self._has_predicted and self._source is not None and self._asked is not None:
            pair, view, classes = self._asked
            if pair[0] in self._viewer.layers:
                self.ahead.begin(self._source, pair, view, classes)

    def _tell_not_ahead(self, error: Exception) -> None:
        self.messages.add(f"Planes beside this one are not predicted: {in_words(error)}", "warning")

    def _rename(self) -> None:
        """Show other names and colours, which do not change what was learned."""
        if self._asked is not None:
            pair, view, _ = self._asked
            self._asked = (pair, view, self._annotation.classes())
        self._layers.rename(self._annotation.classes())

    def _save(self) -> None:
        name = self._asked[0][0].name if self._asked else ""
        session, classes = self._session, self._annotation.classes()
        self.quality.make_way()
        self._saving.run(lambda: session.save(_new_path(name), classes))


def _new_path(name: str) -> Path:
    """Choose a file for a model; in a worker's thread."""
    return new_run_path(load_preferences().runs, "quick", name, suffix=".safetensors")
