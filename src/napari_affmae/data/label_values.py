"""Which values labels hold, how often, and whether they are classes."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected

from napari_affmae.config import MOST_CLASSES
from napari_affmae.data.labels import read_labels
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.errors import DataError

_BAND_PIXELS, _TILE = 2**22, 256
_SMALL_VALUES = 2**16
_FEWEST_OBJECTS = 8
_ALONE = 0.9

# A value is loose if it lies beside itself less often than this.
_LOOSE = 0.5
_MANY_LOOSE = 8
_NEAR, _FAR = 4, 16
_PIECES = 1.5


def count_values(labels: ImageSource, planes: Iterable[int] | None = None) -> Counter[int]:
    """Count pixels by label value, over all planes or the given ones."""
    counts: Counter[int] = Counter()
    for plane in range(labels.n_planes) if planes is None else planes:
        for rows in _bands(labels):
            values, pixels = _counted(read_labels(labels, plane, rows))
            counts.update(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
    return counts


def labelled_planes(labels: ImageSource, ignore_value: int | None) -> list[int]:
    """List the planes that hold labels; these are all planes if no value is ignored.

    Raises
    ------
    UnreadableFileError
        If the file is damaged.
    """
    planes = range(labels.n_planes)
    if ignore_value is None:
        return list(planes)
    return [
        plane
        for plane in planes
        if any((read_labels(labels, plane, rows) != ignore_value).any() for rows in _bands(labels))
    ]


def class_values(labels: ImageSource, ignore_value: int | None) -> set[int]:
    """Return the values of labels, each of which is to be a class.

    Parameters
    ----------
    labels : ImageSource
        Looked through until there are too many values.
    ignore_value : int or None
        Label value that means not labelled; not among the result.

    Raises
    ------
    DataError
        If the values number objects, or are those of a grey image, or scatter as
        in a JPEG.
    TypeError
        If values are not whole numbers.
    UnreadableFileError
        If the file is damaged.
    """
    found: set[int] = set()
    most, fullest = 0, np.zeros((0, 0), np.int64)
    for block in _blocks(labels):
        values = set(_counted(block)[0].tolist())
        found |= values - {ignore_value}
        if len(values) > most:
            most, fullest = len(values), block
        if len(found) > MOST_CLASSES:
            break
    reason = _why_no_classes(fullest, found)
    if reason is not None:
        raise DataError(f"{labels.name}: {reason}")
    return found


def number_objects(values: NDArray[np.int64], ignore_value: int | None = None) -> bool:
    """Whether a plane looks as if values number objects, although they are few.

    Then nearly every value is one connected area, and there are several of them.

    Parameters
    ----------
    values : ndarray, (rows, columns), int64
        A plane of labels, or a part of it.
    ignore_value : int, optional
        Label value that means not labelled.
    """
    counts = _areas(values)
    del counts[0], counts[ignore_value]
    alone = sum(count == 1 for count in counts.values())
    return len(counts) >= _FEWEST_OBJECTS and alone >= _ALONE * len(counts)


def _areas(values: NDArray[np.int64]) -> Counter[int | None]:
    """Count the connected areas of each value."""
    areas = connected(values, background=-1, connectivity=1)
    # One pixel of each area, from which its value is known.
    _, first = np.unique(areas, return_index=True)
    return Counter(values.ravel()[first].tolist())


def _blocks(labels: ImageSource) -> Iterator[NDArray[np.int64]]:
    for plane in range(labels.n_planes):
        for rows in _bands(labels):
            yield read_labels(labels, plane, rows)


def _bands(labels: ImageSource) -> Iterator[slice]:
    """Divide a plane into bands that are small even as int64; the height fits most tiles."""
    height = max(1, _BAND_PIXELS // (_TILE * labels.width)) * _TILE
    for top in range(0, labels.height, height):
        yield slice(top, top + height)


def _counted(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the values that occur, and how often; small values need no sorting."""
    if values.min() >= 0 and values.max() < _SMALL_VALUES:
        pixels = np.bincount(values.ravel())
        occurring = np.flatnonzero(pixels)
        return occurring, pixels[occurring]
    return np.unique(values, return_counts=True)


def _why_no_classes(block: NDArray[np.int64], found: set[int]) -> str | None:
    """Say why values cannot be classes, from the block that holds most of them."""
    values, number = np.unique(block, return_inverse=True)
    number = number.reshape(block.shape)
    left, right = number[:, :-1], number[:, 1:]
    pixels = np.bincount(left.ravel(), minlength=len(values))
    beside_itself = np.bincount(left[left == right], minlength=len(values))
    is_loose = (pixels > 0) & (beside_itself < _LOOSE * pixels)
    loose, areas = values[is_loose], values[~is_loose]
    some = ", ".join(map(str, sorted(found)[:3]))
    many = len(found) > MOST_CLASSES
    if many and pixels[is_loose].sum() > _LOOSE * pixels.sum():
        return (
            f"it holds more than {MOST_CLASSES} values, such as {some}, which differ from pixel to "
            "pixel as in a grey image: are images and labels swapped?"
        )
    if _may_scatter(loose, areas) and _are_in_pieces(loose, block):
        return (
            f"its values scatter ({len(values)} of them, such as {some}), as after saving as JPEG, "
            "smoothing or resizing: make the labels anew from their source, as TIFF or PNG, and "
            "resize without interpolation"
        )
    if many:
        return (
            f"it holds more than {MOST_CLASSES} values, such as {some}: they look like numbered "
            "objects, not classes. Give every class one value; if they are classes, name them"
        )
    return None


def _may_scatter(loose: NDArray[np.int64], areas: NDArray[np.int64]) -> bool:
    """Whether values that seldom lie beside themselves may come from others by noise.

    Many may; of few, all must be close to the values of areas that are far apart.
    """
    if len(loose) >= _MANY_LOOSE:
        return bool(len(areas))
    if not len(loose) or len(areas) < 2 or np.ptp(areas) < _FAR:
        return False
    return bool((np.abs(loose[:, None] - areas).min(axis=1) <= _NEAR).all())


def _are_in_pieces(loose: NDArray[np.int64], block: NDArray[np.int64]) -> bool:
    """Whether values come in several areas each, unlike small objects."""
    counts = _areas(block)
    return sum(counts[value] for value in loose.tolist()) >= _PIECES * len(loose)
