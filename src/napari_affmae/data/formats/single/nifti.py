"""NIfTI volumes (.nii, .nii.gz)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from napari_affmae.data.formats.arrays.streams import compression_of, opened_pixels
from napari_affmae.data.formats.arrays.views import Scaled
from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.sources.source import PixelSize
from napari_affmae.data.sources.units import pixel_size, to_plausible_nanometres

_UNITS = {"meter": "m", "mm": "mm", "micron": "um"}
# Axes from the slowest, as NIfTI lists them from the fastest. Its fifth counts what a voxel has.
_AXES = "CTZYX"


def open_file(path: Path) -> OpenFile:
    """Open a volume: planes along its third axis, rows its second, columns its first.

    Raises
    ------
    ValueError
        If the file is shorter than its header says, or has more than five axes.
    nibabel.filebasedimages.ImageFileError
        If it is no NIfTI file.
    """
    image: Any = nibabel.load(path, mmap=False)  # only its header is used
    pixels = image.dataobj
    shape = tuple(map(int, pixels.shape))[::-1]
    if len(shape) > len(_AXES):
        raise ValueError(f"it has {len(shape)} axes, and at most {len(_AXES)} are read")
    factor, zero = float(pixels.slope), float(pixels.inter)
    size, distance = _sizes(image.header)
    file = opened_pixels(
        path,
        shape,
        np.dtype(pixels.dtype),
        skipped=int(pixels.offset),
        compression=compression_of(path),
    )
    return replace(
        file,
        array=file.array if (factor, zero) == (1, 0) else Scaled(file.array, factor, zero),
        axes=_AXES[-len(shape) :],
        pixel_size=size,
        plane_distance=distance,
    )


def _sizes(header: Any) -> tuple[PixelSize | None, float | None]:
    """Pixel size and distance of planes; 1 mm, which programs write that know none, is none."""
    unit = _UNITS.get(header.get_xyzt_units()[0])
    steps = [to_plausible_nanometres(abs(float(step)), unit) for step in header.get_zooms()[:3]]
    column, row, plane = [*steps, None, None][:3]
    return pixel_size(row, column), plane
