"""Arrays that lie in a file as they are in memory, read piece by piece.

They are not mapped: where a mapped file shrinks, the system kills the process
that touches what is gone.
"""

import math
import os
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Where less than this lies between two rows, reading it costs less than another call.
_GAP = 2**15
# What is read at once for several rows, of which a window needs a part.
_SPAN = 2**19


class PositionedArray:
    """An array that a file holds uncompressed and in one piece.

    Several threads may read it at the same time.

    Parameters
    ----------
    path : Path
        The file, which stays open until `close`.
    dtype : numpy.dtype
        Of the elements, with their byte order.
    offset : int
        Byte of the file at which the array begins.
    shape : sequence of int
        Size of each axis, the last one fastest.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], offset: int, shape: Sequence[int]) -> None:
        self.dtype = dtype
        self.shape = tuple(int(size) for size in shape)
        self.offset = offset
        self._file = path.open("rb", buffering=0)
        self._seeking = Lock()
        sizes = [*self.shape[1:], 1]
        # Elements from one index of an axis to the next.
        self._strides = [math.prod(sizes[axis:]) for axis in range(len(self.shape))]

    def elsewhere(self, offset: int) -> "PositionedArray":
        """Return an array of the same shape and type at another byte of the same open file."""
        other = copy(self)
        other.offset = offset
        return other

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read by one integer or slice of step 1 for each axis.

        Raises
        ------
        ValueError
            If the file ends before the part that is asked for.
        """
        spans = [
            part.indices(size)[:2] if isinstance(part, slice) else (int(part), int(part) + 1)
            for part, size in zip(index, self.shape, strict=True)
        ]
        counts = [max(0, stop - start) for start, stop in spans]
        block = np.empty(counts, self.dtype)
        if block.size:
            self._fill(block, [start for start, _ in spans])
        return block[tuple(slice(None) if isinstance(part, slice) else 0 for part in index)]

    def _fill(self, block: NDArray[Any], starts: Sequence[int]) -> None:
        """Read the block that begins at these indices, one for each axis."""
        inner = len(self.shape) - 1  # a piece goes on to the end of all axes behind this one
        while inner > 0 and block.shape[inner] == self.shape[inner]:
            inner -= 1
        row_axis = max(0, inner - 1)
        rows = block.shape[row_axis] if inner else 1
        pieces = block.reshape(-1, rows, math.prod(block.shape[inner:]))
        first = _sum_of_products(starts, self._strides)
        for number, position in enumerate(np.ndindex(block.shape[:row_axis])):
            element = first + _sum_of_products(position, self._strides[:row_axis])
            self._fill_rows(pieces[number], element, self._strides[row_axis])

    def _fill_rows(self, rows: NDArray[Any], element: int, stride: int) -> None:
        """Read pieces that lie a stride of elements apart, the first at an element."""
        itemsize = self.dtype.itemsize
        count, length = rows.shape
        place = self.offset + element * itemsize
        if count == 1 or (stride - length) * itemsize > _GAP:
            for number, row in enumerate(rows):
                self._read(row, place + number * stride * itemsize)
            return
        at_once = max(1, _SPAN // (stride * itemsize))
        span = np.empty((min(count, at_once), stride), self.dtype)
        for start in range(0, count, at_once):
            some = rows[start : start + at_once]
            # The file may end where the last piece does.
            needed = span.reshape(-1)[: (len(some) - 1) * stride + length]
            self._read(needed, place + start * stride * itemsize)
            some[:] = span[: len(some), :length]

    def _read(self, array: NDArray[Any], place: int) -> None:
        buffer = array.view(np.uint8).data
        done = 0
        while done < len(buffer):
            count = self._read_once(buffer[done:], place + done)
            if not count:
                end = os.fstat(self._file.fileno()).st_size
                raise ValueError(
                    f"the file is cut short: {end} bytes of {place + len(buffer)} that are needed"
                )
            done += count

    def _read_once(self, buffer: memoryview, place: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [buffer], place)
        with self._seeking:  # Windows reads only where the file is
            self._file.seek(place)
            return self._file.readinto(buffer) or 0


def _sum_of_products(left: Sequence[int], right: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(left, right, strict=True))
