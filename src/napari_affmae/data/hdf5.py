"""HDF5 files."""

from pathlib import Path
from typing import Any

import h5py

from napari_affmae.data.containers import choose_array, is_image
from napari_affmae.data.handles import OpenFile
from napari_affmae.data.units import pixel_size, to_nanometres


def open_file(path: Path, inner: str | None) -> OpenFile:
    """Open an image dataset of an HDF5 file.

    Parameters
    ----------
    path : Path
        The file.
    inner : str or None
        The dataset; None takes the only one, or the largest.

    Raises
    ------
    ValueError
        If the dataset is not there or the choice is ambiguous.
    """
    file = h5py.File(path, "r")
    try:
        candidates: dict[str, h5py.Dataset] = {}

        def collect(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and is_image(item.shape, item.dtype):
                candidates[name] = item

        file.visititems(collect)
        name = choose_array({key: item.shape for key, item in candidates.items()}, inner)
        dataset = candidates[name]
        labels = "".join(dimension.label for dimension in dataset.dims)
        axes = labels.upper() if len(labels) == dataset.ndim and labels.isalpha() else None
        sizes = dataset.attrs.get("element_size_um")
        size = None
        if sizes is not None and len(sizes) >= 2:
            size = pixel_size(*(to_nanometres(float(value), "um") for value in sizes[-2:]))
        notes = () if inner or len(candidates) == 1 else (f"its largest dataset {name} is used",)
        return OpenFile(dataset, axes, size, file.close, notes)
    except BaseException:
        file.close()
        raise
