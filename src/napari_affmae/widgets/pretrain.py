"""The dock that pretrains a network on unlabelled images."""

from collections.abc import Generator
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_affmae.config import PretrainConfig
from napari_affmae.engine import events as ev
from napari_affmae.engine.run_folder import read_config
from napari_affmae.engine.run_names import new_run_path
from napari_affmae.errors import AffmaeError
from napari_affmae.widgets.commands import command_line, layer_words, option_words
from napari_affmae.widgets.curves import Curves
from napari_affmae.widgets.dock import CommandDialog, Dock, real_viewer
from napari_affmae.widgets.forms import SettingsForm
from napari_affmae.widgets.layer_sources import OWN
from napari_affmae.widgets.length import LengthEdit
from napari_affmae.widgets.plan_line import PlanLine
from napari_affmae.widgets.preferences import load_preferences, remember_form
from napari_affmae.widgets.preview import PreviewGrid
from napari_affmae.widgets.run_choice import RunChoice
from napari_affmae.widgets.run_panel import Outcome, RunPanel
from napari_affmae.widgets.selection import Selection, Summed
from napari_affmae.widgets.source_list import SourceList
from napari_affmae.widgets.tokens_button import TokensButton
from napari_affmae.widgets.training_fields import FREE, REST, STEPS

_FORM = "pretrain"
_BASIC = ("preset", "crop", "mask_ratio", "batch", "device")
_ADVANCED = ("mask", "learning_rate", *STEPS, "validation_steps", "preview_steps", *REST)


class PretrainDock(Dock):
    """Learn from all images, without labels.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it belongs to.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        napari_viewer = real_viewer(napari_viewer)
        super().__init__(napari_viewer, RunPanel("Pretraining", "Start"))
        self.sources = SourceList(napari_viewer)
        self.sources.summed.connect(self._take_summary)
        self.sources.changed.connect(self._forget_channels)
        self._channels: int | None = None
        self.run_choice = RunChoice("a new run", {"pretrain"}, resumable=True)
        self.run_choice.changed.connect(self._show_run)
        self.length = LengthEdit(60, "minutes")
        self.form = SettingsForm(
            PretrainConfig,
            basic=_BASIC,
            advanced=_ADVANCED,
            above=[("Run", self.run_choice), ("Length", self.length)],
        )
        self.form.changed.connect(self._note_settings)
        self.length.changed.connect(self._note_settings)
        self.plan = PlanLine()
        self.curves = Curves("loss", logarithmic=True)
        self.curves.setVisible(False)
        self.preview = PreviewGrid()
        self.layers_button = QPushButton("Crops as layers")
        self.layers_button.setToolTip("Adds the pictures above to the viewer, as image layers.")
        self.layers_button.clicked.connect(self._add_preview_layers)
        self.tokens_button = TokensButton(napari_viewer, self._latest_run)
        self.command_button = QPushButton("Command line ...")
        self.command_button.clicked.connect(self._show_command)
        self._run: Path | None = None
        self._arrange()
        self.panel.start_requested.connect(self._start)
        self.panel.happened.connect(self._take)
        self.panel.ended.connect(self._end)
        self.panel.running_changed.connect(self._lock)
        self._recall()

    def _arrange(self) -> None:
        self.add_section("Images", self.sources)
        heading = self.add_section("Settings", self.form, self.plan)
        self._settings = (heading, self.form, self.plan)
        self.add(self.panel, self.curves, self.preview)
        below = QWidget()
        row = QHBoxLayout(below)
        row.setContentsMargins(0, 0, 0, 0)
        for button in (self.layers_button, self.tokens_button, self.command_button):
            row.addWidget(button)
        self.add(below)
        self.layers_button.setVisible(False)
        self.add_stretch()

    def config(self) -> PretrainConfig:
        """Return the settings that are entered.

        Raises
        ------
        ValueError
            If they do not fit.
        """
        return self.form.build(in_channels=self._channels or 1, **self.length.values())

    def _recall(self) -> None:
        values = load_preferences().forms.get(_FORM, {})
        self.form.set_values(values)
        self.length.set_values(values.get("steps"), values.get("minutes"))
        self._note_settings()

    def _note_settings(self) -> None:
        try:
            config = self.config()
        except ValueError as error:
            self.plan.refuse(str(error))
            return
        self.sources.set_crop(config.crop)
        self.plan.offer(config)

    def _take_summary(self, summed: Summed) -> None:
        self._channels = summed.channels
        if summed.channels is None:
            self.sources.messages.add(
                "The images have different numbers of channels; choose channels above, "
                "or leave some images out.",
                "error",
            )
        self._note_settings()

    def _forget_channels(self) -> None:
        self._channels = None

    def _show_run(self) -> None:
        """Show the settings of the run that is to go on, of which few can be changed."""
        run = self.run_choice.run()
        self.form.set_enabled(None if run is None else FREE)
        self.panel.start_button.setText("Start" if run is None else "Resume")
        if run is None:
            return
        config = read_config(run.path)
        self.form.set_values(config.model_dump())
        self.length.set_values(config.steps, config.minutes)

    def _start(self) -> None:
        try:
            chosen = self.sources.selection()
            config = self.config()
        except (ValueError, AffmaeError) as error:
            self.panel.fail(error)
            return
        if not chosen:
            self.panel.fail(
                ValueError("No image is chosen: check an image layer, or add files or a folder.")
            )
            return
        resumed = self.run_choice.path()
        folder = load_preferences().runs
        self._run = run = resumed or new_run_path(folder, "pretrain", config.preset)
        self.plan.stop()
        self.curves.clear()
        remember_form(_FORM, {**self.form.values(), **self.length.values()})
        self.panel.run(lambda: _run(chosen, config, run, resume=resumed is not None))

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.StepDone():
                self.curves.setVisible(True)
                self.curves.add(event.step, {"training": event.loss})
            case ev.Validated():
                self.curves.add(event.step, {"validation": event.loss})
            case ev.PreviewReady():
                self.preview.show_images(event.images)
                self.layers_button.setVisible(True)

    def _end(self, outcome: Outcome) -> None:
        self.run_choice.refresh()
        self.run_choice.choose(self._run if outcome is not Outcome.FINISHED else None)

    def _lock(self, running: bool) -> None:
        self.sources.setEnabled(not running)
        # A run keeps its settings: its curves and pictures have their place while it goes on.
        for widget in self._settings:
            widget.setVisible(not running)

    def _latest_run(self) -> Path | None:
        return self._run or self.run_choice.path()

    def _add_preview_layers(self) -> None:
        for name, stack in self.preview.images.items():
            contrast = np.percentile(self.preview.images["input"], (0.5, 99.5))
            self.viewer.add_image(
                stack,
                name=f"crops: {name}",
                colormap="magma" if name == "error" else "gray",
                contrast_limits=None if name == "error" else contrast,
                metadata=OWN,
            )

    def _show_command(self) -> None:
        try:
            config = self.config()
        except ValueError as error:
            self.panel.fail(error)
            return
        words, notes = layer_words(self.sources.layers())
        words += [str(path) for path in self.sources.paths()]
        words += option_words(config, without={"in_channels"})
        resumed = self.run_choice.path()
        run = resumed or new_run_path(load_preferences().runs, "pretrain", config.preset)
        if resumed:
            words.append("--resume")
        CommandDialog(command_line("pretrain", words, {"out": run}), notes, self).exec()


def _run(
    chosen: Selection, config: PretrainConfig, run: Path, *, resume: bool
) -> Generator[ev.Event, None, None]:
    """Open the images and pretrain; in the worker's thread."""
    from napari_affmae.engine import pretrain

    sources = yield from chosen.open()
    channels = sources[0].n_channels
    config = config.model_copy(update={"in_channels": channels})
    yield from pretrain(sources, config, run, resume=resume)
