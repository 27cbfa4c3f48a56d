"""Label images: every value is a class, or means that a pixel is not labelled."""

import colorsys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import IGNORE_INDEX, LabelClass
from napari_affmae.data.normalization.normalization import NormalizedSource
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.errors import DataError, UnreadableFileError, UnreadablePairError

CLASS_ADVICE = "add classes for them, or make one of them the value of what is not labelled"

_GOLDEN_RATIO = 0.618034
_BAND_PIXELS, _TILE = 2**22, 256
_SMALL_VALUES = 2**16


@dataclass(frozen=True)
class LabelledPair:
    """An image and its labels, which have the same number of planes and size.

    Raises
    ------
    DataError
        If their shapes differ or the labels have several channels.
    """

    image: NormalizedSource
    labels: ImageSource

    def __post_init__(self) -> None:
        check_shapes(self.image.source, self.labels)


def check_single_channel(labels: ImageSource) -> None:
    """Check that label values are integers and not colours.

    Raises
    ------
    DataError
        If the labels have several channels.
    """
    if labels.n_channels != 1:
        raise DataError(
            f"{labels.name} has {labels.n_channels} channels; labels are one integer a pixel, "
            "not colours: convert it, or name its axes if the channels are planes"
        )


@contextmanager
def naming_pair(image: object, labels: object) -> Generator[None, None, None]:
    """Add the names of an image and its labels to the error if one of them cannot be read.

    Parameters
    ----------
    image, labels : object
        Their names or paths.

    Raises
    ------
    UnreadablePairError
        For an `UnreadableFileError` in the context.
    """
    try:
        yield
    except UnreadablePairError:
        raise
    except UnreadableFileError as error:
        raise UnreadablePairError(f"the pair {image} and {labels}: {error}") from error


def check_shapes(image: ImageSource, labels: ImageSource) -> None:
    """Check that an image and its labels fit each other.

    Raises
    ------
    DataError
        If their shapes differ or the labels have several channels.
    """
    check_single_channel(labels)
    sizes = [(source.n_planes, source.height, source.width) for source in (image, labels)]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"{image.name} has (planes, rows, columns) {sizes[0]}, its labels {labels.name} "
            f"have {sizes[1]}; they must be the same"
        )


def read_labels(
    labels: ImageSource,
    plane: int,
    rows: slice = slice(None),
    columns: slice = slice(None),
) -> NDArray[np.int64]:
    """Read label values.

    Returns
    -------
    ndarray, (rows, columns), int64

    Raises
    ------
    TypeError
        If values are not whole numbers.
    UnreadableFileError
        If the file is damaged.
    """
    values: NDArray[Any] = labels.read(plane, rows, columns)[0]
    is_whole = values.dtype.kind != "f" or (
        np.isfinite(values).all() and np.array_equal(values, np.rint(values))
    )
    if not is_whole:
        raise TypeError(
            f"plane {plane} of {labels.name} holds values that are not whole numbers; "
            "labels are integers, one for each class"
        )
    return values.astype(np.int64)


def count_values(labels: ImageSource, planes: Iterable[int] | None = None) -> Counter[int]:
    """Count pixels by label value, over all planes or the given ones."""
    counts: Counter[int] = Counter()
    for plane in range(labels.n_planes) if planes is None else planes:
        for rows in _bands(labels):
            values, pixels = _counted(read_labels(labels, plane, rows))
            counts.update(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
    return counts


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


def labelled_planes(labels: ImageSource, ignore_value: int | None) -> list[int]:
    """List the planes that hold labels; these are all planes if no value is ignored.

    Raises
    ------
    UnreadableFileError
        If the file is damaged.
    """
    if ignore_value is None:
        return list(range(labels.n_planes))
    planes = range(labels.n_planes)
    return [plane for plane in planes if (labels.read(plane) != ignore_value).any()]


class LabelEncoder:
    """Converts label values to class indices.

    Parameters
    ----------
    classes : sequence of LabelClass
        In the order of their indices.
    ignore_value : int or None
        The value of pixels that are not labelled.

    Raises
    ------
    ValueError
        If there are no classes, two share a value, or one has `ignore_value`.
    """

    def __init__(self, classes: Sequence[LabelClass], ignore_value: int | None) -> None:
        values = [item.value for item in classes]
        if not values:
            raise ValueError("there must be at least one class")
        if len(set(values)) != len(values):
            raise ValueError(f"class values must differ, got {values}")
        if ignore_value in values:
            raise ValueError(f"value {ignore_value} cannot be a class and mean not labelled")
        self._order = np.argsort(values)
        self._sorted = np.asarray(values, dtype=np.int64)[self._order]
        self._ignore = ignore_value

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self._sorted)

    def encode(self, values: NDArray[np.int64], name: str) -> NDArray[np.int64]:
        """Return the class index of every value, `IGNORE_INDEX` where not labelled.

        Raises
        ------
        DataError
            If a value has no class; the message begins with `name`.
        """
        indices, strange = self._encode(values)
        if strange.any():
            self.complain(Counter(values[strange].tolist()), name)
        return indices

    def encode_known(self, values: NDArray[np.int64]) -> tuple[NDArray[np.int64], set[int]]:
        """Return the class index of every value, `IGNORE_INDEX` also for values without a class.

        Returns
        -------
        indices : ndarray
            int64, of the same shape as `values`.
        unknown : set of int
            The values that have no class.
        """
        indices, strange = self._encode(values)
        return indices, set(values[strange].tolist())

    def _encode(self, values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return class indices, and where values are neither a class nor the ignored one."""
        position = np.searchsorted(self._sorted, values).clip(max=self.n_classes - 1)
        indices: NDArray[np.int64] = self._order[position].astype(np.int64)
        indices[self._sorted[position] != values] = IGNORE_INDEX
        strange: NDArray[np.bool_] = indices == IGNORE_INDEX
        if self._ignore is not None:
            strange &= values != self._ignore
        return indices, strange

    def unknown(self, counts: Counter[int]) -> Counter[int]:
        """Keep the values, with their counts, that have no class."""
        known = {*self._sorted.tolist(), self._ignore}
        return Counter({value: count for value, count in counts.items() if value not in known})

    def complain(self, unknown: Counter[int], name: str) -> None:
        """Raise a `DataError` about values without a class."""
        listing = ", ".join(f"{value} ({count} px)" for value, count in sorted(unknown.items())[:8])
        raise DataError(
            f"{name} holds values that no class has: {listing}; the classes have "
            f"{self._sorted.tolist()}; {CLASS_ADVICE}"
        )


def default_classes(values: Iterable[int]) -> tuple[LabelClass, ...]:
    """Make classes for label values, with distinct colours; 0 is named background.

    Parameters
    ----------
    values : iterable of int
        Each at least 0.

    Raises
    ------
    ValueError
        If a value is negative or there is none.
    """
    ordered = sorted(set(values))
    if not ordered or ordered[0] < 0:
        raise ValueError(f"class values must be at least 0, got {ordered}")
    return tuple(default_class(value, index) for index, value in enumerate(ordered))


def proposed_classes(
    values: Iterable[int], labels: Iterable[ImageSource]
) -> tuple[LabelClass, ...]:
    """Make classes for label values, named and coloured as the labels' files say.

    Where files contradict each other the first one counts; if two classes would have the
    same name, all have default names and colours.

    Parameters
    ----------
    values : iterable of int
        Each at least 0.
    labels : iterable of ImageSource
        The labels that the values were found in.

    Raises
    ------
    ValueError
        If a value is negative or there is none.
    """
    stored: dict[int, LabelClass] = {}
    for source in labels:
        for item in source.classes:
            stored.setdefault(item.value, item)
    defaults = default_classes(values)
    proposed = [stored.get(item.value, item) for item in defaults]
    return tuple(proposed) if len({item.name for item in proposed}) == len(proposed) else defaults


def default_class(value: int, index: int | None = None) -> LabelClass:
    """Make a class for a label value; `index` chooses its colour, by default the value."""
    name = "background" if value == 0 else f"class {value}"
    return LabelClass(value=value, name=name, color=_color(value if index is None else index))


def _color(index: int) -> str:
    """Grey for the first, then hues a golden-ratio step apart."""
    hue = (0.02 + index * _GOLDEN_RATIO) % 1
    saturation, value = (0.75, 0.95) if index else (0.0, 0.35)
    return "#" + "".join(
        f"{round(c * 255):02x}" for c in colorsys.hsv_to_rgb(hue, saturation, value)
    )
