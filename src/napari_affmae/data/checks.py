"""Looks at images and labels before a run, for what would spoil it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import LabelClass
from napari_affmae.data.appearance import bar_height, membranes
from napari_affmae.data.labels import LabelEncoder, check_shapes, count_values
from napari_affmae.data.sources.source import ImageSource, spread
from napari_affmae.errors import AffmaeError, UnreadableFileError

Level = Literal["info", "warning", "error"]

_PLANES_LOOKED_AT = 16
_BAR_PLANES = 4
_BAR_COLUMNS = 2048
_WINDOW = 512
_WINDOWS_AXIS = 4
_PIXEL_SIZE_RATIO = 1.5
_MOST_CLASSES = 64
_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """Something that a check found.

    Attributes
    ----------
    level : "info", "warning" or "error"
        With an error, the source cannot be used as it is.
    message : str
        What is wrong, where, and what to do; does not name `sources`.
    sources : tuple of ImageSource
        What it is about; none where it compares several, and names them.
    """

    level: Level
    message: str
    sources: tuple[ImageSource, ...] = ()

    @property
    def source(self) -> str | None:
        """Names of the sources that it is about, to be shown before the message."""
        return _names([source.name for source in self.sources]) or None


def check_sources(
    sources: Sequence[ImageSource], *, crop: int | None = None, batch: int | None = None
) -> list[Finding]:
    """Look for what would spoil training on images.

    Only some planes of a stack are read, and windows of large planes.

    Parameters
    ----------
    sources : sequence of ImageSource
        The images.
    crop, batch : int, optional
        Side of a crop and crops of a step, to tell whether the images are enough.

    Returns
    -------
    list of Finding
        Unreadable files are among them as errors. What is found alike of several
        images is one finding.
    """
    findings: list[Finding] = []
    readable: list[ImageSource] = []
    for source in sources:
        of_source = _guarded(_check_source, source)
        findings += [Finding("info", note, (source,)) for note in source.notes]
        findings += of_source
        if not any(finding.level == "error" for finding in of_source):
            readable.append(source)
    findings = _merged(findings)
    findings += _check_contrast(readable)
    findings += _check_pixel_sizes(readable)
    if crop is not None:
        findings += _check_amount(sources, crop, batch)
    return findings


def check_pairs(
    pairs: Sequence[tuple[ImageSource, ImageSource]],
    *,
    classes: Sequence[LabelClass] = (),
    ignore_value: int | None = None,
    crop: int | None = None,
    batch: int | None = None,
) -> list[Finding]:
    """Look for what would spoil training on images with labels.

    Parameters
    ----------
    pairs : sequence of (ImageSource, ImageSource)
        Images and their labels.
    classes : sequence of LabelClass, optional
        Without them, values are not compared with classes.
    ignore_value : int, optional
        Label value that means not labelled.
    crop, batch : int, optional
        As for `check_sources`.

    Returns
    -------
    list of Finding
        Those of the images, then those of the labels.
    """
    findings = check_sources([image for image, _ in pairs], crop=crop, batch=batch)
    of_labels: list[Finding] = []
    strangers: dict[frozenset[int], list[tuple[ImageSource, Counter[int]]]] = {}
    counts: Counter[int] = Counter()
    complete = True
    for image, labels in pairs:
        looked_at = spread(labels.n_planes, _PLANES_LOOKED_AT)
        complete &= len(looked_at) == labels.n_planes
        try:
            check_shapes(image, labels)
            of_pair = count_values(labels, looked_at)
        except UnreadableFileError as error:
            of_labels.append(Finding("error", str(error), (labels,)))
            continue
        except (AffmaeError, TypeError) as error:  # these name the labels
            of_labels.append(Finding("error", str(error)))
            continue
        counts += of_pair
        if classes and (unknown := LabelEncoder(classes, ignore_value).unknown(of_pair)):
            strangers.setdefault(frozenset(unknown), []).append((labels, unknown))
        if ignore_value is not None and set(of_pair) <= {ignore_value}:
            of_labels.append(Finding("warning", "no labelled pixel was seen", (labels,)))
    findings += _merged(of_labels)
    findings += map(_unknown, strangers.values())
    findings += _check_classes(counts, classes, ignore_value, complete)
    return findings


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """Make one of findings that say the same of several sources."""
    alike: dict[tuple[Level, str], list[ImageSource]] = {}
    for finding in findings:
        alike.setdefault((finding.level, finding.message), []).extend(finding.sources)
    return [Finding(*said, tuple(sources)) for said, sources in alike.items()]


def _guarded(
    check: Callable[[ImageSource], Iterator[Finding]], source: ImageSource
) -> list[Finding]:
    try:
        return list(check(source))
    except AffmaeError as error:
        return [Finding("error", str(error), (source,))]


def _check_source(source: ImageSource) -> Iterator[Finding]:
    about = (source,)
    constant, not_finite, no_value = [], [], []
    grey = source.n_channels > 1
    looked_at = spread(source.n_planes, _PLANES_LOOKED_AT)
    for plane in looked_at:
        pixels = _look(source, plane)
        finite = np.isfinite(pixels)
        if not finite.any():
            no_value.append(plane)
            continue
        if not finite.all():
            not_finite.append(plane)
        if _is_constant(pixels[finite]):
            constant.append(plane)
        grey = grey and bool((pixels[:3] == pixels[:1]).all())
    if len(no_value) == len(looked_at):
        yield Finding("error", "no pixel has a finite value, nothing can be learned from it", about)
        return
    not_finite += no_value
    if constant == looked_at:
        yield Finding("error", "all of one single value, nothing can be learned from it", about)
    elif constant:
        yield Finding(
            "warning", f"{_planes(constant, source)} of one single value; leave such out", about
        )
    if not_finite:
        where = _planes(not_finite, source)
        yield Finding(
            "warning", f"NaN or infinite values in {where}; they are read as the mean", about
        )
    if grey:
        yield Finding(
            "warning", "colour channels are equal; choose channel 0 to read it as grey", about
        )
    yield from _check_bar(source)


def _look(source: ImageSource, plane: int) -> NDArray[Any]:
    """Pixels of a plane, (channels, n): all, or a grid of windows of a large plane."""
    starts = []
    for size in (source.height, source.width):
        count = min(_WINDOWS_AXIS, -(-size // _WINDOW))
        starts.append(np.linspace(0, max(0, size - _WINDOW), count).astype(int))
    return np.concatenate(
        [
            source.read(
                plane, slice(int(top), int(top) + _WINDOW), slice(int(left), int(left) + _WINDOW)
            ).reshape(source.n_channels, -1)
            for top in starts[0]
            for left in starts[1]
        ],
        axis=1,
    )


def _is_constant(pixels: NDArray[Any]) -> bool:
    return bool(pixels.min() == pixels.max())  # their difference may overflow


def _planes(planes: Sequence[int], source: ImageSource) -> str:
    """Words for planes, or for the image if it has only one."""
    if source.n_planes == 1:
        return "the image"
    named = ", ".join(map(str, sorted(planes)[:_NAMED]))
    more = f" and {len(planes) - _NAMED} more" if len(planes) > _NAMED else ""
    return f"plane{'s' if len(planes) > 1 else ''} {named}{more}"


def _check_bar(source: ImageSource) -> Iterator[Finding]:
    bars = []
    for plane in spread(source.n_planes, _BAR_PLANES):
        lower_half = slice(source.height // 2, None)
        bottom = source.read(plane, lower_half, slice(0, _BAR_COLUMNS))[0]
        if np.isfinite(bottom).all() and not _is_constant(bottom):
            bars.append((bar_height(bottom), plane))
    height, plane = max(bars, default=(0, 0))
    if height:
        place = _planes([plane], source)
        yield Finding(
            "warning",
            f"the bottom {height} rows of {place} look like an information bar "
            "or an empty band; crop them off, or the network learns them",
            (source,),
        )


def _check_contrast(sources: Sequence[ImageSource]) -> Iterator[Finding]:
    kinds = {kind: list[str]() for kind in ("dark", "bright", "unclear")}
    for source in sources:
        kinds[membranes(source)].append(source.name)
    if kinds["dark"] and kinds["bright"]:
        fewer, more = sorted((kinds["dark"], kinds["bright"]), key=len)
        looks = "dark" if fewer is kinds["dark"] else "bright"
        yield Finding(
            "warning",
            f"membranes look {looks} in {_names(fewer)}, unlike in {len(more)} others; "
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
            f"({sizes[-1][1]}); structures then differ in size, rescale where that matters",
        )


def _check_amount(
    sources: Sequence[ImageSource], crop: int, batch: int | None
) -> Iterator[Finding]:
    small = [source.name for source in sources if min(source.height, source.width) < crop]
    if small:
        yield Finding(
            "info", f"smaller than the crop of {crop} px, so mirrored at edges: {_names(small)}"
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
    """Tell of values without a class, the same in several labels, with all their pixels."""
    total = sum((unknown for _, unknown in found), Counter[int]())
    listing = _names([f"{value} ({count} px)" for value, count in sorted(total.items())])
    return Finding(
        "error",
        f"values that no class has: {listing}; add classes for them (--class), "
        "or make one the value of what is not labelled (--ignore-value)",
        tuple(labels for labels, _ in found),
    )


def _check_classes(
    counts: Counter[int],
    classes: Sequence[LabelClass],
    ignore_value: int | None,
    complete: bool,
) -> Iterator[Finding]:
    seen = "" if complete else " on the planes looked at"
    absent = [item.name for item in classes if not counts[item.value]]
    if absent:
        yield Finding(
            "warning", f"no pixel{seen} has the class {_names(absent)}; it cannot be learned"
        )
    values = set(counts) - {ignore_value}
    if not classes and len(values) > _MOST_CLASSES:
        yield Finding(
            "warning",
            f"the labels hold {len(values)} values{seen}; they look like numbered objects, "
            "not classes: give every class one value",
        )
    negative = sorted(value for value in values if value < 0)
    if negative:
        yield Finding("error", f"label values must be at least 0, found {negative[0]}; change them")


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
