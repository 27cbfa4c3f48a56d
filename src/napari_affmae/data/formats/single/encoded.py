"""PNG, JPEG and BMP files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from napari_affmae.data.formats.arrays.whole import WholeImage
from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.formats.metadata.texts_beside import size_beside
from napari_affmae.data.sources.units import pixel_size

# By how files begin: their kind, and how they end if they have a mark there. These classes are
# used because `Image.open` takes what has more than 179 million pixels for an attack, and
# mosaics have that many.
_KINDS: dict[bytes, tuple[type[ImageFile], bytes]] = {
    b"\x89PNG": (PngImageFile, b"IEND"),
    b"\xff\xd8\xff": (JpegImageFile, b"\xff\xd9"),
    b"BM": (BmpImageFile, b""),
}
_TAIL_SEARCHED = 65536
_HEAD = 26
_PNG_BITS, _PNG_COLOUR = 24, 25  # bytes of the header
_PNG_SAMPLES = {2: 3, 4: 2, 6: 4}  # of a pixel, by the kind of colour in the header
_ALPHA = {"LA", "RGBA", "PA"}
# Colours that PIL would read as channels although they are no amounts of light.
_NO_LIGHT = {"CMYK": "inks (CMYK)", "LAB": "CIE L*a*b*", "HSV": "hue and saturation"}


class EncodedImage(WholeImage):
    """A picture, which can only be decoded whole.

    Parameters
    ----------
    path : Path
        The file.
    shape : tuple of int
        (rows, columns) or (rows, columns, samples).
    dtype : numpy.dtype
        Of the samples.
    has_alpha : bool
        Whether the last sample says how opaque a pixel is.

    Raises
    ------
    ValueError
        If it is too large to be decoded.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], *, has_alpha: bool
    ) -> None:
        super().__init__(shape, dtype)
        self.path = path
        self.has_alpha = has_alpha


class PillowImage(EncodedImage):
    """What Pillow reads without loss.

    Parameters
    ----------
    path : Path
        The file.
    image : ImageFile
        The same, open.
    step : int
        Pillow spreads grey of 2 and 4 bits over 8. Their numbers are multiples of this.
    labels : bool
        Whether the numbers in a table of colours are wanted.
    """

    def __init__(self, path: Path, image: ImageFile, step: int = 1, *, labels: bool) -> None:
        self._kind = type(image)
        self._mode = _mode(image, labels=labels)
        self._step = step
        pixel = np.asarray(Image.new(self._mode, (1, 1)))
        shape = (image.height, image.width, *pixel.shape[2:])
        super().__init__(path, shape, pixel.dtype, has_alpha=self._mode in _ALPHA)

    def _decode(self) -> NDArray[Any]:
        with self._kind(self.path) as image:
            pixels = np.asarray(image if image.mode == self._mode else image.convert(self._mode))
        return pixels if self._step == 1 else pixels // np.uint8(self._step)


class DeepPng(EncodedImage):
    """A PNG of several samples a pixel of 16 bits each, of which Pillow reads only 8.

    Parameters
    ----------
    path : Path
        The file.
    image : ImageFile
        The same, open.
    samples : int
        Of a pixel.
    """

    def __init__(self, path: Path, image: ImageFile, samples: int) -> None:
        shape = (image.height, image.width, samples)
        super().__init__(path, shape, np.dtype(np.uint16), has_alpha=samples in {2, 4})

    def _decode(self) -> NDArray[Any]:
        decoded: NDArray[Any] = imagecodecs.png_decode(self.path.read_bytes())
        return decoded[..., : self.shape[2]]  # a transparent colour becomes one sample more


def open_file(path: Path, *, labels: bool = False) -> OpenFile:
    """Open a PNG, JPEG or BMP; samples of a pixel become channels.

    Parameters
    ----------
    path : Path
        The file.
    labels : bool
        Whether its values are classes. Then numbers in a table of colours are
        read as they are, else as the greys or colours that they stand for.

    Raises
    ------
    ValueError
        If it is of no such kind, is cut short, has colours that are no amounts of light,
        or is too large to be decoded.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(max(0, path.stat().st_size - _TAIL_SEARCHED))
        tail = file.read()
    found = [known for start, known in _KINDS.items() if head.startswith(start)]
    if not found:
        raise ValueError("it is neither PNG, JPEG nor BMP")
    kind, end = found[0]
    if end not in tail:
        raise ValueError("the file is cut short: it has no end mark")
    with kind(path) as image:
        _check_complete(image, path.stat().st_size)
        encoded = _encoded(path, image, head, labels=labels)
    size, notes = size_beside(path)
    return replace(
        encoded.opened(),
        axes="YX" if len(encoded.shape) == 2 else "YXS",
        pixel_size=pixel_size(*size[1:]),
        notes=notes,
        alpha=(encoded.shape[-1] - 1,) if encoded.has_alpha else (),
    )


def _encoded(path: Path, image: ImageFile, head: bytes, *, labels: bool) -> EncodedImage:
    """Choose how the image is decoded, when that is needed."""
    if not isinstance(image, PngImageFile):
        return PillowImage(path, image, labels=labels)
    bits, colour = head[_PNG_BITS], head[_PNG_COLOUR]
    if bits == 16 and colour in _PNG_SAMPLES:
        return DeepPng(path, image, _PNG_SAMPLES[colour])
    is_spread = labels and colour == 0 and bits in {2, 4}
    return PillowImage(path, image, 255 // (2**bits - 1) if is_spread else 1, labels=labels)


def _mode(image: ImageFile, *, labels: bool) -> str:
    """PIL's name for the pixels that are wanted."""
    if image.mode in _NO_LIGHT:
        raise ValueError(
            f"its colours are {_NO_LIGHT[image.mode]}, which are not read; convert it to grey or "
            "RGB"
        )
    if image.mode == "I":
        return "I;16"
    if image.mode != "P" or labels:
        return image.mode
    palette = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    return "L" if (palette == palette[:, :1]).all() else "RGB"


def _check_complete(image: ImageFile, size: int) -> None:
    """Raise where rows that are not compressed reach beyond the file's end."""
    for codec, area, offset, arguments in image.tile:
        if codec == "raw" and isinstance(image, BmpImageFile) and area is not None:
            stride: Any = arguments[1] if isinstance(arguments, tuple) else 0
            end = offset + stride * (area[3] - area[1])
            if end > size:
                raise ValueError(f"the file is cut short: {size} bytes of {end}")
