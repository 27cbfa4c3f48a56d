"""PNG and JPEG files."""

import math
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np

from napari_affmae.data.handles import OpenFile

_TAIL = {".png": b"IEND", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}
_TAIL_SEARCHED = 65536


class EncodedImage:
    """A PNG or JPEG, which can only be decoded whole.

    The decoded image is kept until the file is closed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        properties = iio.improps(path)
        self.shape: tuple[int, ...] = tuple(properties.shape)
        self.dtype: np.dtype[Any] = np.dtype(properties.dtype)
        self._decoded: Any = None

    def __getitem__(self, index: Any) -> Any:
        """Read a part, decoding the image the first time."""
        decoded = self._decoded
        if decoded is None:
            decoded = self._decoded = iio.imread(self._path)
        return decoded[index]

    def drop(self) -> None:
        """Forget the decoded image."""
        self._decoded = None


def open_file(path: Path) -> OpenFile:
    """Open a PNG or JPEG; samples of a pixel become channels.

    Raises
    ------
    ValueError
        If the mark at the file's end is missing: it is cut short.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_SEARCHED))
        if _TAIL[path.suffix.lower()] not in file.read():
            raise ValueError("the file is cut short: it has no end mark")
    image = EncodedImage(path)
    axes = "YX" if len(image.shape) == 2 else "YXS"
    size = math.prod(image.shape) * image.dtype.itemsize
    return OpenFile(image, axes, close=image.drop, resident=size)
