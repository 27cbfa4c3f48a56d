"""Comparison of predictions with labels over a whole set."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import SegmentConfig
from napari_affmae.data import (
    ImageSource,
    LabelEncoder,
    LabelledPair,
    naming_pair,
    read_labels,
)
from napari_affmae.engine.compute.device import telling_of_memory
from napari_affmae.engine.events import Event, TileDone
from napari_affmae.engine.inference.blending import Wanted
from napari_affmae.engine.inference.pixel_sizes import note_pixel_sizes
from napari_affmae.engine.inference.predictor import Predictor
from napari_affmae.engine.inference.scores import ConfusionMatrix, Scores
from napari_affmae.engine.inference.segmentation import Segmenter

_ADVICE = "these are the model's: write the labels anew with them"


def evaluate(
    pairs: Sequence[tuple[ImageSource, ImageSource]],
    model: Path,
    config: SegmentConfig,
    on_event: Callable[[Event], None] | None = None,
) -> Scores:
    """Score a model on labelled images, by one confusion matrix over all of them.

    Parameters
    ----------
    pairs : sequence of (ImageSource, ImageSource)
        Images and their labels. Pixels of the value that meant "not labelled"
        in the model's training are not counted.
    model : Path
        Model file or folder of a fine-tuning run.
    config : SegmentConfig
        Tiles, device and precision.
    on_event : callable, optional
        Called with each `RunStarted`, `Notice` and `TileDone`.

    Returns
    -------
    Scores
        IoU and Dice of each class, by its name.

    Raises
    ------
    AffmaeError
        As `segment`; `DataError` also for labels that do not fit the images or
        have values that the model does not know.
    """
    events = scoring(pairs, model, config)
    while True:
        try:
            event = next(events)
        except StopIteration as stop:
            scores: Scores = stop.value
            return scores
        if on_event is not None:
            on_event(event)


@telling_of_memory
def scoring(
    pairs: Sequence[tuple[ImageSource, ImageSource]], model: Path, config: SegmentConfig
) -> Generator[Event, None, Scores]:
    """Score a model as `evaluate` does, as a run that can be stopped by closing it.

    Parameters
    ----------
    pairs, model, config
        See `evaluate`, whose errors are raised.

    Yields
    ------
    Event
        `RunStarted`, `Notice` and `TileDone`.

    Returns
    -------
    Scores
    """
    segmenter = Segmenter(model, config)
    metadata = segmenter.metadata
    yield segmenter.started
    yield from segmenter.notices
    yield from note_pixel_sizes((image for image, _ in pairs), metadata.pixel_size)
    labelled = [LabelledPair(segmenter.normalize(image), labels) for image, labels in pairs]
    confusion = yield from count_confusion(
        segmenter.predictor,
        labelled,
        [range(image.n_planes) for image, _ in pairs],
        LabelEncoder(metadata.classes, metadata.ignore_value, _ADVICE),
    )
    return confusion.scores([item.name for item in metadata.classes])


def count_confusion(
    predictor: Predictor,
    pairs: Sequence[LabelledPair],
    planes: Sequence[Sequence[int]],
    encoder: LabelEncoder,
) -> Generator[TileDone, None, ConfusionMatrix]:
    """Predict labelled planes and count the predicted class of every labelled pixel.

    Parameters
    ----------
    predictor : Predictor
        The network.
    pairs : sequence of LabelledPair
        Images and labels.
    planes : sequence of sequence of int
        Planes of each pair.
    encoder : LabelEncoder
        From label values to class indices.

    Yields
    ------
    TileDone
        Progress; `plane` counts over the whole set.

    Returns
    -------
    ConfusionMatrix
        Over the whole set.

    Raises
    ------
    DataError
        If a label has no class.
    UnreadablePairError
        If a file is damaged.
    """
    confusion = ConfusionMatrix(encoder.n_classes)
    indices = np.arange(encoder.n_classes)
    wanted = Wanted(indices.astype(np.min_scalar_type(encoder.n_classes)))
    before = 0
    for pair, chosen in zip(pairs, planes, strict=True):
        with naming_pair(pair.image.name, pair.labels.name):
            for band in predictor.planes(pair.image, chosen, wanted):
                if band.labels is not None:
                    target = _target(pair.labels, band.plane, band.rows, encoder)
                    confusion.add(target, band.labels)
                per_plane = band.total // len(chosen)
                complete, done = divmod(band.done - 1, per_plane)
                yield TileDone(done + 1, per_plane, before + complete, None)
        before += len(chosen)
    return confusion


def _target(
    labels: ImageSource, plane: int, rows: slice, encoder: LabelEncoder
) -> NDArray[np.int64]:
    """Read class indices; painted values without a class count as not labelled."""
    values = read_labels(labels, plane, rows)
    if labels.revision(plane):
        return encoder.encode_known(values)[0]
    return encoder.encode(values, labels.name)
