"""N5 folders, which tensorstore reads.

N5 counts axes from the fastest to the slowest, as (x, y, z). Here they are in the
order of numpy, as (z, y, x).
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_affmae.data.formats.arrays.decoded import opened_chunks
from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.formats.files.image_folders import N5_MARKER, n5_attributes
from napari_affmae.data.formats.files.paths import is_regular
from napari_affmae.data.formats.metadata.attributes import axes_of, voxel_size_of
from napari_affmae.data.formats.metadata.containers import choose_array, is_image
from napari_affmae.data.sources.source import bounded
from napari_affmae.data.sources.units import VoxelSize, pixel_size

_LIBRARY = "tensorstore"
_IN_FIJI = "open it in Fiji (File, Import, HDF5/N5/Zarr/OME-NGFF) and save it as OME-Zarr"
_MOST_LEVELS = 16  # of groups in groups, as links may go round
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_TYPES = {*_INTEGERS, "float32", "float64"}
_COMPRESSIONS = {"raw", "gzip", "bzip2", "xz", "blosc", "zstd"}
_OF_SPACE = "ZYX"
Attributes = Mapping[str, Any]


def open_file(path: Path, inner: str | None) -> OpenFile:
    """Open an array of an N5 folder, of several resolutions the full one.

    Parameters
    ----------
    path : Path
        Folder of the array or group.
    inner : str or None
        Array in a group, or a group in it; of a group's arrays the largest is taken.

    Raises
    ------
    ValueError
        If `inner` is not there, the choice is ambiguous, the compression is not read,
        or the package that this needs is not installed.
    """
    if find_spec(_LIBRARY) is None:
        raise ValueError(
            "reading N5 needs one more package; install it with "
            f'pip install "napari-affmae[n5]", or {_IN_FIJI}'
        )
    described = dict(_arrays_below(path))
    shapes = {name: _shape(attributes) for name, attributes in described.items()}
    images = {
        name: shape
        for name, shape in shapes.items()
        if is_image(shape, described[name]["dataType"])
    }
    wanted = (inner or "").strip("/")
    within = {name: shape for name, shape in images.items() if f"{name}/".startswith(f"{wanted}/")}
    among = within if wanted else images
    name = choose_array(among or images, None if among else inner)
    attributes = described[name]
    transform = attributes.get("transform")
    axes = axes_of(transform, images[name]) if isinstance(transform, dict) else None
    plane, row, column = _voxel_size(path, name, attributes, axes)
    opened = opened_chunks(_Array(path / name, attributes), axes, pixel_size(row, column))
    notes = [f"its largest array {name} is used"] if len(among) > 1 else []
    return replace(opened, plane_distance=plane, notes=notes)


def _arrays_below(folder: Path, name: str = "") -> Iterator[tuple[str, Attributes]]:
    """List arrays by their paths in a folder, which may be one; groups may have no attributes."""
    attributes = n5_attributes(folder / name)
    if "dimensions" in attributes:
        if attributes.get("dataType") in _TYPES:
            yield name, attributes
        return
    if name.count("/") >= _MOST_LEVELS:
        return
    with os.scandir(folder / name) as entries:
        below = sorted(entry.name for entry in entries if entry.is_dir())
    for one in below:
        yield from _arrays_below(folder, f"{name}/{one}".strip("/"))


def _shape(attributes: Attributes) -> tuple[int, ...]:
    """Return the shape in numpy's order; () where it is none."""
    sizes = attributes["dimensions"]
    is_shape = isinstance(sizes, list) and all(type(size) is int and size > 0 for size in sizes)
    return tuple(sizes[::-1]) if is_shape else ()


class _Array:
    """An array of N5 in numpy's order of axes; chunks that are not stored are 0.

    Parameters
    ----------
    folder : Path
        Of the array.
    attributes : mapping
        What its file of attributes says.

    Raises
    ------
    ValueError
        If it is compressed in a way that is not read, or its attributes are damaged.
    """

    def __init__(self, folder: Path, attributes: Attributes) -> None:
        import tensorstore  # noqa: PLC0415 - an extra

        # The first version of the format had only the name of the compression.
        compression = attributes.get("compression", {"type": attributes.get("compressionType")})
        kind = compression.get("type") if isinstance(compression, dict) else None
        if kind not in _COMPRESSIONS:
            raise ValueError(f"it is compressed by {kind}, which is not read; {_IN_FIJI}")
        # Without the other attributes, of which tensorstore refuses some that programs write.
        metadata = {name: attributes.get(name) for name in ("dimensions", "blockSize", "dataType")}
        spec = {
            "driver": "n5",
            "kvstore": {"driver": "file", "path": folder.as_posix()},
            "metadata": {**metadata, "compression": compression},
        }
        try:
            self._stored = tensorstore.open(
                spec, open=True, read=True, assume_metadata=True
            ).result()
        except ValueError as error:
            raise ValueError(str(error).partition(" [tensorstore_spec")[0]) from error
        self._marker = folder / N5_MARKER
        self.shape = tuple(self._stored.shape[::-1])
        self.dtype: np.dtype[Any] = np.dtype(self._stored.dtype.numpy_dtype)
        self.chunks = tuple(attributes["blockSize"][::-1])
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read by one integer or slice of step 1 for each axis.

        Raises
        ------
        FileNotFoundError
            If the array is gone.
        ValueError
            If a chunk is damaged.
        """
        parts = tuple(
            bounded(part, size) if isinstance(part, slice) else int(part)
            for part, size in zip(index, self.shape, strict=True)
        )
        block: NDArray[Any] = np.asarray(self._stored[parts[::-1]].read().result()).transpose()
        # Without its folder, every chunk looks like one that is not stored.
        if not is_regular(self._marker):
            raise FileNotFoundError(f"{self._marker} is gone; bring back its folder or its disk")
        return block


def _voxel_size(path: Path, name: str, attributes: Attributes, axes: str | None) -> VoxelSize:
    """Nanometres of a voxel, by the array or by the groups that it is in.

    Sizes are those of the full resolution, by which `downsamplingFactors` of the array
    or `scales` of its group are multiplied; only a `transform` is of the array alone.
    """
    transform = attributes.get("transform")
    if isinstance(transform, dict):
        told = {"resolution": transform.get("scale"), "units": transform.get("units")}
        found = voxel_size_of([told], axes)
        if any(found):
            return found
    factors = attributes.get("downsamplingFactors")
    found = voxel_size_of([_slowest_first(attributes)], axes)
    parts = name.split("/") if name else []
    for cut in range(len(parts) - 1, -1, -1):
        if any(found):
            break
        group = n5_attributes(path.joinpath(*parts[:cut]))
        found = voxel_size_of([_slowest_first(group)], axes)
        factors = factors or _scale_of_level(group, parts[cut])
    return _times(found, factors, axes)


def _slowest_first(attributes: Attributes) -> dict[str, Any]:
    """Return attributes with their lists in numpy's order, for those who expect it."""
    turned = {
        key: value[::-1] if isinstance(value, list) else value for key, value in attributes.items()
    }
    if isinstance(attributes.get("pixelResolution"), list):
        turned["pixelResolution"] = {"dimensions": attributes["pixelResolution"]}
    return turned


def _scale_of_level(group: Attributes, level: str) -> Any:
    """Factors of a level s0, s1 and so on of a group that lists them; None if it does not."""
    scales, number = group.get("scales"), level.removeprefix("s")
    is_listed = isinstance(scales, list) and number.isdecimal() and int(number) < len(scales)
    return scales[int(number)] if isinstance(scales, list) and is_listed else None


def _times(size: VoxelSize, factors: Any, axes: str | None) -> VoxelSize:
    """Multiply a size by factors, the fastest axis first; by 1 where there are none."""
    listed: Sequence[Any] = factors if isinstance(factors, list) else ()
    by_axes = dict(zip((axes or _OF_SPACE)[::-1], listed, strict=False))
    plane, row, column = (
        length and length * float(by_axes.get(axis, 1))
        for axis, length in zip(_OF_SPACE, size, strict=True)
    )
    return plane, row, column
