"""The dock that segments images with a trained network."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import napari
from napari.layers import Image, Layer
from qtpy.QtWidgets import QComboBox, QFormLayout, QPushButton, QWidget

from napari_affmae.config import SegmentConfig
from napari_affmae.engine import events as ev
from napari_affmae.engine import wording
from napari_affmae.engine.inference.fitting import Subject, to_segment_with
from napari_affmae.errors import AffmaeError
from napari_affmae.widgets.layers.label_layers import painted_classes
from napari_affmae.widgets.layers.layer_sources import LayerImage, layer_geometry
from napari_affmae.widgets.layers.napari_private import real_viewer
from napari_affmae.widgets.parts.command_dialog import (
    CommandDialog,
    channel_words,
    layer_words,
)
from napari_affmae.widgets.parts.forms import SettingsForm
from napari_affmae.widgets.parts.lifetime import connect_while_alive
from napari_affmae.widgets.parts.preferences import load_preferences
from napari_affmae.widgets.running.background_job import BackgroundJob
from napari_affmae.widgets.running.base_dock import Dock
from napari_affmae.widgets.running.model_card import ModelCard
from napari_affmae.widgets.running.overlay_bar import OverlayBar
from napari_affmae.widgets.running.run_choice import RunChoice
from napari_affmae.widgets.running.run_panel import Outcome, RunPanel
from napari_affmae.widgets.segment.commands import CommandsReady, make_commands
from napari_affmae.widgets.segment.image_choice import ImageChoice
from napari_affmae.widgets.segment.job import (
    ObjectsFound,
    ObjectsSought,
    PlanesWritten,
    ResultReady,
    SegmentationJob,
    StackProgress,
)
from napari_affmae.widgets.segment.next_up import Chosen, NextUp
from napari_affmae.widgets.segment.objects_layer import ObjectsLayer
from napari_affmae.widgets.segment.objects_panel import ObjectsPanel
from napari_affmae.widgets.segment.region_choice import EVERYTHING, RegionChoice
from napari_affmae.widgets.segment.remeasuring import present
from napari_affmae.widgets.segment.result import LARGEST
from napari_affmae.widgets.segment.result_layers import ResultLayers
from napari_affmae.widgets.segment.stored_objects import ObjectsStored

_BASIC = ("device", "probabilities")
_ADVANCED = ("tile", "overlap", "batch", "precision")
MEMORY, DISK = "in memory", "on disk (OME-Zarr)"
# Endings of results in a command line.
_SUFFIXES = {MEMORY: "", DISK: ".zarr"}


class SegmentDock(Dock):
    """Predicts the class of every pixel.

    The result is a layer of the size of the part that was segmented, at its place in the
    image, so that pixels that were not segmented are not mistaken for a class.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that it belongs to.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        napari_viewer = real_viewer(napari_viewer)
        panel = RunPanel(
            "Segmentation",
            "Segment",
            kept="What is segmented so far stays as a layer.",
            draws_curves=False,
        )
        super().__init__(napari_viewer, panel, "segment")
        self.image = ImageChoice(napari_viewer)
        self.run_choice = RunChoice(
            "choose a model",
            {"finetune", "quick", "model"},
            segmenting=True,
            preferred=lambda runs: to_segment_with(runs, self._subject()),
        )
        self.run_choice.changed.connect(self._show_model)
        self.card = ModelCard()
        self.image.changed.connect(self._take_image)
        self.region = RegionChoice(napari_viewer)
        self.keep = QComboBox()
        self.keep.addItems([MEMORY, DISK])
        self.keep.setToolTip(
            "On disk, the result is written into the folder of runs while it is computed, what "
            "is in view first, and a segmentation that was stopped goes on where it was. "
            f"Results of more than {LARGEST / 2**30:.0f} GB always lie there."
        )
        self.form = SettingsForm(SegmentConfig, basic=_BASIC, advanced=_ADVANCED)
        self.overlays = OverlayBar(napari_viewer)
        self._objects_layer = ObjectsLayer(napari_viewer, self)
        self.objects = ObjectsPanel(self._objects_layer.bar)
        self.objects.asked.connect(self._find_objects)
        self.objects.filter_asked.connect(self._filter_objects)
        self._found: ObjectsFound | None = None
        self._is_filtering = False
        self._objects_layer.changed.connect(self._take_corrected)
        self.objects.table_asked.connect(self._objects_layer.open_table)
        self.command_button = QPushButton("Command line ...")
        self.command_button.clicked.connect(self._show_command)
        self._notes: list[str] = []
        self._commands = BackgroundJob(self, loads_torch=False)
        self._commands.happened.connect(self._show_commands)
        self._commands.failed.connect(panel.fail)
        self.result = ResultLayers(napari_viewer, self)
        self.next_up = NextUp(panel)
        self._begun: Chosen | None = None
        self._arrange()
        panel.start_requested.connect(lambda: panel.start_when_listed(self.run_choice, self._start))
        self.next_up.asked.connect(panel.start_requested)
        self.next_up.begun.connect(self._begin_next)
        panel.happened.connect(self._take)
        panel.ended.connect(self._end)
        panel.running_changed.connect(self._lock)
        connect_while_alive(self, self.viewer.layers.events.removed, self._note_removed)
        self._recall()

    def _arrange(self) -> None:
        choices = QWidget()
        rows = QFormLayout(choices)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        rows.addRow("Image", self.image)
        rows.addRow("Region", self.region)
        rows.addRow("Result", self.keep)
        self.add_section("Model", self.run_choice, self.card)
        self.add_section("Image", choices)
        self.add_section("Settings", self.form)
        self.add(self.panel, self.next_up, self.overlays, self.objects, self.command_button)
        self.add_stretch()

    def choose_layer(self, layer: Image) -> None:
        """Choose the image layer to segment.

        Raises
        ------
        ValueError
            If the layer cannot be segmented.
        """
        self.image.choose_layer(layer)

    def segment_all(self, layer: Image, model: Path) -> None:
        """Segment the whole of an image layer with a model; if another one runs, after that.

        Parameters
        ----------
        layer : napari.layers.Image
            The image.
        model : Path
            Run folder or model file.
        """
        self.image.choose_layer(layer)
        self.region.setCurrentText(EVERYTHING)
        self.run_choice.choose(model)
        self.panel.start_when_listed(self.run_choice, self._start)

    def showEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Refresh the list of models: other docks may have trained some."""
        super().showEvent(event)
        self.run_choice.refresh()

    def _recall(self) -> None:
        values = self.remembered()
        self.form.recall(values)
        self._show_model()
        self._offer_regions()

    def entered(self) -> dict[str, Any]:
        """Return the settings to be remembered."""
        return self.form.lasting()

    def _show_model(self) -> None:
        run = self.run_choice.run()
        self.card.show_run(run, self._subject())
        self.objects.offer(() if run is None else run.classes)

    def _take_image(self) -> None:
        self._offer_regions()
        self.run_choice.prefer_again()
        self.card.show_run(self.run_choice.run(), self._subject())

    def _subject(self) -> Subject | None:
        """Describe the chosen layer; None for a file, which is not opened here."""
        layer = self.image.layer()
        if layer is None:
            return None
        with suppress(ValueError):  # half typed channels, of which `_job` complains
            source = LayerImage(layer, self.image.chosen_channels())
            return Subject.of(source, painted_classes(self.viewer, layer))
        return None

    def _offer_regions(self) -> None:
        self.region.offer(is_file=self.image.path() is not None)

    def _start(self) -> None:
        """Segment what is chosen, now or after what runs."""
        try:
            job = self._job()
        except (ValueError, AffmaeError) as error:
            self.panel.fail(error)
            return
        name = job.image.name
        words = f"{self.region.currentText()} of {name!r}, with {job.model.name!r}"
        chosen = Chosen(job, self.image.layer(), words)
        self.next_up.put(chosen) if self.panel.is_running else self._begin(chosen)

    def _begin(self, chosen: Chosen) -> None:
        self._begun, self._found = chosen, None
        self.result.begin(chosen.job, chosen.layer)
        self._objects_layer.forget()
        self.objects.take_table({})
        self.panel.run(chosen.job.run)

    def _begin_next(self, chosen: Chosen) -> None:
        before = self._begun
        self._begin(chosen)
        if before is not None:
            self.panel.messages.add(f"Before: {before.words}. Its layers stay.", "info")

    def _job(self) -> SegmentationJob:
        """Return the job that was chosen, or raise a ValueError that names what is missing."""
        run, layer, path = self.run_choice.run(), self.image.layer(), self.image.path()
        if run is None:
            raise ValueError("No model is chosen: choose one above, or train one first.")
        channels = self.image.chosen_channels()
        image = path if layer is None else LayerImage(layer, channels)
        if image is None:
            raise ValueError("No image is chosen: open an image layer, or choose a file.")
        return SegmentationJob(
            image=image,
            channels=channels,
            geometry=None if layer is None else layer_geometry(layer),
            region=self.region.region(layer),
            model=run.path,
            classes=run.classes,
            config=self.form.build(),
            folder=load_preferences().runs / "segmentations",
            on_disk=self.keep.currentText() == DISK,
            objects=self.objects.wanted() if self.objects.wanted_box.isChecked() else None,
        )

    def _take(self, event: ev.Event) -> None:
        match event:
            case ResultReady():
                self._show_result(event)
            case PlanesWritten():
                self.result.draw(event)
            case ev.TileDone():
                self._show_tile(event)
            case StackProgress():
                text = wording.planes(event.planes_done, event.planes, event.seconds_left)
                self.panel.show_progress(event.done, event.total, text)
            case ObjectsSought():
                self._show_search(event)
            case ev.ObjectsProgress():
                self.panel.show_progress(event.done, event.total, wording.objects(event))
            case ObjectsStored():
                self._add_stored(event)
            case ObjectsFound():
                self._add_objects(event)

    def _show_result(self, event: ResultReady) -> None:
        self.result.show(event, None if self._begun is None else self._begun.layer)
        folder = event.result.folder
        if folder is not None:
            self.panel.messages.add(f"The result is kept in {folder}, until you delete it.", "info")

    def _show_tile(self, event: ev.TileDone) -> None:
        ready = self.result.ready
        if ready is None:
            return
        done = event.plane * event.total + event.done
        planes = ready.result.n_planes
        self.panel.show_progress(done, planes * event.total, wording.plane(event, planes))

    def _show_search(self, event: ObjectsSought) -> None:
        text = "looking for objects ..." if event.total is None else "measuring objects ..."
        self.panel.show_progress(event.done, event.total, text)

    def _filter_objects(self, low: float, high: float) -> None:
        """Keep objects of some sizes, of all that were found."""
        found = self._found
        if found is not None:
            self._is_filtering = True
            self.panel.run(lambda: found.within(low, high))

    def _find_objects(self) -> None:
        """Look for objects in the last result."""
        ready = self.result.ready
        if ready is None:
            return
        try:
            wanted = self.objects.wanted()
        except ValueError as error:
            self.panel.fail(error)
            return
        self.panel.run(lambda: wanted.find(ready))

    def _add_objects(self, event: ObjectsFound) -> None:
        if self.result.ready is None:
            return
        three_d = self.objects.form.build().three_d
        self._objects_layer.show(self.result.ready, event, three_d=three_d)
        self.objects.take_table(event.table)
        count = len(event.table["label"])
        if self._is_filtering and self._found is not None:
            of = len(self._found.table["label"])
            self.panel.messages.add(f"{count} of {of} objects are of these sizes.", "info")
            return
        self._found = event
        self.objects.offer_sizes(event.table)
        self.panel.messages.add(f"{count} objects were found.", "info")
        shape = event.objects.shape
        where = shape if three_d else shape[-2:]
        odd = self.objects.judge(event.table, math.prod(where))
        if odd is not None:
            self.panel.messages.add(odd, "warning")

    def _add_stored(self, event: ObjectsStored) -> None:
        if self.result.ready is None:
            return
        self._found = None
        self._objects_layer.show_stored(self.result.ready, event)
        self.objects.take_table(event.table, event.file)
        self.panel.messages.add(event.words(), "info")

    def _take_corrected(self, found: ObjectsFound) -> None:
        """Filter and save what the user has corrected from now on."""
        self._found = found
        self.objects.take_table(present(found.table))

    def _end(self, outcome: Outcome) -> None:
        self.result.finish()
        self._is_filtering = False
        ready = self.result.ready
        if outcome is Outcome.STOPPED and ready is not None:
            on = "" if ready.result.folder is None else "; Segment goes on with them"
            self.panel.messages.add(
                f"Stopped: pixels that were not reached are 0 in the result{on}.", "warning"
            )
        if outcome is Outcome.FAILED:
            self.run_choice.refresh()  # its folder may have been deleted

    def _lock(self, running: bool) -> None:
        self.objects.lock(running=running, result=self.result.ready is not None)

    def _note_removed(self, event: Any) -> None:
        layer: Layer = event.value
        if layer is not self.result.labels:
            return
        if self.panel.is_running:
            self.panel.stop()
            self.panel.messages.add(
                "The layer of the result was removed, so the segmentation was stopped.", "warning"
            )
        else:
            self.result.forget()
            self._lock(running=False)

    def _show_command(self) -> None:
        layer, path = self.image.layer(), self.image.path()
        names, notes = layer_words([] if layer is None else [layer])
        if path is not None:
            names = [str(path)]
        run = self.run_choice.run()
        try:
            words = [*names, *channel_words(self.image.chosen_channels())]
            config = self.form.build()
            objects = self.objects.wanted() if self.objects.wanted_box.isChecked() else None
        except ValueError as error:
            self.panel.fail(error)
            return
        if self.region.currentText() != EVERYTHING:
            notes.append("The command line segments whole images.")
        self._notes = notes
        model, suffix = None if run is None else run.path, _SUFFIXES[self.keep.currentText()]
        self._commands.run(lambda: make_commands(words, model, config, objects, suffix))

    def _show_commands(self, event: CommandsReady) -> None:
        CommandDialog("\n".join(event.lines), self._notes, self).exec()
