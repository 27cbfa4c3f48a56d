"""PNG and JPEG files."""

import math
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from napari_affmae.data.formats.handles import OpenFile
from napari_affmae.data.formats.sizes import check_piece

_Kind = type[PngImageFile] | type[JpegImageFile]

# By how files begin: their kind, and how they end. These classes are used because `Image.open`
# takes what has more than 179 million pixels for an attack, and mosaics have that many.
_KINDS: dict[bytes, tuple[_Kind, bytes]] = {
    b"\x89PNG": (PngImageFile, b"IEND"),
    b"\xff\xd8\xff": (JpegImageFile, b"\xff\xd9"),
}
_TAIL_SEARCHED = 65536


class EncodedImage:
    """A PNG or JPEG, which can only be decoded whole.

    The decoded image is kept until the file is closed. The first thread that asks for
    it decodes it, and others wait.
    """

    def __init__(self, path: Path, kind: _Kind, *, labels: bool) -> None:
        self._path = path
        self._kind = kind
        with kind(path) as image:
            self._mode = image.mode if labels and image.mode == "P" else _mode(image)
            pixel = np.asarray(Image.new(self._mode, (1, 1)))
            self.shape: tuple[int, ...] = (image.height, image.width, *pixel.shape[2:])
            check_piece(self.shape, pixel.dtype, "its image")
        self.dtype: np.dtype[Any] = pixel.dtype
        self._decoded: NDArray[Any] | None = None
        self._decoding = Lock()

    def __getitem__(self, index: Any) -> Any:
        """Read a part, decoding the image the first time."""
        with self._decoding:
            if self._decoded is None:
                self._decoded = self._decode()
            return self._decoded[index]

    def _decode(self) -> NDArray[Any]:
        with self._kind(self._path) as image:
            return np.asarray(image if image.mode == self._mode else image.convert(self._mode))

    def drop(self) -> None:
        """Forget the decoded image."""
        self._decoded = None


def _mode(image: ImageFile) -> str:
    """PIL's name for the pixels that are wanted: colours, not their numbers in a palette."""
    if image.mode == "P" and image.palette is not None:
        return image.palette.mode
    return "I;16" if image.mode == "I" else image.mode


def open_file(path: Path, *, labels: bool = False) -> OpenFile:
    """Open a PNG or JPEG; samples of a pixel become channels.

    Parameters
    ----------
    path : Path
        The file.
    labels : bool
        Whether the numbers in a colour table are read instead of the colours.

    Raises
    ------
    ValueError
        If it is neither, the mark at the file's end is missing, so that it is cut short,
        or it is too large to be decoded.
    """
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, path.stat().st_size - _TAIL_SEARCHED))
        tail = file.read()
    found = [known for start, known in _KINDS.items() if head.startswith(start)]
    if not found:
        raise ValueError("it is neither PNG nor JPEG")
    kind, end = found[0]
    if end not in tail:
        raise ValueError("the file is cut short: it has no end mark")
    image = EncodedImage(path, kind, labels=labels)
    axes = "YX" if len(image.shape) == 2 else "YXS"
    size = math.prod(image.shape) * image.dtype.itemsize
    return OpenFile(image, axes, close=image.drop, resident=size)
