"""Labelled images of a run: normalised, split into training and validation, with classes."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napari_affmae.config import FinetuneConfig, LabelClass
from napari_affmae.data import (
    Finding,
    ImageSource,
    LabelledPair,
    NormalizationRecord,
    check_pairs,
    check_shapes,
    class_values,
    labelled_planes,
    naming_pair,
    normalize_sources,
    proposed_classes,
    require_same_channels,
    split_planes,
)
from napari_affmae.engine.events import Notice
from napari_affmae.errors import DataError

_NAMED = 3

Pairs = Sequence[tuple[ImageSource, ImageSource]]


@dataclass(frozen=True)
class Labelled:
    """Labelled planes, split into training and validation.

    Attributes
    ----------
    pairs : sequence of LabelledPair
        Of both parts.
    training : sequence of sequence of int
        Planes of each pair; also those without labels, which may be painted later.
    validation : sequence of sequence of int
        Planes of each pair, all with labels.
    classes : tuple of LabelClass
        In the order of their indices.
    """

    pairs: Sequence[LabelledPair]
    training: Sequence[Sequence[int]]
    validation: Sequence[Sequence[int]]
    classes: tuple[LabelClass, ...]

    @property
    def record(self) -> NormalizationRecord:
        """How the images were normalised."""
        return NormalizationRecord.of([pair.image for pair in self.pairs])

    @classmethod
    def of(
        cls,
        pairs: Pairs,
        validation: Pairs | None,
        config: FinetuneConfig,
        classes: tuple[LabelClass, ...],
        stored: Mapping[str, Any] | None,
    ) -> "Labelled":
        """Normalise the images and split the planes.

        Raises
        ------
        DataError
            If an image has other channels than the settings say.
        UnreadablePairError
            If a file is damaged.
        """
        record = None
        if stored is not None:
            record = NormalizationRecord.model_validate(stored["normalization"])
        labelled, usable = normalized_pairs([*pairs, *(validation or ())], config, record)
        if validation is not None:
            training = [list(range(image.n_planes)) for image, _ in pairs]
            nothing: list[list[int]] = [[] for _ in pairs]
            apart = nothing + usable[len(pairs) :]
            return cls(labelled, training + [[] for _ in validation], apart, classes)
        gap = config.validation_gap
        kept_back = _stored_split(stored, labelled)
        if kept_back is None:
            _, kept_back = split_planes(usable, config.validation)
        training = [
            _for_training(pair.image.n_planes, with_labels, held, gap)
            for pair, with_labels, held in zip(labelled, usable, kept_back, strict=True)
        ]
        # A plane whose labels were erased since the run began stays held out, but measures nothing.
        measured = [
            sorted(set(held).intersection(with_labels))
            for with_labels, held in zip(usable, kept_back, strict=True)
        ]
        return cls(labelled, training, measured, classes)


def normalized_pairs(
    pairs: Pairs, config: FinetuneConfig, record: NormalizationRecord | None
) -> tuple[list[LabelledPair], list[list[int]]]:
    """Normalise images, and list the planes of each that hold labels.

    Raises
    ------
    DataError
        If an image has other channels than the settings say, or another shape than its labels.
    UnreadablePairError
        If a file is damaged.
    """
    require_same_channels([image for image, _ in pairs], config.in_channels)
    labelled = [_labelled_pair(*pair, config, record) for pair in pairs]
    return labelled, [_labelled_planes(pair, config.ignore_value) for pair in labelled]


def _labelled_planes(pair: LabelledPair, ignore_value: int | None) -> list[int]:
    with naming_pair(pair.image.name, pair.labels.name):
        return labelled_planes(pair.labels, ignore_value)


def _stored_split(
    stored: Mapping[str, Any] | None, pairs: Sequence[LabelledPair]
) -> list[list[int]] | None:
    """Recall what a run holds out: labels painted since must not move planes to the other side."""
    held: list[list[int]] | None = None if stored is None else stored.get("validation_planes")
    if held is None or len(held) != len(pairs):
        return None
    fits = all(
        max(planes, default=0) < pair.image.n_planes
        for planes, pair in zip(held, pairs, strict=True)
    )
    return held if fits else None


def _for_training(n_planes: int, usable: Sequence[int], held: Sequence[int], gap: int) -> list[int]:
    """List the planes that are trained on as soon as they hold labels.

    Those that are near to a held one are left out, unless no other is labelled.
    """
    near = {plane + step for plane in held for step in range(-gap, gap + 1)}
    far = [plane for plane in range(n_planes) if plane not in near]
    others = sorted(set(usable).difference(held))
    return far if set(far) & set(others) else sorted({*far, *others[:1]})


def _labelled_pair(
    image: ImageSource,
    labels: ImageSource,
    config: FinetuneConfig,
    record: NormalizationRecord | None,
) -> LabelledPair:
    with naming_pair(image.name, labels.name):
        (normalized,) = normalize_sources([image], config.normalization, record)
    return LabelledPair(normalized, labels)


def settle_classes(
    pairs: Pairs, config: FinetuneConfig, stored: Mapping[str, Any] | None
) -> tuple[LabelClass, ...]:
    """Decide on the classes: those of a stored run, of the settings, or found in the labels.

    Parameters
    ----------
    pairs : sequence of (ImageSource, ImageSource)
        Images and their labels.
    config : FinetuneConfig
        Settings.
    stored : Mapping[str, Any] or None
        Record of the run that is resumed.

    Raises
    ------
    DataError
        If there are fewer than two, labels do not fit their images, or their values
        are no classes.
    UnreadablePairError
        If labels have to be looked through and cannot be read.
    """
    if stored is not None:
        return tuple(LabelClass.model_validate(item) for item in stored["classes"])
    _check_all_shapes(pairs)
    values = {item.value for item in config.classes}
    if not values:
        for image, labels in pairs:
            with naming_pair(image.name, labels.name):
                values |= class_values(labels, config.ignore_value)
        if min(values, default=0) < 0:
            raise DataError(
                f"label values must be at least 0, found {min(values)}: change it, or make it the "
                "value of what is not labelled"
            )
    if len(values) < 2:
        raise DataError(
            f"there is only {len(values)} class beside what is not labelled; "
            "a segmentation needs at least two: label some of the background too"
        )
    return config.classes or proposed_classes(values, [labels for _, labels in pairs])


def _check_all_shapes(pairs: Pairs) -> None:
    errors = []
    for image, labels in pairs:
        try:
            check_shapes(image, labels)
        except DataError as error:
            errors.append(str(error))
    _raise_all(errors)


def _raise_all(errors: Sequence[str]) -> None:
    if errors:
        more = f"; and {len(errors) - _NAMED} more errors" if len(errors) > _NAMED else ""
        raise DataError("; ".join(errors[:_NAMED]) + more)


def check_labelled(
    pairs: Pairs, config: FinetuneConfig, classes: Sequence[LabelClass], batch: int
) -> Generator[Notice, None, None]:
    """Check images and labels; tell what was found.

    Parameters
    ----------
    pairs : sequence of (ImageSource, ImageSource)
        Images and their labels.
    config : FinetuneConfig
        Settings.
    classes : sequence of LabelClass
        Those of the run.
    batch : int
        Crops of a step.

    Yields
    ------
    Notice
        One a finding.

    Raises
    ------
    DataError
        After them, if any is an error; names pairs.
    """
    findings = check_pairs(
        pairs, classes=classes, ignore_value=config.ignore_value, crop=config.crop, batch=batch
    )
    errors = []
    for finding in findings:
        yield Notice(finding.message, finding.level, finding.source)
        if finding.level == "error":
            errors.append(_naming_pair(finding, pairs))
    _raise_all(errors)


def _naming_pair(finding: Finding, pairs: Pairs) -> str:
    about = set(finding.sources)
    involved = [pair for pair in pairs if about.intersection(pair)]
    if not involved:
        return finding.message
    image, labels = involved[0]
    others = f" and {len(involved) - 1} more" if len(involved) > 1 else ""
    return f"the pair {image.name} and {labels.name}{others}: {finding.message}"
