"""A cache of decoded planes, for formats that can only decode a whole plane."""

import math
from collections.abc import Callable, Iterator, Sequence
from threading import Condition
from typing import Any, Protocol, runtime_checkable

import numpy as np
from cachetools import LRUCache, cached
from numpy.typing import NDArray

from napari_affmae.data.formats.files.handles import OpenFile, Part, nothing
from napari_affmae.data.formats.files.pieces import check_piece
from napari_affmae.data.sources.source import ArrayLike, PixelSize

_SMALL = 2**18
_SIZE = 2**27


class ChunkedArray(ArrayLike, Protocol):
    """What zarr and chunked HDF5 arrays share."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """Size of a chunk along each axis."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded array."""
        ...


@runtime_checkable
class SparseArray(Protocol):
    """An array that knows which of its chunks are stored."""

    def stored_chunks(self) -> Iterator[Part]:
        """List chunks that are stored, by a slice for each axis."""
        ...


def opened_chunks(
    array: ChunkedArray,
    axes: str | None = None,
    pixel_size: PixelSize | None = None,
    close: Callable[[], None] = nothing,
    notes: Sequence[str] = (),
) -> OpenFile:
    """Open a chunked array, with a cache if its chunks are large planes.

    Raises
    ------
    ValueError
        If its chunks are too large to be decoded.
    """
    check_piece(array.chunks, array.dtype, "each of its chunks")
    stored = array.stored_chunks if isinstance(array, SparseArray) else None
    if not KeptChunks.worthwhile(array):
        return OpenFile(array, axes, pixel_size, close, notes, stored=stored)
    kept = KeptChunks(array)
    return OpenFile(kept, axes, pixel_size, close, notes, resident=kept.resident, stored=stored)


class KeptChunks:
    """An array with large chunks, which keeps the decoded chunks that were read last.

    If an image is compressed as one piece, every crop would decode the whole image. A
    piece that several threads need is decoded by the first, and the others wait.

    Parameters
    ----------
    array : ChunkedArray
        The array.
    size : int
        Bytes to keep; a larger piece is kept alone.
    """

    def __init__(self, array: ChunkedArray, size: int = _SIZE) -> None:
        self._array = array
        self._size = size
        kept: LRUCache[Any, NDArray[Any]] = LRUCache(size, lambda piece: min(piece.nbytes, size))
        self._piece = cached(kept, key=_key, condition=Condition())(
            lambda index: np.asarray(array[index])
        )
        self._whole = [
            chunk >= size > 1 for size, chunk in zip(array.shape, array.chunks, strict=True)
        ]

    @classmethod
    def worthwhile(cls, array: ChunkedArray) -> bool:
        """Whether every chunk is a whole plane, and large."""
        is_plane = all(
            chunk == 1 or chunk >= size
            for chunk, size in zip(array.chunks, array.shape, strict=True)
        )
        return is_plane and math.prod(array.chunks) * array.dtype.itemsize >= _SMALL

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        dtype: np.dtype[Any] = np.dtype(self._array.dtype)
        return dtype

    @property
    def resident(self) -> int:
        """Bytes that may be kept."""
        piece = math.prod(self._array.chunks) * self.dtype.itemsize
        return min(int(self._array.nbytes), max(self._size, piece))

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read by one integer or slice for each axis."""
        widened = tuple(
            slice(None) if whole and isinstance(part, slice) else part
            for part, whole in zip(index, self._whole, strict=True)
        )
        piece = self._piece(widened)
        within = tuple(
            part if whole else slice(None)
            for part, whole in zip(index, self._whole, strict=True)
            if isinstance(part, slice)
        )
        return piece[within]


def _key(index: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make an index hashable, which slices are not before Python 3.12."""
    return tuple((part.start, part.stop) if isinstance(part, slice) else part for part in index)
