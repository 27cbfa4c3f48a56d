"""MRC files, and the dialect of them that IMOD writes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile import utils
from mrcfile.dtypes import HEADER_DTYPE

from napari_affmae.data.formats.handles import OpenFile
from napari_affmae.data.formats.positioned import PositionedArray
from napari_affmae.data.sources.units import VoxelSize, pixel_size, to_nanometres

_IMOD_STAMP = 1146047817
_IMOD_PLACE = slice(40, 48)  # of the stamp and the flags, in the header's second extra space
_SIGNED_BYTES = 1


def open_file(path: Path) -> OpenFile:
    """Open an MRC file; its voxel size is in angstrom.

    A file without the marks of an MRC file is taken for one if its size is what
    the header says, as early programs wrote none.

    Raises
    ------
    ValueError
        If the header is invalid or the file is shorter than it says.
    """
    with path.open("rb") as file:
        raw = file.read(HEADER_DTYPE.itemsize)
    if len(raw) < HEADER_DTYPE.itemsize:
        raise ValueError(f"the file is cut short: its header has {len(raw)} bytes")
    order, missing = _byte_order(raw)
    header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order)).view(np.recarray)[0]
    dtype = _dtype(header, order)
    shape = utils.data_shape_from_header(header)
    offset = HEADER_DTYPE.itemsize + int(header.nsymbt)
    size = path.stat().st_size
    end = offset + math.prod(shape) * dtype.itemsize
    if min(shape) < 1 or offset < HEADER_DTYPE.itemsize:
        raise ValueError(f"its header is invalid: shape {shape}")
    if size < end:
        raise ValueError(f"the file is cut short: {size} bytes of {end}")
    if missing and size != end:
        raise ValueError(f"it has no {missing} and {size} bytes where its header says {end}")
    notes = []
    if missing:
        notes.append(f"has no {missing}, but the size that its header says; read as MRC")
    if size > end:
        notes.append(f"has {size - end} bytes after its image, which are not read")
    array = PositionedArray(path, dtype, offset, shape)
    plane, row, column = _voxel_size(header)
    return OpenFile(
        array,
        "TZYX"[-len(shape) :],
        pixel_size(row, column),
        array.close,
        notes,
        plane_distance=plane,
    )


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
