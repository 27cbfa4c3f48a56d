"""The dock that pretrains a network on unlabelled images."""

from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import napari
from napari.layers import Image
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QPushButton, QWidget

from napari_affmae.config import PretrainConfig
from napari_affmae.engine import events as ev
from napari_affmae.engine.inference.fitting import Subject, to_start_from
from napari_affmae.errors import AffmaeError
from napari_affmae.widgets.layers.layer_sources import is_own
from napari_affmae.widgets.layers.napari_private import real_viewer
from napari_affmae.widgets.layers.own_layers import OwnLayers
from napari_affmae.widgets.parts.command_dialog import (
    CommandDialog,
    channel_words,
    command_line,
    layer_words,
    option_words,
    start_word,
)
from napari_affmae.widgets.parts.curves import Curves
from napari_affmae.widgets.pretrain.gauge import Gauge
from napari_affmae.widgets.pretrain.judging import JUDGE_TIP, JudgeChoice, Judging
from napari_affmae.widgets.pretrain.preview import PreviewGrid
from napari_affmae.widgets.pretrain.selection import Selection, Summary
from napari_affmae.widgets.pretrain.source_list import SourceList
from napari_affmae.widgets.pretrain.tokens_button import TokensButton
from napari_affmae.widgets.running.base_dock import Dock
from napari_affmae.widgets.running.model_card import ModelCard
from napari_affmae.widgets.running.run_choice import NOTHING_LEARNED, RunChoice
from napari_affmae.widgets.running.run_panel import RunPanel
from napari_affmae.widgets.running.training_form import REST, STEPS, TrainingForm

_BASIC = ("preset", "crop", "mask_ratio", "batch", "device")
_ADVANCED = ("mask", "learning_rate", *STEPS, "validation_steps", *REST)


class PretrainDock(Dock):
    """Pretrains a network on images without labels.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it belongs to.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        napari_viewer = real_viewer(napari_viewer)
        super().__init__(napari_viewer, RunPanel("Pretraining", "Start"), "pretrain")
        self.sources = SourceList(napari_viewer)
        self.sources.summarized.connect(self._take_summary)
        self.sources.changed.connect(self._forget_channels)
        self._channels: int | None = None
        self.start_from = RunChoice(
            NOTHING_LEARNED,
            {"weights", "pretrain", "model"},
            segmenting=False,
            preferred=lambda runs: to_start_from(runs, self._subject()),
        )
        self.judge = JudgeChoice(napari_viewer, self.sources.layers)
        self.sources.changed.connect(self.judge.refresh)
        self.card = ModelCard()
        self.training = TrainingForm(
            self.panel,
            PretrainConfig,
            kind="pretrain",
            minutes=60,
            basic=_BASIC,
            advanced=_ADVANCED,
        )
        self.training.changed.connect(self._note_settings)
        self.curves = Curves("loss", logarithmic=True, names=("training", "validation"))
        self.gauge = Gauge()
        for widget in (self.curves, self.gauge):
            widget.setVisible(False)
        self.training.replaced.connect(self._clear)
        self.preview = PreviewGrid()
        self._crops = OwnLayers(napari_viewer)
        self.layers_button = QPushButton("Crops as layers")
        self.layers_button.setToolTip("Adds the pictures above to the viewer, as image layers.")
        self.layers_button.clicked.connect(self._add_preview_layers)
        self.tokens_button = TokensButton(napari_viewer, self._latest_run)
        self.tokens_button.failed.connect(self.panel.fail)
        self.sources.changed.connect(self.panel.forget_refusal)
        self.training.changed.connect(self.panel.forget_refusal)
        self.command_button = QPushButton("Command line ...")
        self.command_button.clicked.connect(lambda: self.training.when_ready(self._show_command))
        self._arrange()
        self.panel.start_requested.connect(
            lambda: self.panel.start_when_listed(self.training.run_choice, self._start_listed)
        )
        self.start_from.changed.connect(self._note_settings)
        self.panel.ended.connect(self.start_from.refresh)
        self.panel.happened.connect(self._take)
        self.panel.running_changed.connect(self._lock)
        self.training.form.recall(self.remembered())
        self._note_settings()

    def _arrange(self) -> None:
        self.add_section("Images", self.sources)
        self._start_row = QWidget()
        rows = QFormLayout(self._start_row)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addRow("Start from", self.start_from)
        judge = QLabel("Judge by")
        judge.setToolTip(JUDGE_TIP)
        rows.addRow(judge, self.judge)
        self._heading = self.add_section("Settings", self._start_row, self.card, self.training)
        self.add(self.panel, self.curves, self.gauge, self.preview)
        below = QWidget()
        row = QHBoxLayout(below)
        row.setContentsMargins(0, 0, 0, 0)
        for button in (self.layers_button, self.tokens_button, self.command_button):
            row.addWidget(button)
        self.add(below)
        self.layers_button.setVisible(False)
        self.add_stretch()

    def config(self) -> PretrainConfig:
        """Return the entered settings.

        Raises
        ------
        ValueError
            If a setting is not valid.
        """
        return self.training.config(in_channels=self._channels or 1)

    def entered(self) -> dict[str, Any]:
        """Return the settings to be remembered."""
        return self.training.form.lasting()

    def _note_settings(self) -> None:
        try:
            config = self.config()
        except ValueError as error:
            self.training.plan.refuse(str(error))
            return
        self.sources.set_crop(config.crop)
        self._show_start()
        if self._channels is None:
            self.training.plan.refuse()  # no images, or images of different channels
        else:
            self.training.plan.offer(config, pretrained=self.start_from.path())

    def _subject(self) -> Subject:
        """Describe the first of the images; until they are opened, as grey."""
        with suppress(ValueError):  # half typed channels, of which the start complains
            return Subject(self.sources.selection().label(), self._channels or 1, None)
        return Subject("", self._channels or 1, None)

    def _show_start(self) -> None:
        """Describe what a new run starts from; a resumed one goes on from its own."""
        is_new = self.training.stored is None
        self.start_from.setEnabled(is_new)
        self.training.follow_start(self.start_from.run())
        self.card.show_run(self.start_from.run() if is_new else None)

    def _take_summary(self, summarized: Summary) -> None:
        self._channels = summarized.channels
        if summarized.channels is None:
            self.sources.messages.add(
                "The images have different numbers of channels; choose channels above, "
                "or leave some images out.",
                "error",
            )
        self.start_from.prefer_again()
        self._note_settings()

    def _forget_channels(self) -> None:
        self._channels = None
        if not self.sources.layers() and not self.sources.paths():
            self._note_settings()

    def _start_listed(self) -> None:
        self.start_from.when_listed(lambda: self.training.when_ready(self._train))

    def _train(self) -> None:
        try:
            chosen = self.sources.selection()
            config = self.config()
            judging = self.judge.judging(chosen.channels)
        except (ValueError, AffmaeError) as error:
            self.panel.fail(error)
            return
        if not chosen:
            self.panel.fail(
                ValueError("No image is chosen: check an image layer, or add files or a folder.")
            )
            return
        start = self.start_from.path()
        self.training.start(
            chosen.label(),
            lambda run, resume: _run(chosen, judging, config, run, start, resume=resume),
        )

    def _clear(self) -> None:
        self.curves.clear()
        self.gauge.clear()
        for widget in (self.curves, self.gauge, self.preview, self.layers_button):
            widget.setVisible(False)

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.StepDone():
                self.curves.setVisible(True)
                self.curves.add(event.step, {"training": event.loss})
            case ev.Validated():
                self.curves.add(event.step, {"validation": event.loss})
                self.gauge.add(event)
            case ev.PreviewReady():
                self.preview.show_images(event.images)
                self.layers_button.setVisible(True)

    def _lock(self, running: bool) -> None:
        self.sources.setEnabled(not running)
        self._heading.setVisible(not running)
        self._start_row.setVisible(not running)
        self.card.setVisible(not running and self.card.run is not None)

    def _latest_run(self) -> Path | None:
        return self.training.run_choice.path() or self.training.run

    def _add_preview_layers(self) -> None:
        images = (layer for layer in self.viewer.layers if isinstance(layer, Image))
        beside = next((layer for layer in images if not is_own(layer)), None)
        self._crops.show(self.preview.layers(beside))

    def _show_command(self) -> None:
        try:
            config = self.config()
            label = self.sources.selection().label()
            channels = channel_words(self.sources.channels.chosen())
        except ValueError as error:
            self.panel.fail(error)
            return
        words, notes = layer_words(self.sources.layers())
        words += [str(path) for path in self.sources.paths()]
        words += channels
        words += option_words(config, self.training.stored, without={"in_channels"})
        start = start_word(self.start_from.path())
        if (pair := self.judge.pair()) is not None:
            files, more = layer_words(pair)
            words += ["--probe-images", files[0], "--probe-labels", files[1]]
            if (ignored := self.judge.ignore_value()) is not None:
                words += ["--probe-ignore", str(ignored)]
            notes += [note for note in more if note not in notes]

        def show(run: Path, resume: bool) -> None:
            line = [*words, "--resume"] if resume else words
            options = {"out": str(run)} if resume else {"out": str(run), "start": start}
            CommandDialog(command_line("pretrain", line, options), notes, self).exec()

        self.training.find_target(label, show)


def _run(
    chosen: Selection,
    judging: Judging | None,
    config: PretrainConfig,
    run: Path,
    start: Path | None,
    *,
    resume: bool,
) -> Generator[ev.Event, None, None]:
    """Open the images and pretrain; called in the worker's thread."""
    from napari_affmae.engine import pretrain

    sources = yield from chosen.open()
    channels = sources[0].n_channels
    config = config.model_copy(update={"in_channels": channels})
    labelled = [] if judging is None else (yield from judging.usable())
    yield from pretrain(
        sources,
        config,
        run,
        start=start,
        labelled=labelled,
        ignore_value=None if judging is None else judging.ignore_value,
        resume=resume,
    )
