"""Segmentation of planes and stacks with a network that was trained on labels."""

from collections.abc import Generator
from pathlib import Path

import numpy as np

from napari_affmae.config import SegmentConfig
from napari_affmae.data import (
    ImageSource,
    NormalizedSource,
    normalize_sources,
    require_channels,
)
from napari_affmae.engine.compute.device import plan_device, telling_of_memory
from napari_affmae.engine.compute.runtime import Runtime
from napari_affmae.engine.compute.timing import Stopwatch
from napari_affmae.engine.events import BandDone, Event, PlaneDone, TileDone
from napari_affmae.engine.inference.blending import Wanted, class_values
from napari_affmae.engine.inference.pixel_sizes import note_pixel_sizes
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.engine.store.metadata import ModelMetadata
from napari_affmae.engine.store.model_files import load_model
from napari_affmae.errors import CheckpointError
from napari_affmae.model import AFFMAE


class Segmenter:
    """A segmentation model on its device.

    Attributes
    ----------
    metadata : ModelMetadata
        Metadata of the model file.
    predictor : Predictor
        Its network.
    precision : str
        Of its matrix products.
    started : RunStarted
        The device that it runs on.
    notices : tuple of Notice
        Messages for the user before it runs.

    Parameters
    ----------
    model : Path
        Model file or run folder.
    config : SegmentConfig
        Tiles, device and precision.

    Raises
    ------
    CheckpointError
        If there is no segmentation model.
    DeviceUnavailableError
        If the device is not there.
    """

    def __init__(self, model: Path, config: SegmentConfig) -> None:
        self._config = config
        plan = plan_device(config.device, config.precision)
        module, self.metadata = load_model(Path(model))
        if isinstance(module, AFFMAE):
            raise CheckpointError(
                f"{model} is a pretrained model, which knows no classes; fine-tune it first"
            )
        runtime = Runtime(plan)
        with plan.active():
            module.to(runtime.plan.device)
        tile = self.metadata.crop if config.tile == "auto" else config.tile
        # On the CPU, a tile's last bits depend on the number of tiles that are computed with it.
        batch = 1 if plan.device.type == "cpu" else config.batch
        self.precision = plan.precision
        self.predictor = Predictor(module, runtime, tile, config.overlap, batch)
        self.started = runtime.started(module, self.predictor.batch, self.predictor.batch)
        self.notices = tuple(runtime.first_pass())

    def normalize(self, source: ImageSource) -> NormalizedSource:
        """Normalise an image as the model's training images were.

        Parameters
        ----------
        source : ImageSource
            The image.

        Raises
        ------
        DataError
            If its channels are not the model's.
        """
        return normalize_like(source, self.metadata)

    @telling_of_memory
    def segment(self, source: ImageSource) -> Generator[Event, None, None]:
        """Segment every plane of an image or stack; see `segment`.

        Parameters
        ----------
        source : ImageSource
            The image.

        Yields
        ------
        Event
            As `segment` does.
        """
        if self._config.three_directions:
            raise ValueError("planes along three directions are averaged by segment_to_file alone")
        normalized = self.normalize(source)
        yield self.started
        yield from self.notices
        yield from note_pixel_sizes([source], self.metadata.pixel_size)
        planes = range(source.n_planes)
        wanted = Wanted(
            class_values(self.metadata.classes), "float32" if self._config.probabilities else None
        )
        labels = np.zeros((source.height, source.width), wanted.values.dtype)
        watch = Stopwatch()
        watch.start()
        for band in self.predictor.planes(normalized, planes, wanted):
            watch.stop()
            if band.labels is not None:
                labels[band.rows] = band.labels
                yield BandDone(band.plane, len(planes), band.rows, band.labels, band.probabilities)
            seconds_left = watch.elapsed / band.done * (band.total - band.done)
            per_plane = band.total // len(planes)
            done = (band.done - 1) % per_plane + 1
            yield TileDone(done, per_plane, band.plane, seconds_left)
            if done == per_plane:
                yield PlaneDone(band.plane, len(planes), labels)
                labels = np.zeros_like(labels)
            watch.start()


def normalize_like(source: ImageSource, metadata: ModelMetadata) -> NormalizedSource:
    """Normalise an image as the model's training images were.

    Parameters
    ----------
    source : ImageSource
        The image.
    metadata : ModelMetadata
        Metadata of the model.

    Raises
    ------
    DataError
        If its channels are not the model's.
    """
    require_channels(source, metadata.model.in_channels)
    record = metadata.normalization
    return normalize_sources([source], record.config, record)[0]


def segment(
    source: ImageSource, model: Path, config: SegmentConfig
) -> Generator[Event, None, None]:
    """Segment every plane of an image or stack.

    Parameters
    ----------
    source : ImageSource
        The image, with the channels that the model was trained on; perhaps a
        `window` of one, which is normalised like the whole.
    model : Path
        Model file, also of quick training, or folder of a fine-tuning run.
    config : SegmentConfig
        Tiles, device and precision.

    Yields
    ------
    Event
        `RunStarted` and any `Notice` first. Then `TileDone` for each batch of tiles,
        preceded by `BandDone` if rows are finished, and `PlaneDone` after each plane.

    Raises
    ------
    CheckpointError
        If there is no segmentation model.
    DataError
        If image and model have different channels.
    DeviceUnavailableError
        If the device is not there.
    OutOfMemoryError
        If not even one tile fits.
    UnreadableFileError
        If the image's file is damaged.
    """
    yield from Segmenter(model, config).segment(source)
