"""HDF5 files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from napari_affmae.data.formats.containers import choose_array, is_image
from napari_affmae.data.formats.decoded import opened_chunks
from napari_affmae.data.formats.foreign import Surroundings
from napari_affmae.data.formats.handles import OpenFile
from napari_affmae.data.formats.hdf5_links import check_links, check_storage
from napari_affmae.data.sources.layout import named_axes
from napari_affmae.data.sources.units import VoxelSize, pixel_size, to_nanometres


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
    surroundings = Surroundings(path.parent, outside)
    file = h5py.File(path, "r")
    try:
        candidates: dict[str, h5py.Dataset] = {}

        def collect(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and is_image(item.shape, item.dtype):
                candidates[name] = item

        file.visititems(collect)
        if inner is not None:  # a link, perhaps, which the visit passes by
            check_links(file, inner, surroundings)
            collect(inner.strip("/"), file.get(inner))
        name = choose_array({key: item.shape for key, item in candidates.items()}, inner)
        dataset = candidates[name]
        check_storage(dataset, surroundings)
        axes = named_axes([dimension.label for dimension in dataset.dims], dataset.shape)
        notes = () if inner or len(candidates) == 1 else (f"its largest dataset {name} is used",)
        # Without a filter, HDF5 reads a part of a chunk.
        filters = dataset.chunks and dataset.id.get_create_plist().get_nfilters()
        opened = opened_chunks if filters else OpenFile
        distance, row, column = _voxel_size(dataset)
        opened_file = opened(dataset, axes, pixel_size(row, column), file.close, notes)
        return replace(opened_file, plane_distance=distance)
    except BaseException:
        file.close()
        raise


def _voxel_size(dataset: h5py.Dataset) -> VoxelSize:
    """Voxel size by the attribute that ilastik and others write; one number is for all axes."""
    sizes = np.ravel(dataset.attrs.get("element_size_um", ()))
    if sizes.dtype.kind not in "iuf" or not sizes.size:
        return None, None, None
    lengths = [to_nanometres(float(size), "um") for size in sizes]
    plane, row, column = 3 * lengths if len(lengths) == 1 else [None, *lengths][-3:]
    return plane, row, column
