"""The dock that trains a segmentation network on painted labels."""

from typing import Any

import napari
from napari.layers import Image
from qtpy.QtWidgets import (
    QButtonGroup,
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QRadioButton,
    QWidget,
)

from napari_affmae.engine.registry import list_runs
from napari_affmae.engine.run_names import new_run_path
from napari_affmae.errors import AffmaeError
from napari_affmae.widgets.annotation import Annotation
from napari_affmae.widgets.class_table import ClassTable
from napari_affmae.widgets.commands import (
    class_words,
    command_line,
    layer_words,
    option_words,
)
from napari_affmae.widgets.dock import CommandDialog, Dock, real_viewer
from napari_affmae.widgets.full_panel import FullPanel
from napari_affmae.widgets.pair_table import PairTable
from napari_affmae.widgets.prediction import PredictionLayers
from napari_affmae.widgets.preferences import load_preferences, remember_form
from napari_affmae.widgets.quick_panel import QuickPanel
from napari_affmae.widgets.run_choice import RunChoice
from napari_affmae.widgets.run_panel import RunPanel

_FORM = "finetune"


class FinetuneDock(Dock):
    """Learn from painted labels: quickly while they are painted, or in a full run.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it belongs to.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        napari_viewer = real_viewer(napari_viewer)
        super().__init__(napari_viewer, RunPanel("Fine-tuning", "Start"))
        self.quick_button = QRadioButton("Quick")
        self.quick_button.setToolTip(
            "Learns in seconds, while you paint: a light head on the pretrained network."
        )
        self.full_button = QRadioButton("Full")
        self.full_button.setToolTip("Trains the whole network, for minutes to hours: best results.")
        self.start_from = RunChoice("random weights", {"pretrain", "finetune", "quick", "model"})
        self._choose_newest_pretrained()
        self.pairs = PairTable(napari_viewer)
        self.classes = ClassTable()
        self.annotation = Annotation(napari_viewer, self.pairs, self.classes)
        layers = PredictionLayers(napari_viewer)
        self.quick = QuickPanel(napari_viewer, self.annotation, self.start_from, layers)
        self.full = FullPanel(napari_viewer, self.panel, self.annotation, self.start_from, layers)
        self.command_button = QPushButton("Command line ...")
        self.command_button.clicked.connect(self._show_command)
        self._arrange()
        self._recall()
        self._connect()

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
        self.add(top)
        self.add_section("Images and labels", self.pairs)
        self.add_section("Classes", self.classes)
        self.add(self.quick, self.full, self.command_button)
        self.add_stretch()

    def _connect(self) -> None:
        self.quick_button.toggled.connect(self._show_mode)
        self.annotation.failed.connect(self._tell)
        self.annotation.stroked.connect(self.full.note_settings)
        self.start_from.changed.connect(self.full.note_settings)
        self.full.resuming.connect(self._take_classes)
        self.quick.saved.connect(self.start_from.refresh)
        self.panel.running_changed.connect(self._lock)

    def _recall(self) -> None:
        values = load_preferences().forms.get(_FORM, {})
        self.quick.form.set_values(values.get("quick", {}))
        self.full.set_values(values.get("full", {}))
        full = values.get("mode") == "full"
        self.full_button.setChecked(full)
        self.quick_button.setChecked(not full)
        self._show_mode()

    def _remember(self) -> None:
        mode = "quick" if self.quick_button.isChecked() else "full"
        values = {"quick": self.quick.form.values(), "full": self.full.values(), "mode": mode}
        remember_form(_FORM, values)

    def annotate(self, image: Image) -> None:
        """Make a labels layer for an image, and offer both as a pair."""
        self.pairs.make_labels(image)

    def _choose_newest_pretrained(self) -> None:
        for run in list_runs(load_preferences().runs):
            if run.kind == "pretrain" and run.problem is None:
                self.start_from.choose(run.path)
                return

    def _show_mode(self) -> None:
        quick = self.quick_button.isChecked()
        self.quick.setVisible(quick)
        self.full.setVisible(not quick)
        self.command_button.setVisible(not quick)
        if not quick:
            self.quick.switch_off()

    def _take_classes(self, known: Any) -> None:
        classes, ignore_value = known
        self.classes.set_classes(classes, ignore_value=ignore_value)

    def _lock(self, running: bool) -> None:
        for widget in (self.quick_button, self.full_button, self.pairs, self.start_from):
            widget.setEnabled(not running)
        # Painting goes on while it trains, with the classes that it was started with.
        self.classes.set_fixed(running)
        if running:
            self._remember()

    def _tell(self, error: Exception) -> None:
        quick = self.quick_button.isChecked()
        self.quick.fail(error) if quick else self.panel.fail(error)

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
        words += class_words(config.classes)
        words += option_words(config, without={"in_channels", "classes"})
        options = {}
        resumed, pretrained = self.full.run_choice.path(), self.start_from.path()
        folder = load_preferences().runs
        options["out"] = resumed or new_run_path(folder, "finetune", pairs[0][0].name)
        if resumed:
            words.append("--resume")
        elif pretrained:
            options["pretrained"] = pretrained
        CommandDialog(command_line("finetune", words, options), notes, self).exec()
