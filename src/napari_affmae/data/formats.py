"""PNG and JPEG, MRC, and HDF5 files."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import imageio.v3 as iio
import mrcfile
import numpy as np

from napari_affmae.data.handles import OpenFile
from napari_affmae.data.units import pixel_size, to_nanometres

_TAIL = {".png": b"IEND", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}
_TAIL_SEARCHED = 65536


class EncodedImage:
    """A PNG or JPEG, which can only be decoded whole.

    The decoded image is kept until the file is closed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        properties = iio.improps(path)
        self.shape: tuple[int, ...] = tuple(properties.shape)
        self.dtype: np.dtype[Any] = np.dtype(properties.dtype)
        self._decoded: Any = None

    def __getitem__(self, index: Any) -> Any:
        """Read a part, decoding the image the first time."""
        decoded = self._decoded
        if decoded is None:
            decoded = self._decoded = iio.imread(self._path)
        return decoded[index]

    def drop(self) -> None:
        """Forget the decoded image."""
        self._decoded = None


def open_encoded(path: Path) -> OpenFile:
    """Open a PNG or JPEG; samples of a pixel become channels.

    Raises
    ------
    ValueError
        If the mark at the file's end is missing: it is cut short.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_SEARCHED))
        if _TAIL[path.suffix.lower()] not in file.read():
            raise ValueError("the file is cut short: it has no end mark")
    image = EncodedImage(path)
    return OpenFile(image, "YX" if len(image.shape) == 2 else "YXS", close=image.drop)


def open_mrc(path: Path) -> OpenFile:
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


def open_hdf5(path: Path, inner: str | None) -> OpenFile:
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


def is_image(shape: Sequence[int] | None, dtype: Any) -> bool:
    """Whether an array inside a container can be an image: real numbers in two axes or more."""
    return shape is not None and len(shape) >= 2 and np.dtype(dtype).kind in "buif"


def choose_array(shapes: Mapping[str, Sequence[int]], inner: str | None) -> str:
    """Choose one of a container's arrays: the asked one, the only one, or the largest.

    Raises
    ------
    ValueError
        If the asked one is not there, there is none, or two are equally large;
        the message lists them all.
    """
    listing = ", ".join(f"{name} {tuple(shape)}" for name, shape in sorted(shapes.items()))
    if inner is not None:
        name = inner.strip("/")
        if name not in shapes:
            raise ValueError(f"has no image array {inner!r}; it has: {listing or 'none'}")
        return name
    if not shapes:
        raise ValueError("holds no array with two axes or more")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    largest = [name for name, size in sizes.items() if size == max(sizes.values())]
    if len(largest) > 1:
        raise ValueError(
            f"holds several arrays of the largest size: {listing}; choose one by FILE:/NAME"
        )
    return largest[0]
