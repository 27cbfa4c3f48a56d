"""Pixels that a file holds one after the other, as they are or compressed as one stream."""

import bz2
import gzip
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from napari_affmae.data.formats.arrays.positioned import PositionedArray
from napari_affmae.data.formats.arrays.whole import WholeImage
from napari_affmae.data.formats.files.handles import OpenFile

_DECOMPRESSORS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
}


def compression_of(path: Path) -> str | None:
    """Return the ending of a name that says how the file is compressed; None if it is not."""
    ending = path.suffix.lower()
    return ending if ending in _DECOMPRESSORS else None


def read_head(path: Path, size: int) -> bytes:
    """Read the first bytes of a file, or of what is compressed in it."""
    with path.open("rb") as file, closing(_stream(file, compression_of(path))) as stream:
        return stream.read(size)


def opened_pixels(
    path: Path,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    *,
    start: int = 0,
    skipped: int = 0,
    compression: str | None = None,
) -> OpenFile:
    """Open an array that lies in a file in one piece, the last axis fastest.

    Without compression, only the rows that are asked for are read.

    Parameters
    ----------
    path : Path
        The file.
    shape, dtype
        Of the array.
    start : int
        Byte of the file at which the stream begins.
    skipped : int
        Bytes of the stream before the array.
    compression : str, optional
        Of the stream, as `compression_of` names it.

    Raises
    ------
    ValueError
        If the file is too short, or a compressed array too large to be decoded.
    """
    if compression is None:
        offset, size = start + skipped, path.stat().st_size
        end = offset + math.prod(shape) * dtype.itemsize
        if size < end:
            raise ValueError(f"the file is cut short: {size} bytes of {end}")
        array = PositionedArray(path, dtype, offset, shape)
        return OpenFile(array, close=array.close)

    return _CompressedImage(path, shape, dtype, start, skipped, compression).opened()


class _CompressedImage(WholeImage):
    """An array in a compressed stream; parameters are those of `opened_pixels`."""

    def __init__(
        self,
        path: Path,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        start: int,
        skipped: int,
        compression: str,
    ) -> None:
        super().__init__(shape, dtype)
        self._path = path
        self._start, self._skipped = start, skipped
        self._compression = compression

    def _decode(self) -> NDArray[Any]:
        with self._path.open("rb") as file:
            file.seek(self._start)
            with closing(_stream(file, self._compression)) as stream:
                return _read_array(stream, self.shape, self.dtype, self._skipped)


def _stream(file: BinaryIO, compression: str | None) -> BinaryIO:
    """Return what a stream holds that begins where the file is."""
    return file if compression is None else cast(BinaryIO, _DECOMPRESSORS[compression](file))


def _read_array(
    stream: BinaryIO, shape: Sequence[int], dtype: np.dtype[Any], skipped: int
) -> NDArray[Any]:
    """Read an array and no more, however much the stream holds."""
    stream.seek(skipped)
    array = np.empty(shape, dtype)
    buffer = array.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(buffer):
        count = stream.readinto(buffer[done:])  # type: ignore[attr-defined]
        if not count:
            raise ValueError(f"the file is cut short: its image has {done} bytes of {len(buffer)}")
        done += count
    return array
