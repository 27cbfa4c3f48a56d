"""The dock that trains a segmentation network on painted labels."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Image
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QRadioButton,
    QWidget,
)

from napari_affmae.config import FinetuneConfig, LabelClass
from napari_affmae.engine.inference.fitting import Subject, probe_words, to_start_from
from napari_affmae.engine.store.registry import RunSummary
from napari_affmae.engine.store.starting_weights import named_start
from napari_affmae.errors import AffmaeError
from napari_affmae.widgets.finetune.annotation import Annotation
from napari_affmae.widgets.finetune.class_table import ClassTable
from napari_affmae.widgets.finetune.copies import Copies
from napari_affmae.widgets.finetune.earlier_work import EarlierWork, Reopened
from napari_affmae.widgets.finetune.full_panel import FullPanel
from napari_affmae.widgets.finetune.pair_table import PairTable
from napari_affmae.widgets.finetune.prediction import PredictionLayers
from napari_affmae.widgets.finetune.quick_panel import QuickPanel
from napari_affmae.widgets.finetune.state_line import StateLine
from napari_affmae.widgets.finetune.stroke_keeper import StrokeKeeper
from napari_affmae.widgets.layers.docks import open_dock
from napari_affmae.widgets.layers.label_layers import Painting
from napari_affmae.widgets.layers.layer_sources import LayerImage
from napari_affmae.widgets.layers.napari_private import real_viewer
from napari_affmae.widgets.parts.command_dialog import (
    CommandDialog,
    channel_words,
    class_words,
    command_line,
    layer_words,
    option_words,
    start_word,
)
from napari_affmae.widgets.parts.error_text import in_words
from napari_affmae.widgets.running.base_dock import Dock
from napari_affmae.widgets.running.ended_runs import ended_runs
from napari_affmae.widgets.running.model_card import ModelCard
from napari_affmae.widgets.running.overlay_bar import OverlayBar
from napari_affmae.widgets.running.run_choice import NOTHING_LEARNED, RunChoice
from napari_affmae.widgets.running.run_panel import Outcome, RunPanel


class FinetuneDock(Dock):
    """Trains on painted labels: quickly while the user paints, or in a full run.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it belongs to.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        napari_viewer = real_viewer(napari_viewer)
        super().__init__(napari_viewer, RunPanel("Fine-tuning", "Start"), "finetune")
        self.quick_button = QRadioButton("Quick")
        self.quick_button.setToolTip(
            "Learns in seconds, while you paint: a light head on the pretrained network."
        )
        self.full_button = QRadioButton("Full")
        self.full_button.setToolTip("Trains the whole network, for minutes to hours: best results.")
        self.pairs = PairTable(napari_viewer)
        self.start_from = RunChoice(
            NOTHING_LEARNED,
            {"weights", "pretrain", "finetune", "quick", "model"},
            preferred=lambda runs: to_start_from(runs, self._subject()),
        )
        self.card = ModelCard()
        self.classes = ClassTable()
        self.annotation = Annotation(napari_viewer, self.pairs, self.classes)
        self.keeper = StrokeKeeper(self.annotation, self.start_from)
        self.earlier = EarlierWork(napari_viewer)
        self.state = StateLine(self.annotation)
        layers = PredictionLayers(napari_viewer)
        self.quick = QuickPanel(napari_viewer, self.annotation, self.start_from, layers)
        self.full = FullPanel(napari_viewer, self.panel, self.annotation, self.start_from, layers)
        self.overlays = OverlayBar(napari_viewer)
        self.uncertainty = QCheckBox("Show where it is uncertain, instead of the classes")
        self.uncertainty.setToolTip("Bright where the next strokes help most.")
        self.uncertainty.setChecked(layers.shows_uncertainty)
        self.uncertainty.toggled.connect(layers.show_uncertainty)
        self.copies = Copies(napari_viewer, self.annotation, layers)
        self.segment_button = QPushButton("Segment the whole stack with it")
        self.segment_button.setToolTip(
            "Opens the dock that segments, with this image and the model that was just made, and "
            "starts."
        )
        self.segment_button.clicked.connect(self._segment)
        self.segment_button.setVisible(False)
        self._made: Path | None = None
        self.command_button = QPushButton("Command line ...")
        self.command_button.clicked.connect(
            lambda: self.full.training.when_ready(self._show_command)
        )
        self._arrange()
        self._recall()
        self._connect()
        self.full.note_settings()
        self._show_start()

    def _arrange(self) -> None:
        modes = QWidget()
        row = QHBoxLayout(modes)
        row.setContentsMargins(0, 0, 0, 0)
        self._modes = QButtonGroup(self)
        for button in (self.quick_button, self.full_button):
            self._modes.addButton(button)
            row.addWidget(button)
        row.addStretch(1)
        top = QWidget()
        rows = QFormLayout(top)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addRow("Training", modes)
        rows.addRow("Start from", self.start_from)
        self.add(self.state, top, self.card)
        self.add_section("Images and labels", self.earlier, self.pairs)
        self.add_section("Classes", self.classes)
        self.add(self.quick, self.full, self.overlays, self.uncertainty, self.copies)
        self.add(self.quick.quality, self.segment_button, self.command_button)
        self.add_stretch()

    def _connect(self) -> None:
        self.quick_button.toggled.connect(self._show_mode)
        self.annotation.failed.connect(self._show_error)
        self.annotation.noticed.connect(self._show_note)
        self.pairs.refused.connect(self._show_error)
        self.pairs.changed.connect(self._forget_refusal)
        self.annotation.stroked.connect(self._forget_refusal)
        self.copies.failed.connect(self._show_error)
        self.keeper.failed.connect(self._show_not_kept)
        self.earlier.failed.connect(self._show_error)
        self.earlier.reopened.connect(self._take_reopened)
        self.annotation.stroked.connect(self.full.note_settings)
        self.start_from.changed.connect(self.full.note_settings)
        self.full.training.resuming.connect(self._take_classes)
        self.full.training.changed.connect(self._enable_start_from)
        self.start_from.changed.connect(self._show_start)
        self.pairs.changed.connect(self._show_start)
        self.quick.saved.connect(self._take_model)
        self.quick.predicted.connect(self.state.note_learned)
        self.panel.ended.connect(self._take_full_model)
        self.panel.running_changed.connect(self._lock)
        ended_runs().happened.connect(self._look_for_better)

    def _recall(self) -> None:
        values = self.remembered()
        self.quick.form.recall(values.get("quick", {}))
        self.full.training.form.recall(values.get("full", {}))
        self.quick_button.setChecked(True)
        self._show_mode()

    def entered(self) -> dict[str, Any]:
        """Return the settings to be remembered."""
        return {
            "quick": self.quick.form.lasting(),
            "full": self.full.training.form.lasting(),
        }

    def annotate(self, image: Image) -> None:
        """Make a labels layer for an image, and make both a pair."""
        self.pairs.make_labels(image)

    def take_accepted(
        self, image: Image, paintings: Sequence[Painting], classes: Sequence[LabelClass]
    ) -> None:
        """Copy objects that were accepted in a segmentation, to be learned from on demand.

        Parameters
        ----------
        image : napari.layers.Image
            The image that was segmented.
        paintings : sequence of Painting
            The objects.
        classes : sequence of LabelClass
            What their values mean; those of the same names here are given.
        """
        labels = next((one for known, one in self.pairs.pairs() if known is image), None)
        if labels is None:
            self.annotate(image)
            labels = next(one for known, one in self.pairs.pairs() if known is image)
        if not self.annotation.counts():
            self.classes.set_classes(classes, ignore_value=0)
        here = {item.name: item.value for item in self.annotation.classes()}
        values = {item.value: here.get(item.name, 0) for item in classes}
        table = np.array([values.get(value, 0) for value in range(max(values) + 1)])
        self.copies.take(labels, [replace(one, values=table[one.values]) for one in paintings])

    def showEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Refresh the list of models."""
        super().showEvent(event)
        self.earlier.refresh()
        # A training that is running must not change the model that it started from.
        if not self.panel.is_running and not self.quick.predict_button.isChecked():
            self.start_from.refresh()

    def _subject(self) -> Subject | None:
        """Describe the image of the first pair."""
        images = [image for image, _ in self.pairs.pairs()]
        if not images:
            return None
        with suppress(ValueError):  # half typed channels, of which the trainings complain
            return Subject.of(LayerImage(images[0], self.pairs.channels_of(images[0])))
        return None

    def _show_start(self) -> None:
        """Describe what is started from, and choose again if the image is another one."""
        if not self.panel.is_running and not self.quick.predict_button.isChecked():
            self.start_from.prefer_again()
        self.card.show_run(self.start_from.run(), self._subject())

    def _look_for_better(self) -> None:
        """Go on from a pretraining that has ended, in another dock, if labels say it is better.

        What the user has chosen stays chosen.
        """
        if not self.panel.is_running:
            before = self.start_from.run()
            self.start_from.refresh()
            self.start_from.when_listed(lambda: self._tell_better(before))

    def _tell_better(self, before: RunSummary | None) -> None:
        run = self.start_from.run()
        if run is not None and run.probe is not None and run != before:
            former = NOTHING_LEARNED if before is None else before.name
            self._show_note(
                f"It starts from {run.name!r} from now on: {probe_words(run)}. To go back, choose "
                f"{former!r} under 'Start from'."
            )

    def _take_model(self, model: Path) -> None:
        """Offer to segment with a model that was just made."""
        self.start_from.refresh()
        self._made = model
        self.state.note_saved()
        self.keeper.note_model(model)
        self.segment_button.setVisible(True)

    def _take_full_model(self, outcome: Outcome) -> None:
        run = self.full.training.run
        if outcome is Outcome.FINISHED and run is not None:
            self._take_model(run)

    def _segment(self) -> None:
        """Segment the image that the user looks at with the model that was just made."""
        try:
            image, _ = self.annotation.pairs()[self.annotation.shown_pair()]
        except ValueError as error:
            self._show_error(error)
            return
        if self._made is not None:
            self.quick.switch_off()  # segmenting needs the machine
            open_dock(self.viewer, "3. Segment").segment_all(image, self._made)

    def _show_mode(self) -> None:
        quick = self.quick_button.isChecked()
        self.quick.setVisible(quick)
        self.quick.quality.setVisible(quick)
        self.full.setVisible(not quick)
        self.command_button.setVisible(not quick)
        if not quick:
            self.quick.switch_off()
        self._enable_start_from()

    def _enable_start_from(self) -> None:
        """Disable the choice of a model to start from for a resumed run, which has its own."""
        resumes = self.full_button.isChecked() and self.full.training.stored is not None
        self.start_from.setEnabled(not self.panel.is_running and not resumes)

    def _take_classes(self, config: FinetuneConfig) -> None:
        self.classes.set_classes(config.classes, ignore_value=config.ignore_value)

    def _lock(self, running: bool) -> None:
        for widget in (self.quick_button, self.full_button, self.pairs):
            widget.setEnabled(not running)
        self._enable_start_from()
        # The user may paint while it trains, with the classes that it was started with.
        self.classes.set_fixed(running)

    def _show_error(self, error: Exception) -> None:
        quick = self.quick_button.isChecked()
        self.quick.fail(error) if quick else self.panel.fail(error)

    def _show_note(self, text: str, level: str = "info") -> None:
        quick = self.quick_button.isChecked()
        (self.quick.messages if quick else self.panel.messages).add(text, level)

    def _forget_refusal(self) -> None:
        """Take back what was complained of before the last change, but not what is still so."""
        self.panel.forget_refusal()
        self.quick.forget_refusal()
        self.annotation.complain()

    def _show_not_kept(self, error: Exception) -> None:
        self._show_note(f"The strokes cannot be kept on disk: {in_words(error)}", "warning")

    def _take_reopened(self, reopened: Reopened) -> None:
        """Go on with what was painted earlier."""
        project = reopened.kept.project
        self.pairs.set_pair(reopened.image, reopened.labels)
        self.classes.set_classes(project.classes, ignore_value=project.ignore_value)
        if project.start_from is not None:
            self.start_from.choose(named_start(project.start_from))
        if reopened.model is not None:
            self._take_model(reopened.model)

    def _show_command(self) -> None:
        try:
            self.annotation.check()
            config = self.full.config()
        except (ValueError, AffmaeError) as error:
            self.panel.fail(error)
            return
        pairs = self.annotation.pairs()
        words, notes = layer_words(pairs[0])
        if len(pairs) > 1:
            notes.append(
                "For several pairs, put the images into one folder and the labels, under the "
                "same names, into another, and give these folders."
            )
        words += channel_words(self.pairs.channels_of(pairs[0][0]))
        words += class_words(config.classes)
        training, pretrained = self.full.training, self.start_from.path()
        words += option_words(config, training.stored, without={"in_channels", "classes"})

        def show(run: Path, resume: bool) -> None:
            line = [*words, "--resume"] if resume else words
            options = {"out": str(run)}
            if not resume:
                options["pretrained"] = start_word(pretrained)
            CommandDialog(command_line("finetune", line, options), notes, self).exec()

        training.find_target(pairs[0][0].name, show)
