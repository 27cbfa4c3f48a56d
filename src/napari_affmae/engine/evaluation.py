"""Comparison of predictions with labels over a whole set."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from napari_affmae.config import SegmentConfig
from napari_affmae.data import (
    ImageSource,
    LabelEncoder,
    LabelledPair,
    read_labels,
)
from napari_affmae.engine.events import Event, TileDone
from napari_affmae.engine.predictor import Predictor
from napari_affmae.engine.scores import ConfusionMatrix, Scores
from napari_affmae.engine.segmentation import Segmenter


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
        Gets `RunStarted` and `TileDone`.

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
    events = _evaluate(pairs, model, config)
    while True:
        try:
            event = next(events)
        except StopIteration as stop:
            scores: Scores = stop.value
            return scores
        if on_event is not None:
            on_event(event)


def _evaluate(
    pairs: Sequence[tuple[ImageSource, ImageSource]], model: Path, config: SegmentConfig
) -> Generator[Event, None, Scores]:
    segmenter = Segmenter(model, config)
    metadata = segmenter.metadata
    yield segmenter.started
    labelled = [LabelledPair(segmenter.normalize(image), labels) for image, labels in pairs]
    confusion = yield from count_confusion(
        segmenter.predictor,
        labelled,
        [range(image.n_planes) for image, _ in pairs],
        LabelEncoder(metadata.classes, metadata.ignore_value),
    )
    return confusion.scores([item.name for item in metadata.classes])


def count_confusion(
    predictor: Predictor,
    pairs: Sequence[LabelledPair],
    planes: Sequence[Sequence[int]],
    encoder: LabelEncoder,
) -> Generator[TileDone, None, ConfusionMatrix]:
    """Predict labelled planes and count which class was taken for which.

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
    """
    confusion = ConfusionMatrix(encoder.n_classes)
    count = 0
    for pair, chosen in zip(pairs, planes, strict=True):
        for plane in chosen:
            for band in predictor.plane(pair.image, plane):
                if band.probabilities is not None:
                    rows = slice(band.start, band.start + band.probabilities.shape[1])
                    values = read_labels(pair.labels, plane, rows)
                    if pair.labels.revision(plane):
                        target, _ = encoder.encode_known(values)
                    else:
                        target = encoder.encode(values, pair.labels.name)
                    confusion.add(target, band.probabilities.argmax(0))
                yield TileDone(band.done, band.total, count, None)
            count += 1
    return confusion
