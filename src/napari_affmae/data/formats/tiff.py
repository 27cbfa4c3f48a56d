"""TIFF, BigTIFF, OME-TIFF and ImageJ hyperstacks, by positions or strip by strip."""

import struct
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import tifffile
import zarr

from napari_affmae.data.formats.decoded import opened_chunks
from napari_affmae.data.formats.foreign import Surroundings
from napari_affmae.data.formats.handles import OpenFile
from napari_affmae.data.formats.positioned import PositionedArray
from napari_affmae.data.sources.units import VoxelSize, pixel_size, to_nanometres

_LARGEST_PLAUSIBLE_NM = 1000.0
_IN_SEVERAL_FILES = ("ome", "ndtiff")


def open_file(path: Path, *, outside: bool = False) -> OpenFile:
    """Open the largest series of a TIFF.

    Of uncompressed contiguous series, only the rows that a crop touches are read. Of
    others, the strips or tiles that it touches are read and decoded. OME metadata may name planes
    in other files: series that have planes in this one go before others.

    Parameters
    ----------
    path : Path
        The file.
    outside : bool
        Whether planes are read from files outside its folder, too.

    Raises
    ------
    ValueError
        If the file is cut short, lacks planes, or names files that are not read.
    tifffile.TiffFileError
        If it is no TIFF.
    """
    tiff = tifffile.TiffFile(path)
    try:
        len(tiff.pages)  # ends where they go in a circle, in which tifffile's series would go on
        own = Path(tiff.filehandle.path)
        surroundings = Surroundings(own.parent, outside)
        _check_named(tiff, surroundings)
        mine = [series for series in tiff.series if own in _files(series)]
        series = max(mine or tiff.series, key=lambda candidate: int(candidate.size))
        files = _files(series)
        for file in files:
            if file != own:
                surroundings.check(str(file), own.parent)
        _check_complete(tiff, series)
        opened = _open_series(tiff, series)
    except BaseException:
        tiff.close()
        raise
    notes = []
    if len(mine) > 1:
        notes.append(f"holds {len(mine)} image series, of which the largest is used")
    if len(files) > 1:
        notes.append(f"is a stack in {len(files)} files")
    return replace(opened, notes=notes, files=files)


def _check_named(tiff: tifffile.TiffFile, surroundings: Surroundings) -> None:
    """Refuse files that the OME metadata name, before tifffile opens them."""
    if not tiff.is_ome or not tiff.ome_metadata:
        return
    with suppress(ET.ParseError):  # tifffile then uses no metadata
        root = ET.fromstring(tiff.ome_metadata)
        others = [
            item.attrib.get("FileName", "")
            for item in root.iter()
            if item.tag.endswith("UUID") and item.text != root.attrib.get("UUID")
        ]
        for name in sorted(set(others) - {""}):
            surroundings.check(name, surroundings.folder)


def _files(series: tifffile.TiffPageSeries) -> tuple[Path, ...]:
    """Files that hold the planes of a series, in their order."""
    pages = series.pages if series.kind in _IN_SEVERAL_FILES else [series.keyframe]
    files = (page.parent.filehandle.path for page in pages if page is not None)
    return tuple(map(Path, dict.fromkeys(files)))


def _open_series(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> OpenFile:
    distance, row, column = _voxel_size(tiff, series)
    size = pixel_size(row, column)
    if series.dataoffset is not None and series.keyframe.is_memmappable:
        path = Path(tiff.filehandle.path)
        dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
        array = PositionedArray(path, dtype, series.dataoffset, series.shape)
        tiff.close()
        return OpenFile(array, series.axes, size, array.close, plane_distance=distance)
    store = series.aszarr(level=0, maxworkers=2)
    chunked = zarr.open_array(store, mode="r")

    def close() -> None:
        store.close()
        tiff.close()

    file = opened_chunks(chunked, series.axes, size, close)
    return replace(file, plane_distance=distance)


def _check_complete(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Raise where pages are missing or reach beyond the file's end."""
    file_size = tiff.filehandle.size
    if series.kind == "ome" and any(page is None for page in series.pages):
        raise ValueError("planes that its OME metadata lists are in files that are not there")
    following = _next_page_offset(tiff)
    if following >= file_size:
        raise ValueError(f"the file is cut short: pages follow after its end at byte {file_size}")
    if following:
        raise ValueError(
            f"what follows after its first {len(tiff.pages)} pages, at byte {following}, is no "
            "further page"
        )
    if series.dataoffset is not None:
        end = series.dataoffset + series.nbytes
    else:
        last = series.pages[len(series.pages) - 1]
        extents = zip(last.dataoffsets, last.databytecounts, strict=True) if last else ()
        end = max((offset + size for offset, size in extents), default=0)
    if end > file_size:
        raise ValueError(f"the file is cut short: {file_size} bytes of {end}")


def _next_page_offset(tiff: tifffile.TiffFile) -> int:
    """Return the offset of the next page that the last readable page names; 0 for none.

    tifffile ends the list of pages at the first that it cannot reach.
    """
    layout = tiff.tiff
    handle = tiff.filehandle
    handle.seek(tiff.pages[len(tiff.pages) - 1].offset)
    (tags,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    handle.seek(tags * layout.tagsize, 1)
    (offset,) = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
    return int(offset)


def _voxel_size(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> VoxelSize:
    """Voxel size by OME, ImageJ, Zeiss SEM and FEI metadata, else by the resolution tags."""
    if tiff.is_ome and tiff.ome_metadata:
        metadata = tifffile.xml2dict(tiff.ome_metadata)
        return _ome_voxel_size(metadata, tiff.series.index(series), series.keyframe.shape)
    if tiff.is_sem and tiff.sem_metadata and "ap_image_pixel_size" in tiff.sem_metadata:
        _, value, unit = tiff.sem_metadata["ap_image_pixel_size"]
        size = to_nanometres(float(value), unit)
        return None, size, size
    if tiff.is_fei and tiff.fei_metadata and "Scan" in tiff.fei_metadata:
        scan = tiff.fei_metadata["Scan"]
        return (
            None,
            to_nanometres(float(scan.get("PixelHeight", 0)), "m"),
            to_nanometres(float(scan.get("PixelWidth", 0)), "m"),
        )
    imagej = tiff.imagej_metadata if tiff.is_imagej and tiff.imagej_metadata else {}
    unit = imagej.get("unit")
    distance = to_nanometres(abs(float(imagej.get("spacing", 0))), unit)
    return distance, *_resolution_pixel_size(series.keyframe.tags, unit)


def _ome_voxel_size(metadata: Mapping[str, Any], number: int, sizes: Collection[int]) -> VoxelSize:
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
    plane, row, column = (
        to_nanometres(
            float(pixels.get(f"PhysicalSize{axis}", 0)), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        )
        for axis in "ZYX"
    )
    return plane, row, column


def _resolution_pixel_size(
    tags: tifffile.TiffTags, unit: str | None
) -> tuple[float | None, float | None]:
    """Pixel size by the resolution tags, in ImageJ's `unit` or the tags' own.

    Resolutions without ImageJ's unit are mostly meant for printers (72 dpi), so they
    are used only for pixels below a micrometre.
    """
    trusted = unit is not None
    if unit is None:
        unit = {2: "inch", 3: "cm"}.get(int(tags.valueof("ResolutionUnit", 1)))
    sizes = []
    for tag in ("YResolution", "XResolution"):
        pixels, length = tags.valueof(tag, (0, 1))
        sizes.append(to_nanometres(length / pixels, unit) if pixels else None)
    if not trusted and any(size is None or size > _LARGEST_PLAUSIBLE_NM for size in sizes):
        return None, None
    row, column = sizes
    return row, column
