"""Series of images of TIA, the program of FEI's microscopes (`.ser`).

The reader follows the description that the format's first vendor, Emispec, published.
The order of rows, the bottom one first, is the one that other programs take. The
libraries that read the format are not under a permissive licence.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from napari_affmae.data.formats.arrays.positioned import PositionedArray
from napari_affmae.data.formats.arrays.views import Stacked, UpsideDown
from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.sources.source import PixelSize
from napari_affmae.data.sources.units import pixel_size, to_plausible_nanometres

_MARK = b"II\x97\x01"
# Types of the places in the file, by the version of the format.
_PLACES = {0x0210: "<u4", 0x0220: "<u8"}
_SPECTRA, _IMAGES = 0x4120, 0x4122
# The mark, the version, what elements are, what tags are, elements planned and elements written.
_HEADER = struct.Struct("<4sHIIII")
# For columns, then for rows: offset, step, index of the offset. Then type, columns, rows.
_ELEMENT = struct.Struct("<ddiddiHii")
_DTYPES = {1: "<u1", 2: "<u2", 3: "<u4", 4: "<i1", 5: "<i2", 6: "<i4", 7: "<f4", 8: "<f8"}
_COMPLEX = {9, 10}


def open_file(path: Path) -> OpenFile:
    """Open the images of a series as planes, in the order in which they were recorded.

    So are images that were recorded at the points of a line or an area. The bottom
    row is stored first, and the top row is read first, as in all other formats.

    Raises
    ------
    ValueError
        If it is no such file, is cut short, or holds spectra, complex numbers, or
        images that differ in shape or type.
    """
    with path.open("rb") as file:
        reader = _Reader(file, path.stat().st_size)
        places, planned = reader.places()
        elements = [reader.element(place) for place in places.tolist()]
    one = elements[0]
    for number, element in enumerate(elements, 1):
        if (element.shape, element.dtype) != (one.shape, one.dtype):
            raise ValueError(
                f"its images differ: the first has shape {one.shape} of {one.dtype}, number "
                f"{number} has {element.shape} of {element.dtype}; save each in TIA as a file"
            )
    notes = []
    if len(elements) < planned:
        notes.append(f"holds {len(elements)} images of {planned} that were to be recorded")
    sizes = {element.pixel_size for element in elements}
    if len(sizes) > 1:
        notes.append("holds images of different pixel sizes; the pixel size is taken as unknown")
    first = PositionedArray(path, one.dtype, one.offset, one.shape)
    planes = [UpsideDown(first.elsewhere(element.offset)) for element in elements]
    is_single = len(planes) == 1
    return OpenFile(
        planes[0] if is_single else Stacked(planes, [len(planes)]),
        "YX" if is_single else "TYX",
        sizes.pop() if len(sizes) == 1 else None,
        first.close,
        notes,
    )


@dataclass(frozen=True)
class _Element:
    """An image of the series, of which only the place is known.

    Attributes
    ----------
    offset : int
        Byte of the file at which its pixels begin.
    shape : (int, int)
        Rows and columns.
    """

    offset: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    pixel_size: PixelSize | None


class _Reader:
    """Reads headers of a file, and judges what they claim by the file's size."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def places(self) -> tuple[NDArray[np.unsignedinteger[Any]], int]:
        """Return where each written image begins, and how many were planned."""
        mark, version, kind, _, planned, written = _HEADER.unpack(self._read(0, _HEADER.size))
        if mark != _MARK:
            raise ValueError("it is no series of TIA")
        if version not in _PLACES:
            raise ValueError(f"it is of the unknown version {version:#06x} of TIA's series")
        if kind == _SPECTRA:
            raise ValueError("it holds spectra and no images")
        if kind != _IMAGES:
            raise ValueError(f"its header is invalid: it holds elements of kind {kind:#x}")
        if not 0 < written <= planned:
            raise ValueError(f"it holds no image: {written} of {planned} were recorded")
        dtype = np.dtype(_PLACES[version])
        (table,) = np.frombuffer(self._read(_HEADER.size, dtype.itemsize), dtype).tolist()
        return np.frombuffer(self._read(table, written * dtype.itemsize), dtype), planned

    def element(self, place: int) -> _Element:
        """Read the header of an image that begins at a byte of the file."""
        _, column, _, _, row, _, code, columns, rows = _ELEMENT.unpack(
            self._read(place, _ELEMENT.size)
        )
        if code in _COMPLEX:
            raise ValueError("it holds complex numbers; save their amplitudes as an image in TIA")
        shape = (rows, columns)
        if code not in _DTYPES or min(shape) < 1:
            raise ValueError(f"its header is invalid: shape {shape} of type {code}")
        dtype, offset = np.dtype(_DTYPES[code]), place + _ELEMENT.size
        self._check_end(offset + math.prod(shape) * dtype.itemsize)
        # Steps of a diffraction pattern are far larger than any pixel, as they are reciprocal.
        steps = (to_plausible_nanometres(abs(step), "m") for step in (row, column))
        return _Element(offset, shape, dtype, pixel_size(*steps))

    def _read(self, place: int, count: int) -> bytes:
        self._check_end(place + count)
        self._file.seek(place)
        return self._file.read(count)

    def _check_end(self, end: int) -> None:
        if end > self._size:
            raise ValueError(f"the file is cut short: {self._size} bytes of {end}")
