"""DigitalMicrograph files of Gatan, DM3 and DM4.

A file is a tree of tags, of which those are read that describe images. The libraries
that read both versions are not under a permissive licence.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from napari_affmae.data.formats.arrays.positioned import PositionedArray
from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.formats.metadata.containers import is_image
from napari_affmae.data.sources.units import pixel_size, to_plausible_nanometres

_DIRECTORY, _VALUE = 20, 21
_CHARACTERS, _STRUCTURE, _TEXT, _ARRAY = 4, 15, 18, 20
# struct's letters for the types of values.
_LETTERS = {
    2: "h",
    3: "i",
    4: "H",
    5: "I",
    6: "f",
    7: "d",
    8: "?",
    9: "b",
    10: "B",
    11: "q",
    12: "Q",
}
# numpy's types for those of images; others are complex, packed, or colours of a thumbnail.
_DTYPES = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 14: "?"}
_ByteOrder = Literal["<", ">"]
_PIXELS = "Data"
_MOST_LEVELS = 64
_MOST_TYPES = 1000  # that describe a value
_LONGEST_TEXT = 1000  # characters; longer ones are notes


@dataclass(frozen=True)
class _Stored:
    """An array of which only the place is known."""

    offset: int
    nbytes: int


def open_file(path: Path) -> OpenFile:
    """Open the image of a DM3 or DM4 file, which stands behind its thumbnail.

    Raises
    ------
    ValueError
        If it is no such file, is cut short, or holds no image of numbers.
    """
    with path.open("rb") as file:
        reader = _Tags(file, path.stat().st_size)
        listed = _numbered(reader.read().get("ImageList"))
    described = (_Image.of(tags, reader.order) for tags in listed)
    images = [image for image in described if image is not None]
    if not images:
        raise ValueError("it holds no image of real numbers")
    image = max(images, key=lambda one: math.prod(one.shape))
    array = PositionedArray(path, image.dtype, image.offset, image.shape)
    notes = [f"holds {len(images)} images, of which the largest is used"] if images[1:] else []
    axes = "TZYX"[-len(image.shape) :]
    steps = dict(zip(axes, image.steps, strict=True))
    return OpenFile(
        array,
        axes,
        pixel_size(steps["Y"], steps["X"]),
        array.close,
        notes,
        plane_distance=steps.get("Z"),
    )


@dataclass(frozen=True)
class _Image:
    """One of a file's images; axes from the slowest to the fastest."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    steps: tuple[float | None, ...]

    @classmethod
    def of(cls, tags: Any, order: _ByteOrder) -> "_Image | None":
        """Make it of its tags; None for what is no image of real numbers."""
        content = tags.get("ImageData") if isinstance(tags, dict) else None
        if not isinstance(content, dict):
            return None
        stored, code = content.get(_PIXELS), _DTYPES.get(content.get("DataType", 0))
        shape = tuple(_numbered(content.get("Dimensions")))[::-1]
        if code is None or not isinstance(stored, _Stored) or not is_image(shape, code):
            return None
        dtype = np.dtype(code).newbyteorder(order)
        if math.prod(shape) * dtype.itemsize != stored.nbytes or len(shape) > 4:
            raise ValueError(
                f"its header is invalid: {stored.nbytes} bytes for shape {shape} of {dtype}"
            )
        calibrations = content.get("Calibrations", {})
        scales = list(map(_step, _numbered(calibrations.get("Dimension"))))
        steps = tuple([*scales, *[None] * len(shape)][: len(shape)][::-1])
        return cls(shape, dtype, stored.offset, steps)


def _step(calibration: Any) -> float | None:
    """Nanometres a step along an axis."""
    scale, unit = calibration.get("Scale", 0), calibration.get("Units", "")
    return to_plausible_nanometres(abs(float(scale)), unit if isinstance(unit, str) else "")


def _numbered(tags: Any) -> list[Any]:
    """Values of a directory of tags without names."""
    return list(tags.values()) if isinstance(tags, dict) else []


class _Tags:
    """Reads the tree of tags of a file.

    Names, counts and types are big-endian; values are of the byte order that the file says.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._version = 0
        self.order: _ByteOrder = "<"

    def read(self) -> dict[str, Any]:
        """Return the root's tags by their names; those without get a number.

        Raises
        ------
        ValueError
            If the file is none of DigitalMicrograph or is cut short.
        """
        (self._version,) = self._unpack(">i")
        if self._version not in {3, 4}:
            raise ValueError("it is no DM3 or DM4 file")
        self._number()  # the length of what follows
        (little,) = self._unpack(">i")
        self.order = "<" if little else ">"
        return self._directory(_MOST_LEVELS)

    def _directory(self, levels: int) -> dict[str, Any]:
        if not levels:
            raise ValueError("its tags are nested too deeply")
        self._file.seek(2, 1)  # whether it is sorted and open
        tags: dict[str, Any] = {}
        for position in range(self._number()):  # ends with the file, whatever it claims
            kind, length = self._unpack(">bH")
            name = self._file.read(length).decode("latin-1") or str(position)
            if self._version == 4:
                self._number()  # bytes of the tag
            if kind == _DIRECTORY:
                tags[name] = self._directory(levels - 1)
            elif kind == _VALUE:
                tags[name] = self._value(name)
            else:
                raise ValueError(f"its tag {name} is of the unknown kind {kind}")
        return tags

    def _value(self, name: str) -> Any:
        if self._file.read(4) != b"%%%%":
            raise ValueError("its tags are damaged or cut short")
        types = [self._number() for _ in range(min(self._number(), _MOST_TYPES))]
        if len(types) == 1 and types[0] in _LETTERS:
            return self._unpack(self.order + _LETTERS[types[0]])[0]
        if types[:1] != [_ARRAY] or len(types) < 3:
            self._skip(self._bytes_of(types))
            return None
        *element, count = types[1:]
        if name != _PIXELS and element == [_CHARACTERS] and count <= _LONGEST_TEXT:
            raw = self._file.read(2 * count)
            return raw.decode("utf-16-le" if self.order == "<" else "utf-16-be", "replace")
        stored = _Stored(self._file.tell(), count * self._bytes_of(element))
        self._skip(stored.nbytes)
        return stored

    def _bytes_of(self, types: list[int]) -> int:
        """Bytes of a value that is described so."""
        if types and types[0] == _TEXT:
            return types[1] * 2
        fields = types[4::2] if types and types[0] == _STRUCTURE else types
        if not fields or not set(fields) <= set(_LETTERS):
            raise ValueError(f"its tags hold values of the unknown types {types}")
        return sum(struct.calcsize(self.order + _LETTERS[field]) for field in fields)

    def _skip(self, count: int) -> None:
        end = self._file.tell() + count
        if count < 0 or end > self._size:
            raise ValueError(f"the file is cut short: {self._size} bytes of {end}")
        self._file.seek(end)

    def _number(self) -> int:
        """Read a count, which DM4 gives more bytes."""
        return int(self._unpack(">q" if self._version == 4 else ">i")[0])

    def _unpack(self, letters: str) -> tuple[Any, ...]:
        raw = self._file.read(struct.calcsize(letters))
        if len(raw) < struct.calcsize(letters):
            raise ValueError(f"the file is cut short: {self._size} bytes, and more are needed")
        return struct.unpack(letters, raw)
