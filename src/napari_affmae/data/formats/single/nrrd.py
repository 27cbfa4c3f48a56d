"""NRRD volumes (.nrrd), and headers of pixels in a file beside them (.nhdr)."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from napari_affmae.data.formats.arrays.streams import opened_pixels
from napari_affmae.data.formats.files.foreign import Surroundings
from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.sources.units import pixel_size, to_plausible_nanometres

_HEADER_BYTES = 2**20
_NAMES_OF_TYPES = {
    "i1": "signed char|int8|int8_t",
    "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t",
    "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPES = {name: code for code, names in _NAMES_OF_TYPES.items() for name in names.split("|")}
_ENCODINGS = {"raw": None, "gz": ".gz", "gzip": ".gz", "bz2": ".bz2", "bzip2": ".bz2"}
_MOST_LINES = 1000
_AT_THE_END = -1
_SPATIAL = ("domain", "space", "none", "???")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_SEVERAL_FILES = re.compile(rb"^data ?file: *(LIST|.*%)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class _Pixels:
    """Where the pixels of a volume are and how they are stored."""

    path: Path
    start: int
    skipped: int
    compression: str | None
    dtype: np.dtype[Any]

    @classmethod
    def described(
        cls, header: Mapping[str, Any], path: Path, offset: int, surroundings: Surroundings
    ) -> "_Pixels":
        """Follow the header of a file, which ends at an offset."""
        encoding = header["encoding"].lower()
        if encoding not in _ENCODINGS or header["type"] not in _TYPES:
            raise ValueError(
                f"pixels of type {header['type']}, stored as {header['encoding']}, are not read; "
                "save numbers as raw or gzip"
            )
        order = ">" if header.get("endian") == "big" else "<"
        name = header.get("datafile", header.get("data file"))
        if name is not None:
            found = surroundings.check(name, path.parent)
            if found is None:
                raise ValueError(f"its pixels are in the file {name}, which is not there")
            path, offset = found, 0
        lines = int(header.get("lineskip", header.get("line skip", 0)))
        with path.open("rb") as file:
            file.seek(offset)
            for _ in range(min(lines, _MOST_LINES)):
                file.readline(_HEADER_BYTES)
            offset = file.tell()
        skipped = int(header.get("byteskip", header.get("byte skip", 0)))
        return cls(
            path, offset, skipped, _ENCODINGS[encoding], np.dtype(order + _TYPES[header["type"]])
        )

    def opened(self, shape: tuple[int, ...]) -> OpenFile:
        """Open them as an array of this shape."""
        skipped = self.skipped
        if skipped == _AT_THE_END and self.compression is None:
            size = self.path.stat().st_size - self.start
            skipped = max(0, size - math.prod(shape) * self.dtype.itemsize)
        if skipped < 0:
            raise ValueError(f"its header is invalid: {skipped} bytes to skip")
        return opened_pixels(
            self.path,
            shape,
            self.dtype,
            start=self.start,
            skipped=skipped,
            compression=self.compression,
        )


def open_file(path: Path, *, outside: bool = False) -> OpenFile:
    """Open a volume; its header lists the fastest axis first, which are the columns.

    Parameters
    ----------
    path : Path
        The file, or the header.
    outside : bool
        Whether a header may name a file outside its folder.

    Raises
    ------
    ValueError
        If the pixels are not there, are shorter than the header says, or stored in a
        way that is not read.
    nrrd.errors.NRRDError
        If the header is invalid.
    """
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    end = _BLANK_LINE.search(start)
    text = start[: end.start()] if end else start
    if _SEVERAL_FILES.search(text):
        raise ValueError("its pixels are in several files; save it as one .nrrd file")
    # As text, since pynrrd leaves out what is not ASCII in bytes, and a µm would become a metre.
    header = nrrd.read_header(text.decode("utf-8", "replace").splitlines())
    shape = tuple(int(size) for size in header["sizes"])[::-1]
    if len(shape) != header["dimension"] or min(shape) < 1:
        raise ValueError(f"its header is invalid: {header['dimension']} axes of sizes {shape}")
    pixels = _Pixels.described(
        header, path, end.end() if end else len(start), Surroundings(path.parent, outside)
    )
    axes = _axes(header, len(shape))
    steps = dict(zip(axes, _steps(header, len(shape)), strict=True))
    files = () if pixels.path == path else (path, pixels.path)
    size = pixel_size(steps.get("Y"), steps.get("X"))
    opened = pixels.opened(shape)
    return replace(opened, axes=axes, pixel_size=size, plane_distance=steps.get("Z"), files=files)


def _axes(header: Mapping[str, Any], count: int) -> str:
    """Axes from the slowest to the fastest, by their kinds."""
    spatial = iter("XYZT")
    letters = []
    for number, kind in enumerate(header.get("kinds", ["domain"] * count)):
        if kind.lower() in _SPATIAL:
            letters.append(next(spatial, "I"))
        elif kind.lower() == "time" or (kind.lower() == "list" and number):
            letters.append("I")
        else:  # what a voxel has, such as colours
            letters.append("C")
    return "".join(letters[::-1])


def _steps(header: Mapping[str, Any], count: int) -> list[float | None]:
    """Nanometres a step along each axis, from the slowest to the fastest."""
    directions = header.get("space directions")
    if directions is None:
        sizes, units = header.get("spacings", ()), header.get("units", ())
    else:
        sizes = [math.nan if row is None else math.hypot(*map(float, row)) for row in directions]
        units = list(header.get("space units", ()))[:1] * count  # of space, not of the axes
    steps = [
        to_plausible_nanometres(float(size), unit) for size, unit in zip(sizes, units, strict=False)
    ]
    return [*steps, *[None] * count][:count][::-1]
