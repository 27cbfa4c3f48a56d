"""Sizes of pixels and distances of planes, by all that a TIFF and what lies beside it say."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import tifffile

from napari_affmae.data.formats.metadata.texts import entries
from napari_affmae.data.formats.metadata.texts_beside import size_beside
from napari_affmae.data.formats.tiff.vendor_sizes import vendor_size
from napari_affmae.data.sources.units import (
    UNKNOWN_SIZE,
    VoxelSize,
    to_nanometres,
    to_plausible_nanometres,
)

_Pixel = tuple[float | None, float | None]


def voxel_size(
    tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries
) -> tuple[VoxelSize, list[str]]:
    """Return the size of a series' voxels in nanometres.

    OME metadata and a unit of ImageJ go before tags of vendors, since who wrote
    them knew of those tags. Then come text files of the image's name. The tags of TIFF
    itself come last, because most programs fill them in for printers.

    Returns
    -------
    size : VoxelSize
        Each unknown, if no source states it.
    notes : list of str
        What is damaged and therefore not used.
    """
    tags = series.keyframe.tags
    stated, notes = _stated(tiff, series)
    if None not in stated[1:]:
        return stated, notes
    size, more = vendor_size(tiff)
    notes += more
    if size == UNKNOWN_SIZE:
        size, more = size_beside(Path(tiff.filehandle.path))
        notes += more
    if size == UNKNOWN_SIZE:
        unit = {2: "inch", 3: "cm"}.get(tags.valueof("ResolutionUnit", 1))
        size = (None, *_resolution(tags, unit, unit))
    return (stated[0] if size[0] is None else size[0], *size[1:]), notes


def _stated(
    tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries
) -> tuple[VoxelSize, list[str]]:
    """Return what OME metadata or ImageJ's description say, and what is damaged."""
    if tiff.is_ome and tiff.ome_metadata:
        try:
            metadata = tifffile.xml2dict(tiff.ome_metadata)
        except ET.ParseError as error:
            return UNKNOWN_SIZE, [f"its OME metadata cannot be read: {error}"]
        return _ome_size(metadata, tiff.series.index(series), series.keyframe.shape), []
    imagej = entries(tiff.pages.first.imagej_description or "")
    if imagej.get("unit"):
        return _imagej_size(imagej, series.keyframe.tags), []
    return UNKNOWN_SIZE, []


def _ome_size(metadata: Mapping[str, Any], number: int, sizes: Collection[int]) -> VoxelSize:
    """Voxel size of an OME image, the one of this number if its rows and columns are in `sizes`.

    tifffile leaves images out that it cannot read, so numbers may be off.
    """
    images = metadata.get("OME", {}).get("Image", {})
    images = images if isinstance(images, list) else [images]
    all_pixels = [image.get("Pixels", {}) for image in images]
    fitting = (
        pixels
        for pixels in [*all_pixels[number : number + 1], *all_pixels]
        if {pixels.get("SizeY"), pixels.get("SizeX")} <= set(sizes)
    )
    pixels: Mapping[str, Any] = next(fitting, {})

    def stated(axis: str) -> tuple[Any, Any]:
        size = pixels.get(f"PhysicalSize{axis}")
        return size, pixels.get(f"PhysicalSize{axis}Unit", "µm")

    row, column = (to_plausible_nanometres(*stated(axis)) for axis in "YX")
    return to_nanometres(*stated("Z")), *_both(row, column)


def _imagej_size(imagej: Mapping[str, str], tags: tifffile.TiffTags) -> VoxelSize:
    """Voxel size in ImageJ's units: one for all axes, unless rows or planes have their own."""
    unit = imagej["unit"]
    spacing = imagej.get("spacing", "").removeprefix("-")  # negative in stacks from below
    pixel = _resolution(tags, imagej.get("yunit") or unit, unit)
    return to_nanometres(spacing, imagej.get("zunit") or unit), *pixel


def _resolution(tags: tifffile.TiffTags, row_unit: str | None, column_unit: str | None) -> _Pixel:
    """Pixel size by the resolution tags, unless it is that of paper."""
    sizes = []
    for tag, unit in (("YResolution", row_unit), ("XResolution", column_unit)):
        pixels, length = tags.valueof(tag, (0, 1))
        sizes.append(to_plausible_nanometres(length / pixels, unit) if pixels else None)
    return _both(*sizes)


def _both(row: float | None, column: float | None) -> _Pixel:
    """Return both sizes or none: one that is not plausible tells that the other was not meant."""
    return (None, None) if row is None or column is None else (row, column)
