"""Images that can only be decoded whole, such as pictures and compressed streams."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.formats.files.pieces import check_piece


class WholeImage(ABC):
    """An image that is decoded when it is first read, and kept until the file is closed.

    The first thread that asks for it decodes it, and others wait.

    Parameters
    ----------
    shape : sequence of int
        Size of each axis.
    dtype : numpy.dtype
        Of the elements.

    Raises
    ------
    ValueError
        If it is too large to be decoded.
    """

    def __init__(self, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.dtype = dtype
        check_piece(self.shape, dtype, "its image")
        self._decoded: NDArray[Any] | None = None
        self._decoding = Lock()

    def __getitem__(self, index: Any) -> Any:
        """Read a part, decoding the image the first time."""
        with self._decoding:
            if self._decoded is None:
                self._decoded = self._decode()
            return self._decoded[index]

    @abstractmethod
    def _decode(self) -> NDArray[Any]:
        """Return the whole image; may raise any kind of error."""

    def opened(self) -> OpenFile:
        """Return it as an open file, which forgets the decoded image when it is closed."""
        size = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        return OpenFile(self, close=self._drop, resident=size)

    def _drop(self) -> None:
        self._decoded = None
