"""MRC files."""

from pathlib import Path

import mrcfile

from napari_affmae.data.handles import OpenFile
from napari_affmae.data.units import pixel_size, to_nanometres


def open_file(path: Path) -> OpenFile:
    """Memory-map an MRC file; its voxel size is in angstrom.

    Raises
    ------
    ValueError
        If the header is invalid or the file's size does not fit it.
    """
    file = mrcfile.mmap(path, mode="r")
    voxel = file.voxel_size
    size = pixel_size(
        to_nanometres(float(voxel.y), "angstrom"), to_nanometres(float(voxel.x), "angstrom")
    )
    return OpenFile(file.data, "TZYX"[-file.data.ndim :], size, file.close)
