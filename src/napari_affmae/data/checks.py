"""Checks images and labels before a run for problems that would spoil it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import MOST_CLASSES, LabelClass
from napari_affmae.data.image_checks import Finding, Inspection, Level, inspect, shortened
from napari_affmae.data.label_values import (
    count_values,
    labelled_planes,
    number_objects,
)
from napari_affmae.data.labels import CLASS_ADVICE, LabelEncoder, check_shapes, read_labels
from napari_affmae.data.sources.source import ImageSource, spread
from napari_affmae.data.threads import map_in_order
from napari_affmae.errors import AffmaeError, DataError, SystemLimitError, UnreadableFileError

# Limits for all images together, so that a run on very many images starts in seconds.
_MOST_PIXELS = 2**30
_MOST_SOURCES = 128
_MOST_CONTRASTS = 64

_LABELLED_PLANES = 16
_PIXEL_SIZE_RATIO = 1.5
_MOST_LOOKED_AT = 4
_FEW_STRANGERS = 8
_SIDE = 2048


def require_same_channels(sources: Sequence[ImageSource], in_channels: int) -> None:
    """Refuse images of which some have other channels than a run takes.

    Parameters
    ----------
    sources : sequence of ImageSource
        All images of the run.
    in_channels : int
        Channels that the run takes.

    Raises
    ------
    DataError
        If an image has another number of channels; names one, and counts them.
    """
    others = [source for source in sources if source.n_channels != in_channels]
    if others:
        raise DataError(
            f"{others[0].name} has {others[0].n_channels} channels and the run takes {in_channels} "
            f"({len(others)} of {len(sources)} images differ); choose channels that all images "
            "have, such as the first, or leave these out"
        )


def require_channels(source: ImageSource, in_channels: int) -> None:
    """Refuse an image whose channels a model cannot take.

    Parameters
    ----------
    source : ImageSource
        The image.
    in_channels : int
        Channels that the model takes.

    Raises
    ------
    DataError
        If the image has another number of channels.
    """
    if source.n_channels != in_channels:
        raise DataError(
            f"{source.name} has {source.n_channels} channels and the model takes {in_channels}; "
            "choose channels of the image, or another model"
        )


def check_sources(
    sources: Sequence[ImageSource], *, crop: int | None = None, batch: int | None = None
) -> list[Finding]:
    """Check images for problems that would spoil training.

    Only some planes of a stack are read, and windows of large planes. The more images
    there are, the fewer; of thousands, only some are looked at.

    Parameters
    ----------
    sources : sequence of ImageSource
        The images.
    crop, batch : int, optional
        Side of a crop and crops of a step, to judge whether there are enough images.

    Returns
    -------
    list of Finding
        An unreadable file is a finding with an error. The same finding on several
        images is listed once.

    Raises
    ------
    SystemLimitError
        If memory or open files run out.
    """
    looked_at = _spread_over(len(sources), _MOST_SOURCES)
    contrasts = {looked_at[number] for number in _spread_over(len(looked_at), _MOST_CONTRASTS)}
    share = _MOST_PIXELS // max(1, len(looked_at))

    def inspected(number: int) -> Inspection:
        return inspect(sources[number], share, contrast=number in contrasts)

    inspections = dict(zip(looked_at, map_in_order(inspected, looked_at), strict=True))
    findings: list[Finding] = []
    for number, source in enumerate(sources):
        findings += [Finding("info", note, (source,)) for note in source.notes]
        if number in inspections:
            findings += inspections[number].findings
    findings = _merged(findings)
    if len(looked_at) < len(sources):
        message = f"the pixels of {len(looked_at)} of the {len(sources)} images were checked"
        findings.append(Finding("info", message))
    seen = [(sources[number], inspection) for number, inspection in inspections.items()]
    broken = {source for source, inspection in seen if not inspection.is_usable}
    findings += _check_contrast(seen)
    findings += _check_pixel_sizes([source for source in sources if source not in broken])
    if crop is not None:
        findings += _check_amount(sources, crop, batch)
    return findings


def _spread_over(total: int, most: int) -> list[int]:
    return spread(total, most) if total else []


def check_pairs(
    pairs: Sequence[tuple[ImageSource, ImageSource]],
    *,
    classes: Sequence[LabelClass] = (),
    ignore_value: int | None = None,
    crop: int | None = None,
    batch: int | None = None,
) -> list[Finding]:
    """Check images and labels for problems that would spoil training.

    Parameters
    ----------
    pairs : sequence of (ImageSource, ImageSource)
        Images and their labels.
    classes : sequence of LabelClass, optional
        Without them, values are not compared with classes.
    ignore_value : int, optional
        Label value that means not labelled.
    crop, batch : int, optional
        See `check_sources`.

    Returns
    -------
    list of Finding
        Those of the images, then those of the labels.
    """
    findings = check_sources([image for image, _ in pairs], crop=crop, batch=batch)
    of_labels = [Finding("info", note, (labels,)) for _, labels in pairs for note in labels.notes]
    strangers: dict[frozenset[int], list[tuple[ImageSource, Counter[int]]]] = {}
    counts: Counter[int] = Counter()
    complete = True
    readable: list[tuple[ImageSource, int]] = []

    def count(pair: tuple[ImageSource, ImageSource]) -> _Count | Finding:
        return _count(pair, classes, ignore_value)

    for (_, labels), counted in zip(pairs, map_in_order(count, pairs), strict=True):
        if isinstance(counted, Finding):
            of_labels.append(counted)
            continue
        of_pair = counted.pixels
        counts += of_pair
        complete &= counted.complete
        readable.append((labels, counted.middle))
        if labels.n_channels > 1:
            message = "labels that were saved in colours; these are grey, and one channel is read"
            of_labels.append(Finding("info", message, (labels,)))
        if classes and (unknown := LabelEncoder(classes, ignore_value).unknown(of_pair)):
            strangers.setdefault(frozenset(unknown), []).append((labels, unknown))
        if ignore_value is not None and set(of_pair) <= {ignore_value}:
            of_labels.append(Finding("warning", "no pixel is labelled", (labels,)))
    findings += _merged(of_labels)
    findings += map(_unknown, strangers.values())
    if len(readable) == len(pairs):  # else the classes may be in the others
        findings += _absent(counts, classes, complete)
    findings += _check_values(counts, ignore_value, readable, complete)
    return findings


@dataclass(frozen=True)
class _Count:
    """Pixels of each value of labels.

    `complete` is whether every labelled plane was counted, and `middle` one of them.
    """

    pixels: Counter[int]
    complete: bool
    middle: int


def _count(
    pair: tuple[ImageSource, ImageSource], classes: Sequence[LabelClass], ignore_value: int | None
) -> _Count | Finding:
    """Count the values of labels on some labelled planes, or say why that is not possible.

    Where pixels may be unlabelled, a few strokes may be all that there is, on planes that no
    sample of the stack would meet. So the sample is taken of the labelled planes, and the
    others are counted too if it lacks a class.
    """
    image, labels = pair
    try:
        check_shapes(image, labels)
        planes = labelled_planes(labels, ignore_value)
        sample = [planes[number] for number in _spread_over(len(planes), _LABELLED_PLANES)]
        pixels = count_values(labels, sample or range(min(1, labels.n_planes)))
        rest = sorted(set(planes).difference(sample))
        if rest and ignore_value is not None and any(not pixels[item.value] for item in classes):
            pixels += count_values(labels, rest)
            rest = []
        return _Count(pixels, not rest, sample[len(sample) // 2] if sample else 0)
    except UnreadableFileError as error:
        return Finding("error", str(error), (labels,))
    except SystemLimitError:
        raise
    except (AffmaeError, TypeError) as error:  # these name the labels
        return Finding("error", str(error))


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """Merge findings that have the same message about several sources."""
    alike: dict[tuple[Level, str], list[ImageSource]] = {}
    for finding in findings:
        alike.setdefault((finding.level, finding.message), []).extend(finding.sources)
    return [Finding(*said, tuple(sources)) for said, sources in alike.items()]


def _check_contrast(seen: Sequence[tuple[ImageSource, Inspection]]) -> Iterator[Finding]:
    judged = [(source, item.membranes) for source, item in seen if item.membranes is not None]
    dark = [source.name for source, kind in judged if kind == "dark"]
    bright = [source.name for source, kind in judged if kind == "bright"]
    if dark and bright:
        fewer, more = sorted((dark, bright), key=len)
        looks = "dark" if fewer is dark else "bright"
        usable = sum(inspection.is_usable for _, inspection in seen)
        among = f" of the {len(judged)} images looked at" if len(judged) < usable else ""
        yield Finding(
            "warning",
            f"membranes look {looks} in {shortened(fewer)}, unlike in {len(more)} others{among}; "
            "invert one kind, so that all have the same contrast",
        )


def _check_pixel_sizes(sources: Sequence[ImageSource]) -> Iterator[Finding]:
    known = [(source, source.pixel_size) for source in sources if source.pixel_size]
    yield from _merged(
        [
            Finding("warning", f"pixels of {row:g} x {column:g} nm", (source,))
            for source, (row, column) in known
            if max(row, column) > _PIXEL_SIZE_RATIO * min(row, column)
        ]
    )
    sizes = sorted((sum(size) / 2, source.name) for source, size in known)
    if sizes and sizes[-1][0] > _PIXEL_SIZE_RATIO * sizes[0][0]:
        yield Finding(
            "warning",
            f"pixel sizes differ: from {sizes[0][0]:g} nm ({sizes[0][1]}) to {sizes[-1][0]:g} nm "
            f"({sizes[-1][1]}); structures then differ in size; rescale the images if that matters",
        )


def _check_amount(
    sources: Sequence[ImageSource], crop: int, batch: int | None
) -> Iterator[Finding]:
    small = [source.name for source in sources if min(source.height, source.width) < crop]
    if small:
        yield Finding(
            "info", f"smaller than the crop of {crop} px, mirrored at the edges: {shortened(small)}"
        )
    crops = sum(
        source.n_planes * max(1, source.height // crop) * max(1, source.width // crop)
        for source in sources
    )
    if batch is not None and crops < batch:
        yield Finding(
            "warning",
            f"the images hold {crops} separate crops of {crop} px, fewer than the batch of "
            f"{batch}; take a smaller batch or crop, or add images",
        )


def _unknown(found: Sequence[tuple[ImageSource, Counter[int]]]) -> Finding:
    """Report values without a class that several labels share, with the number of pixels."""
    total = sum((unknown for _, unknown in found), Counter[int]())
    listing = shortened([f"{value} ({count} px)" for value, count in sorted(total.items())])
    advice = CLASS_ADVICE
    if len(total) > _FEW_STRANGERS:
        advice = (
            "so many come from saving as JPEG, from smoothing or resizing, or number objects; make "
            "labels with one value for every class, as TIFF or PNG"
        )
    return Finding(
        "error",
        f"values that no class has: {listing}; {advice}",
        tuple(labels for labels, _ in found),
    )


def _absent(
    counts: Counter[int], classes: Sequence[LabelClass], complete: bool
) -> Iterator[Finding]:
    absent = [item.name for item in classes if not counts[item.value]]
    if absent:
        otherwise = "" if complete else ", unless other planes have it"
        yield Finding(
            "warning",
            f"no pixel{_seen(complete)} has the class {shortened(absent)}; it cannot be learned"
            f"{otherwise}",
        )


def _seen(complete: bool) -> str:
    return "" if complete else " on the planes looked at"


def _check_values(
    counts: Counter[int],
    ignore_value: int | None,
    labels: Sequence[tuple[ImageSource, int]],
    complete: bool,
) -> Iterator[Finding]:
    """Judge the values of labels, each with a plane to look at."""
    values = set(counts) - {ignore_value}
    looked_at = [labels[number] for number in _spread_over(len(labels), _MOST_LOOKED_AT)]
    if len(values) > MOST_CLASSES or (
        looked_at and all(number_objects(_middle(*item), ignore_value) for item in looked_at)
    ):
        yield Finding(
            "warning",
            f"the labels hold {len(values)} values{_seen(complete)}; they look like numbered "
            "objects, not classes: give every class one value",
        )
    negative = sorted(value for value in values if value < 0)
    if negative:
        yield Finding("error", f"label values must be at least 0, found {negative[0]}; change them")


def _middle(labels: ImageSource, plane: int) -> NDArray[np.int64]:
    """Read the middle of a plane, or all of it if it is small."""
    rows, columns = (
        slice(max(0, (size - _SIDE) // 2), (size + _SIDE) // 2)
        for size in (labels.height, labels.width)
    )
    return read_labels(labels, plane, rows, columns)
