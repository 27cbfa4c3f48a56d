"""Images as planes of (channel, row, column), read piece by piece."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from napari_affmae.config import LabelClass
from napari_affmae.data.sources.failures import failure
from napari_affmae.data.sources.layout import Layout, default_axes, parse_axes
from napari_affmae.errors import AffmaeError

PixelSize = tuple[float, float]
Content = Literal["image", "labels", "result"]

_FINGERPRINT_PLANES = 5
_FINGERPRINT_WINDOW = 64


class ArrayLike(Protocol):
    """What numpy, dask, zarr and HDF5 arrays share."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        ...

    @property
    def dtype(self) -> Any:
        """Type of the elements."""
        ...

    def __getitem__(self, index: Any) -> Any:
        """Read a part, by integers and slices."""
        ...


class ImageSource(ABC):
    """Planes of an image or stack, of which only the asked part is read.

    Parameters
    ----------
    name : str
        Name in messages.
    layout : Layout
        Shape and axes of the stored array.
    dtype : numpy.dtype
        Native dtype of the elements; booleans are read as uint8.
    path : Path, optional
        The file, if the source is one.
    files : sequence of Path
        All files, if there are several.
    pixel_size : (float, float), optional
        (row, column) in nanometres, where known.
    plane_distance : float, optional
        Nanometres from a plane to the next along the last of the axes that count
        planes, where known.
    channels : int or sequence of int, optional
        The channels to read, in this order; all by default.
    notes : sequence of str
        Choices made on opening that the user should know.
    classes : sequence of LabelClass
        What its values mean, where the file says that they are classes.
    content : "image", "labels" or "result"
        What the file's own metadata say that it is: labels, or a result of this
        program. "image" also where they say nothing.

    Raises
    ------
    TypeError
        If the elements are not real numbers.
    ValueError
        If `channels` names channels that are not there.
    """

    def __init__(
        self,
        name: str,
        layout: Layout,
        dtype: np.dtype[Any],
        *,
        path: Path | None = None,
        files: Sequence[Path] = (),
        pixel_size: PixelSize | None = None,
        plane_distance: float | None = None,
        channels: int | Sequence[int] | None = None,
        notes: Sequence[str] = (),
        classes: Sequence[LabelClass] = (),
        content: Content = "image",
    ) -> None:
        if dtype.kind not in "buif":
            raise TypeError(f"{name}: images of dtype {dtype} are not supported, only real numbers")
        self.name = name
        self.path = path
        self.files = tuple(files) or (() if path is None else (path,))
        self.layout = layout
        self.stored_dtype = dtype
        self.pixel_size = pixel_size
        self.plane_distance = plane_distance
        self.notes = tuple(notes)
        self.classes = tuple(classes)
        self.content = content
        self.channels = _choose_channels(channels, layout.n_channels, name)

    @property
    def whole(self) -> "ImageSource":
        """The source that this one was cut from by `window`, else itself."""
        return self

    @property
    def n_planes(self) -> int:
        """Number of planes."""
        return self.layout.n_planes

    @property
    def plane_shape(self) -> tuple[int, ...]:
        """Sizes of the axes that count planes; () for a single image."""
        return self.layout.plane_shape

    @property
    def height(self) -> int:
        """Rows of a plane."""
        return self.layout.height

    @property
    def width(self) -> int:
        """Columns of a plane."""
        return self.layout.width

    @property
    def n_channels(self) -> int:
        """Channels that are read."""
        return len(self.channels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what `read` gives."""
        if self.stored_dtype.kind == "b":
            return np.dtype(np.uint8)
        return self.stored_dtype.newbyteorder("=")

    @property
    def place(self) -> str:
        """What messages about damage call the source: its file, or its name."""
        return self.name if self.path is None else str(self.path)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name}: {self.n_planes} planes of "
            f"{self.height} x {self.width}, {self.n_channels} channels, {self.dtype}>"
        )

    def read(
        self, plane: int, rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[Any]:
        """Read a part of one plane.

        Parameters
        ----------
        plane : int
            From 0 to `n_planes` - 1.
        rows, columns : slice
            Of step 1; clipped to the plane as numpy does.

        Returns
        -------
        ndarray, (channels, rows, columns)
            A copy in the native dtype.

        Raises
        ------
        IndexError
            If there is no such plane.
        UnreadableFileError
            If the file, or what a lazy array is made from, is damaged there. A
            `FileAccessError` if the system does not give it.
        SystemLimitError
            If memory or open files run out.
        """
        plane, rows, columns = self._bounded(plane, rows, columns)
        try:
            block = self._fetch(self.layout.index(plane, rows, columns, self.channels))
            block = self.layout.arrange(block, self.channels)
            return np.array(block, dtype=self.dtype, order="C")
        except AffmaeError:
            raise
        except Exception as error:  # decoders and lazy arrays raise many kinds of errors
            raise failure(error, f"cannot read plane {plane} of {self.place}") from error

    def locate(self, plane: int, rows: slice, columns: slice) -> tuple[int, slice, slice]:
        """Convert a part of a plane to a part of `whole`; arguments as in `read`."""
        return self._bounded(plane, rows, columns)

    def _bounded(self, plane: int, rows: slice, columns: slice) -> tuple[int, slice, slice]:
        if not 0 <= plane < self.n_planes:
            raise IndexError(f"{self.name} has planes 0 to {self.n_planes - 1}, asked for {plane}")
        return plane, bounded(rows, self.height), bounded(columns, self.width)

    @abstractmethod
    def _fetch(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read the stored array at a basic index; may raise any kind of error."""

    def stored_parts(self, most: int) -> list[tuple[int, slice, slice]] | None:  # noqa: ARG002
        """List parts that are stored, of a file that stores only what is not empty.

        Parameters
        ----------
        most : int
            So many at most.

        Returns
        -------
        list of (int, slice, slice), or None
            Planes, rows and columns; there may be others if there are `most`. None
            where it is not known what is stored.

        Raises
        ------
        UnreadableFileError
            If the file cannot be read.
        """
        return None

    def fingerprint(self) -> str:
        """Return a hash that identifies the content, wherever it is stored.

        Hashes the shape, the dtype and small windows on a few planes, so it is
        cheap on any size and equal for a file, its copy and its array.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        digest.update(repr((self.n_planes, self.n_channels, self.height, self.width)).encode())
        digest.update(self.dtype.str.encode())
        for plane in spread(self.n_planes, _FINGERPRINT_PLANES):
            for fraction in (0.0, 0.5, 1.0):
                rows = _window(self.height, fraction)
                columns = _window(self.width, fraction)
                digest.update(self.read(plane, rows, columns).tobytes())
        return digest.hexdigest()[:32]

    def revision(self, plane: int) -> int:  # noqa: ARG002 - what is stored has one revision
        """Return how often a plane has changed since the source was opened.

        Parameters
        ----------
        plane : int
            From 0 to `n_planes` - 1.

        Returns
        -------
        int
            0 for files and arrays, which do not change. A source whose planes
            are edited counts up after each edit of a plane; training asks
            before every batch and from several threads, so this must be cheap.
        """
        return 0

    def changed_since(self, plane: int, revision: int) -> tuple[slice, slice] | None:
        """Say which part of a plane has changed since a revision of it.

        Parameters
        ----------
        plane : int
            From 0 to `n_planes` - 1.
        revision : int
            From `revision`, asked before.

        Returns
        -------
        tuple of slice, or None
            Rows and columns that hold every change; the whole plane where it is
            not known better. None where nothing has changed.
        """
        if self.revision(plane) == revision:
            return None
        return slice(0, self.height), slice(0, self.width)

    @property
    def editable(self) -> bool:
        """Whether planes may change, so that the source counts revisions."""
        return type(self).revision is not ImageSource.revision

    def close(self) -> None:  # noqa: B027 - nothing to close is common
        """Close open files; reading opens them again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class ArraySource(ImageSource):
    """Planes of an array in memory, of dask, or of zarr."""

    def __init__(
        self,
        array: ArrayLike,
        *,
        axes: str | None = None,
        channels: int | Sequence[int] | None = None,
        name: str | None = None,
        pixel_size: PixelSize | None = None,
    ) -> None:
        name = "array" if name is None else name
        shape = tuple(int(size) for size in array.shape)
        letters = (
            default_axes(shape, array.dtype) if axes is None else parse_axes(axes, shape, name)
        )
        super().__init__(
            name,
            Layout(shape, letters),
            np.dtype(array.dtype),
            pixel_size=pixel_size,
            channels=channels,
        )
        self._array = array

    def _fetch(self, index: tuple[Any, ...]) -> NDArray[Any]:
        return np.asarray(self._array[index])


def spread(total: int, count: int) -> list[int]:
    """At most `count` integers from 0 to `total` - 1, evenly spread, ends included."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))})


def _window(size: int, fraction: float) -> slice:
    start = round(fraction * max(0, size - _FINGERPRINT_WINDOW))
    return slice(start, start + _FINGERPRINT_WINDOW)


def bounded(part: slice, size: int) -> slice:
    """Clip a slice to an axis, as numpy does.

    Raises
    ------
    ValueError
        If its step is not 1.
    """
    start, stop, step = part.indices(size)
    if step != 1:
        raise ValueError(f"only slices of step 1 can be read, got step {step}")
    return slice(start, max(start, stop))


def shifted(part: slice, offset: int) -> slice:
    """Move a slice by `offset`."""
    return slice(part.start + offset, part.stop + offset)


def _choose_channels(
    channels: int | Sequence[int] | None, available: int, name: str
) -> tuple[int, ...]:
    if channels is None:
        return tuple(range(available))
    chosen = (channels,) if isinstance(channels, int) else tuple(channels)
    if not chosen or any(not 0 <= channel < available for channel in chosen):
        raise ValueError(f"{name} has channels 0 to {available - 1}, asked for {list(chosen)}")
    return chosen
