"""TIFF, BigTIFF, OME-TIFF and ImageJ hyperstacks, by positions or strip by strip."""

import math
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
import zarr

from napari_affmae.config import ORIGIN_NAMESPACE
from napari_affmae.data.formats.arrays.decoded import opened_chunks
from napari_affmae.data.formats.arrays.positioned import PositionedArray
from napari_affmae.data.formats.files.foreign import Surroundings
from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.formats.tiff.ome_files import check_named, companion_metadata
from napari_affmae.data.formats.tiff.sizes import voxel_size
from napari_affmae.data.formats.tiff.values import meaning_of
from napari_affmae.data.sources.class_metadata import classes_in_ome
from napari_affmae.data.sources.units import pixel_size

_IN_SEVERAL_FILES = ("ome", "ndtiff")


def open_file(path: Path, *, outside: bool = False, labels: bool = False) -> OpenFile:
    """Open the largest series of a TIFF.

    Of uncompressed contiguous series, only the rows that a crop touches are read. Of
    others, the strips or tiles that it touches are read and decoded. OME metadata, which may lie in
    a companion file, may name planes in other files: series that have planes in this one go before
    others.

    Parameters
    ----------
    path : Path
        The file.
    outside : bool
        Whether planes are read from files outside its folder, too.
    labels : bool
        Whether its values are classes, which are read as they are stored.

    Raises
    ------
    ValueError
        If the file is cut short, lacks planes, names files that are not read, or has
        colours that are no amounts of light.
    tifffile.TiffFileError
        If it is no TIFF.
    """
    tiff = tifffile.TiffFile(path)
    try:
        len(tiff.pages)  # ends where they go in a circle, in which tifffile's series would go on
        own = Path(tiff.filehandle.path)
        surroundings = Surroundings(own.parent, outside)
        xml, notes = companion_metadata(tiff, surroundings)
        is_alone = bool(notes)
        if xml is not None:
            tiff.close()
            tiff = tifffile.TiffFile(path, omexml=xml)
        check_named(tiff, surroundings)  # before tifffile opens them to list its series
        if miscounted := _miscounted(tiff):
            notes.append(miscounted)
            tiff.close()
            tiff = tifffile.TiffFile(path, is_imagej=False)
        mine = [series for series in tiff.series if own in _files(series)]
        series = max(mine or tiff.series, key=lambda candidate: int(candidate.size))
        files = _files(series)
        for file in files:
            if file != own:
                surroundings.check(str(file), own.parent)
        _check_complete(tiff, series)
        is_ours = tiff.is_ome and ORIGIN_NAMESPACE in (tiff.ome_metadata or "")
        meaning = meaning_of(tiff, series, labels=labels)
        orientation = series.keyframe.tags.valueof("Orientation", 1)
        opened = meaning(_open_series(tiff, series))
        classes = classes_in_ome(tiff.ome_metadata)
    except BaseException:
        tiff.close()
        raise
    notes += opened.notes
    if orientation != 1:
        notes.append(
            f"is to be shown turned or mirrored (orientation {orientation}); it is read as "
            "it is stored, so its labels must be stored alike"
        )
    if len(mine) > 1:
        notes.append(f"holds {len(mine)} image series, of which the largest is used")
    if len(files) > 1:
        notes.append(f"is a stack in {len(files)} files")
    return replace(
        opened,
        notes=notes,
        files=files,
        lacks_others=is_alone,
        classes=classes,
        content="result" if is_ours else "image",
    )


def _miscounted(tiff: tifffile.TiffFile) -> str | None:
    """Say so where ImageJ's description counts other planes than there are; else None.

    tifffile then leaves planes out, makes up empty ones, or ignores the description.
    """
    if not tiff.is_imagej:
        return None
    series = tiff.series[0]
    if series.kind not in {"imagej", "generic", "uniform"}:
        return None
    pages = len(tiff.pages)
    counting = zip(series.shape, series.axes, strict=True)
    described = math.prod(size for size, axis in counting if axis not in "YXS")
    # The data of a single page may go on with other planes; whether they are there is seen later.
    fits = described == pages or (pages == 1 and series.dataoffset is not None)
    if series.kind == "imagej" and fits:
        return None
    return f"ImageJ's description does not fit its {pages} planes, which are read in their order"


def _files(series: tifffile.TiffPageSeries) -> tuple[Path, ...]:
    """Files that hold the planes of a series, in their order."""
    pages = series.pages if series.kind in _IN_SEVERAL_FILES else [series.keyframe]
    files = (page.parent.filehandle.path for page in pages if page is not None)
    return tuple(map(Path, dict.fromkeys(files)))


def _open_series(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> OpenFile:
    (distance, row, column), notes = voxel_size(tiff, series)
    size = pixel_size(row, column)
    if series.dataoffset is not None and series.keyframe.is_memmappable:
        path = Path(tiff.filehandle.path)
        dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
        array = PositionedArray(path, dtype, series.dataoffset, series.shape)
        tiff.close()
        return OpenFile(array, series.axes, size, array.close, notes, plane_distance=distance)
    store = series.aszarr(level=0, maxworkers=2)
    chunked = zarr.open_array(store, mode="r")

    def close() -> None:
        store.close()
        tiff.close()

    file = opened_chunks(chunked, series.axes, size, close, notes)
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
        parts = math.prod(series.keyframe.chunked)
        for page in (series.keyframe, last):
            # tifffile would read the others as empty.
            if page is not None and len(page.dataoffsets) < parts:
                raise ValueError(
                    f"a page has {len(page.dataoffsets)} of its {parts} strips or tiles"
                )
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
