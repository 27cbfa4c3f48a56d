"""Arrays that show others in another way: in other axes, types or pieces.

All are read by one integer or slice of step 1 for each axis, as `OpenFile` says.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_affmae.data.sources.source import ArrayLike, bounded


class Reversed:
    """An array with its axes in reverse order, as files say that count the fastest axis first."""

    def __init__(self, array: ArrayLike) -> None:
        self._array = array
        self.shape = tuple(array.shape)[::-1]
        self.dtype = np.dtype(array.dtype)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read a part."""
        return np.asarray(self._array[index[::-1]]).transpose()


class UpsideDown:
    """An array with the rows of its last two axes in reverse order."""

    def __init__(self, array: ArrayLike) -> None:
        self._array = array
        self.shape = tuple(array.shape)
        self.dtype = np.dtype(array.dtype)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read a part."""
        *others, row, column = index
        height = self.shape[-2]
        if not isinstance(row, slice):
            return np.asarray(self._array[*others, height - 1 - int(row), column])
        wanted = bounded(row, height)
        stored = slice(height - wanted.stop, height - wanted.start)
        part = np.asarray(self._array[*others, stored, column])
        return np.flip(part, axis=-2 if isinstance(column, slice) else -1)


class Reinterpreted:
    """An array whose bytes mean another type of the same size."""

    def __init__(self, array: ArrayLike, dtype: DTypeLike) -> None:
        self._array = array
        self.shape = tuple(array.shape)
        self.dtype = np.dtype(dtype).newbyteorder(np.dtype(array.dtype).byteorder)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read a part."""
        return np.asarray(self._array[index]).view(self.dtype)


class Scaled:
    """An array whose values are stored as others, times a factor and plus an offset."""

    def __init__(self, array: ArrayLike, factor: float, offset: float) -> None:
        self._array = array
        self._factor, self._offset = factor, offset
        self.shape = tuple(array.shape)
        self.dtype = np.result_type(np.dtype(array.dtype), np.float32)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read a part."""
        values = np.asarray(self._array[index]).astype(self.dtype)
        values *= self._factor
        values += self._offset
        return values


class Nibbles:
    """Numbers of four bits, two a byte along the last axis, the lower bits first.

    Parameters
    ----------
    array : array of uint8
        Each row of the last axis begins with a byte of its own.
    width : int
        Numbers in a row, at most twice its bytes.
    """

    def __init__(self, array: ArrayLike, width: int) -> None:
        self._array = array
        self.shape = (*array.shape[:-1], width)
        self.dtype = np.dtype(np.uint8)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read a part."""
        *others, last = index
        if not isinstance(last, slice):
            packed = np.asarray(self._array[*others, int(last) // 2])
            return packed >> 4 if int(last) % 2 else packed & 15
        wanted = bounded(last, self.shape[-1])
        packed = np.asarray(self._array[*others, slice(wanted.start // 2, -(-wanted.stop // 2))])
        values = np.stack([packed & 15, packed >> 4], axis=-1)
        values = values.reshape(*packed.shape[:-1], -1)
        first = wanted.start % 2
        return values[..., first : first + wanted.stop - wanted.start]


class Cropped:
    """The beginning of an array along each axis, without the padding behind it."""

    def __init__(self, array: ArrayLike, shape: Sequence[int]) -> None:
        if any(mine > its for mine, its in zip(shape, array.shape, strict=True)):
            raise ValueError(f"its image of shape {tuple(shape)} is stored as {array.shape}")
        self._array = array
        self.shape = tuple(shape)
        self.dtype = np.dtype(array.dtype)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read a part."""
        parts = (
            bounded(part, size) if isinstance(part, slice) else part
            for part, size in zip(index, self.shape, strict=True)
        )
        return np.asarray(self._array[tuple(parts)])


class Stacked:
    """Arrays of the same shape, seen as one with more axes before theirs.

    Parameters
    ----------
    arrays : sequence of arrays
        All of one shape and type, the last of the new axes fastest.
    leading : sequence of int
        Sizes of the new axes.

    Raises
    ------
    ValueError
        If the arrays differ, or are not as many as the axes say.
    """

    def __init__(self, arrays: Sequence[ArrayLike], leading: Sequence[int]) -> None:
        kinds = {(tuple(array.shape), np.dtype(array.dtype)) for array in arrays}
        if len(kinds) != 1 or len(arrays) != math.prod(leading):
            raise ValueError(
                f"its {len(arrays)} parts differ in shape or type, or some are missing"
            )
        (inner, self.dtype) = kinds.pop()
        self._arrays = arrays
        self._leading = tuple(leading)
        self.shape = (*self._leading, *inner)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read a part."""
        count = len(self._leading)
        numbers = np.arange(len(self._arrays)).reshape(self._leading)[index[:count]]
        parts = [
            np.asarray(self._arrays[int(number)][index[count:]]) for number in np.ravel(numbers)
        ]
        return np.reshape(parts, (*np.shape(numbers), *parts[0].shape))
