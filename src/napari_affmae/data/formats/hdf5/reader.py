"""HDF5 files."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py

from napari_affmae.data.formats.arrays.decoded import opened_chunks
from napari_affmae.data.formats.files.foreign import Surroundings
from napari_affmae.data.formats.files.handles import OpenFile, Part
from napari_affmae.data.formats.hdf5.dialects import described, image_datasets
from napari_affmae.data.formats.hdf5.imaris import (
    IMAGE_DESCRIBED,
    imaris_channels,
    imaris_image,
    is_imaris,
)
from napari_affmae.data.formats.hdf5.links import check_links, check_storage
from napari_affmae.data.formats.metadata.containers import choose_array, is_image


def open_file(path: Path, inner: str | None, *, outside: bool = False) -> OpenFile:
    """Open an image dataset of an HDF5 file.

    Parameters
    ----------
    path : Path
        The file.
    inner : str or None
        The dataset; None takes the only one, or the largest.
    outside : bool
        Whether links and external storage may lead to files outside its folder.

    Raises
    ------
    ValueError
        If the dataset is not there, the choice is ambiguous, or it is in files that
        are not read.
    """
    if not h5py.is_hdf5(path):
        raise ValueError(
            "it is no HDF5 file; in MATLAB, save it with the option -v7.3"
            if path.suffix.lower() == ".mat"
            else "it is no HDF5 file, or damaged at its beginning"
        )
    surroundings = Surroundings(path.parent, outside)
    file = h5py.File(path, "r")
    try:
        opened = _open_image(file, inner, surroundings)
    except BaseException:
        file.close()
        raise
    return replace(opened, close=file.close)


def _open_image(file: h5py.File, inner: str | None, surroundings: Surroundings) -> OpenFile:
    candidates: dict[str, h5py.Dataset] = {}

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and is_image(item.shape, item.dtype):
            candidates[name] = item

    file.visititems(collect)
    if inner is None and is_imaris(file):
        channels = imaris_channels(candidates)
        check_links(file, IMAGE_DESCRIBED, surroundings)
        opened_channels = [_opened(item, surroundings) for item in channels.values()]
        return imaris_image(file, channels, opened_channels)
    note = ""
    if inner is None:
        images, note = image_datasets(candidates)
    else:  # a link, perhaps, which the visit passes by
        check_links(file, inner, surroundings)
        collect(inner.strip("/"), file.get(inner))
        images = candidates
    name = choose_array({key: item.shape for key, item in images.items()}, inner)
    if not note and inner is None and len(images) > 1:
        note = f"its largest dataset {name} is used"
    opened = _opened(images[name], surroundings)
    return described(replace(opened, notes=[note] if note else []), images[name], surroundings)


def _opened(dataset: h5py.Dataset, surroundings: Surroundings) -> OpenFile:
    """Open a dataset whose pixels are where they may be."""
    check_storage(dataset, surroundings)
    # Without a filter, HDF5 reads a part of a chunk.
    filters = dataset.chunks and dataset.id.get_create_plist().get_nfilters()
    opened = opened_chunks(dataset) if filters else OpenFile(dataset)
    return replace(opened, stored=partial(_stored_chunks, dataset) if dataset.chunks else None)


def _stored_chunks(dataset: h5py.Dataset) -> Iterator[Part]:
    for number in range(dataset.id.get_num_chunks()):
        starts = dataset.id.get_chunk_info(number).chunk_offset
        sides = zip(starts, dataset.chunks, dataset.shape, strict=True)
        yield tuple(slice(start, min(start + side, size)) for start, side, size in sides)
