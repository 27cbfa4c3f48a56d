"""Label images: every value is a class, or means that a pixel is not labelled."""

import colorsys
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
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
_MOST_CHANNELS = 4  # red, green, blue and alpha
_LARGEST = 2**63 - 1


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


def check_channels(labels: ImageSource) -> None:
    """Check that labels have one channel, or those of a picture in colours.

    Whether the colours are grey, as of a mask that was saved in colours, is seen when
    they are read.

    Raises
    ------
    DataError
        If the labels have other channels.
    """
    may_be_colours = labels.n_channels <= _MOST_CHANNELS and labels.dtype.kind != "f"
    if labels.n_channels > 1 and not may_be_colours:
        raise _colours(labels)


def _colours(labels: ImageSource) -> DataError:
    return DataError(
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
        If their shapes differ or the labels have too many channels.
    """
    check_channels(labels)
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
    """Read label values; of a mask that was saved in colours, the equal channels are one.

    Returns
    -------
    ndarray, (rows, columns), int64

    Raises
    ------
    DataError
        If colours are not grey, or a value is too large for a class.
    TypeError
        If values are not whole numbers.
    UnreadableFileError
        If the file is damaged.
    """
    values = _one_channel(labels, labels.read(plane, rows, columns))
    is_whole = values.dtype.kind != "f" or (
        np.isfinite(values).all() and np.array_equal(values, np.rint(values))
    )
    if not is_whole:
        raise TypeError(
            f"plane {plane} of {labels.name} holds values that are not whole numbers; "
            "labels are integers, one for each class"
        )
    may_be_large = values.dtype.kind == "f" or values.dtype == np.uint64
    if may_be_large and values.size and values.max() > _LARGEST:
        raise DataError(
            f"plane {plane} of {labels.name} holds the value {int(values.max())}, which numbers "
            "an object and is no class; give every class one small value"
        )
    return values.astype(np.int64)


def _one_channel(labels: ImageSource, block: NDArray[Any]) -> NDArray[Any]:
    """Take the first channel of labels, if the other colours and the alpha say nothing else."""
    first: NDArray[Any] = block[0]
    if len(block) == 1:
        return first
    n_colours = 1 if len(block) == 2 else 3
    alpha = block[n_colours:]
    if (block[:n_colours] != first).any() or (alpha.size and (alpha != alpha.flat[0]).any()):
        raise _colours(labels)
    return first


class LabelEncoder:
    """Converts label values to class indices.

    Parameters
    ----------
    classes : sequence of LabelClass
        In the order of their indices.
    ignore_value : int or None
        The value of pixels that are not labelled.
    advice : str
        What to do about values that have no class, for messages.

    Raises
    ------
    ValueError
        If there are no classes, two share a value, or one has `ignore_value`.
    """

    def __init__(
        self,
        classes: Sequence[LabelClass],
        ignore_value: int | None,
        advice: str = CLASS_ADVICE,
    ) -> None:
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
        self._advice = advice

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
            f"{self._sorted.tolist()}; {self._advice}"
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
