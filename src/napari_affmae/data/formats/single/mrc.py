"""MRC files, and the dialect of them that IMOD writes."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile import utils
from mrcfile.dtypes import HEADER_DTYPE

from napari_affmae.data.formats.arrays.streams import compression_of, opened_pixels, read_head
from napari_affmae.data.formats.arrays.views import Nibbles
from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.sources.units import VoxelSize, pixel_size, to_nanometres

_IMOD_STAMP = 1146047817
_IMOD_PLACE = slice(40, 48)  # of the stamp and the flags, in the header's second extra space
_SIGNED_BYTES = 1
_COLOURS, _FOUR_BITS = 16, 101  # modes that mrcfile does not know
_UNMEASURED = 0.1  # nanometres


def open_file(path: Path) -> OpenFile:
    """Open an MRC file, which may be compressed; its voxel size is in angstrom.

    A file without the marks of an MRC file is taken for one if its size is what
    the header says, as early programs wrote none. Axes are those that the header
    names, and rows are as they are stored.

    Raises
    ------
    ValueError
        If the header is invalid or the file is shorter than it says.
    """
    compression = compression_of(path)
    raw = read_head(path, HEADER_DTYPE.itemsize)
    if len(raw) < HEADER_DTYPE.itemsize:
        raise ValueError(f"the file is cut short: its header has {len(raw)} bytes")
    order, missing = _byte_order(raw)
    header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order)).view(np.recarray)[0]
    shape, dtype = _stored(header, order)
    offset = HEADER_DTYPE.itemsize + int(header.nsymbt)
    if min(shape) < 1 or offset < HEADER_DTYPE.itemsize:
        raise ValueError(f"its header is invalid: shape {_shape(header)}")
    end = offset + math.prod(shape) * dtype.itemsize
    notes = _notes_on_size(None if compression else path.stat().st_size, end, missing)
    plane, row, column = _voxel_size(header)
    if row == column == _UNMEASURED:
        plane = row = column = None
        notes.append(
            "says that a pixel has exactly 1 angstrom, as programs write that know no size; the "
            "pixel size is taken as unknown"
        )
    file = opened_pixels(path, shape, dtype, skipped=offset, compression=compression)
    four_bits = header.mode == _FOUR_BITS
    return replace(
        file,
        array=Nibbles(file.array, int(header.nx)) if four_bits else file.array,
        axes=_axes(header) + ("S" if header.mode == _COLOURS else ""),
        pixel_size=pixel_size(row, column),
        plane_distance=plane,
        notes=notes,
    )


def _stored(header: Any, order: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of what the file holds; numbers of four bits are two a byte."""
    shape = _shape(header)
    if header.mode == _FOUR_BITS:
        return (*shape[:-1], -(-shape[-1] // 2)), np.dtype(np.uint8)
    if header.mode == _COLOURS:
        return (*shape, 3), np.dtype(np.uint8)
    return shape, _dtype(header, order)


def _shape(header: Any) -> tuple[int, ...]:
    """(volumes, sections, rows, columns), without the first or the first two where there are none.

    Raises
    ------
    ValueError
        If a stack of volumes does not say how many sections a volume has.
    """
    if utils.spacegroup_is_volume_stack(header.ispg) and (header.mz < 1 or header.nz % header.mz):
        raise ValueError(
            f"its header is invalid: {header.nz} sections in volumes of {header.mz} sections"
        )
    return tuple(map(int, utils.data_shape_from_header(header)))


def _axes(header: Any) -> str:
    """Name the axes of the file from the slowest to the fastest; early programs leave this out."""
    named = [int(number) for number in (header.maps, header.mapr, header.mapc)]
    letters = "".join("XYZ"[number - 1] for number in named if 1 <= number <= 3)
    letters = letters if set(letters) == set("ZYX") else "ZYX"
    count = len(_shape(header))
    if count == 2:  # of a single section, rows and columns may only be exchanged
        return letters[1:] if set(letters[1:]) == set("YX") else "YX"
    return "TZYX"[: count - 3] + letters


def _notes_on_size(size: int | None, end: int, missing: str) -> list[str]:
    """Say what is odd with a file that ends at a size, None where that is not known.

    Raises
    ------
    ValueError
        If it lacks a mark of MRC files, and its size does not show that it is one.
    """
    if missing and size is None:
        raise ValueError(f"it has no {missing}")
    if missing and size != end:
        raise ValueError(f"it has no {missing} and {size} bytes where its header says {end}")
    if missing:
        return [f"has no {missing}, but the size that its header says; read as MRC"]
    if size is not None and size > end:
        return [f"has {size - end} bytes after its image, which are not read"]
    return []


def _byte_order(raw: bytes) -> tuple[str, str]:
    """Byte order, and which mark of an MRC file is missing; "" for none.

    Without a machine stamp the order is the one in which the columns are fewer.
    """
    header = np.frombuffer(raw, HEADER_DTYPE).view(np.recarray)[0]
    missing = "" if bytes(header.map)[:3] == b"MAP" else "MRC identifier"
    try:
        return utils.byte_order_from_machine_stamp(header.machst), missing
    except ValueError:
        columns = {order: int(np.frombuffer(raw, f"{order}i4", 1)[0]) for order in "<>"}
        return min(columns, key=lambda order: abs(columns[order])), missing or "machine stamp"


def _dtype(header: Any, order: str) -> np.dtype[Any]:
    """Type of the pixels. IMOD's bytes are unsigned, unless its flags say otherwise."""
    stamp, flags = np.frombuffer(header.extra2.tobytes()[_IMOD_PLACE], f"{order}i4")
    if header.mode == 0 and stamp == _IMOD_STAMP and not flags & _SIGNED_BYTES:
        return np.dtype(np.uint8)
    dtype: np.dtype[Any] = utils.dtype_from_mode(header.mode).newbyteorder(order)
    return dtype


def _voxel_size(header: Any) -> VoxelSize:
    cell, counts = header.cella, (header.mz, header.my, header.mx)
    plane, row, column = (
        to_nanometres(float(length) / int(count), "angstrom") if count else None
        for length, count in zip((cell.z, cell.y, cell.x), counts, strict=True)
    )
    return plane, row, column
