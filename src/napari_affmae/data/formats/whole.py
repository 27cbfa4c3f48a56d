"""Arrays that can only be decoded whole, as those in a compressed stream."""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.data.formats.handles import OpenFile
from napari_affmae.data.formats.sizes import check_piece


class WholeArray:
    """An array that is decoded when it is first read, and kept until the file is closed.

    The first thread that asks for it decodes it, and others wait.

    Parameters
    ----------
    shape : sequence of int
        Size of each axis.
    dtype : numpy.dtype
        Of the elements.
    decode : callable
        Gives the array.

    Raises
    ------
    ValueError
        If it is too large to be decoded.
    """

    def __init__(
        self, shape: Sequence[int], dtype: np.dtype[Any], decode: Callable[[], NDArray[Any]]
    ) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.dtype = dtype
        check_piece(self.shape, dtype, "its image")
        self._decode = decode
        self._decoded: NDArray[Any] | None = None
        self._decoding = Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __getitem__(self, index: Any) -> Any:
        """Read a part, decoding the array the first time."""
        with self._decoding:
            if self._decoded is None:
                self._decoded = self._decode()
            return self._decoded[index]

    def drop(self) -> None:
        """Forget the decoded array."""
        self._decoded = None


def opened_whole(
    shape: Sequence[int], dtype: np.dtype[Any], decode: Callable[[], NDArray[Any]]
) -> OpenFile:
    """Open an array that is decoded whole; arguments and errors are those of `WholeArray`."""
    array = WholeArray(shape, dtype, decode)
    return OpenFile(array, close=array.drop, resident=array.nbytes)
