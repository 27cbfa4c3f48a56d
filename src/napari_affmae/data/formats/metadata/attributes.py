"""What attributes of HDF5 and zarr arrays say of axes and sizes, by the habits of many programs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from napari_affmae.data.sources.layout import named_axes
from napari_affmae.data.sources.units import VoxelSize, to_plausible_nanometres

# Lists of names of axes: of ilastik and Vigra, xarray, funlib and others.
_AXISTAGS = "axistags"
_NAMES_OF_AXES = ("_ARRAY_DIMENSIONS", "axis_names", "axes", "dimension_names")
# Janelia's sizes: a structure that lists the fastest axis first.
_FASTEST_FIRST = "pixelresolution"
_SIZES = ("elementsize", "voxelsize", "pixelsize", "voxelresolution", "resolution")
_BEGINNINGS = (*_SIZES, _FASTEST_FIRST)
_UNITS_IN_NAMES = ("nm", "um", "angstrom")
_OF_SPACE = "ZYX"
# Nanometres that a number without a unit may mean; others are pixels, metres or mistakes.
_PLAUSIBLE = (0.01, 10_000)


def axes_of(attributes: Mapping[str, Any], shape: Sequence[int]) -> str | None:
    """Return the axes that an array's attributes name; None if they do not, or do not fit it."""
    tags = _structure(attributes.get(_AXISTAGS))
    listed = tags.get("axes") if isinstance(tags, dict) else None
    tagged = listed if isinstance(listed, list) else []
    names = _texts([tag.get("key") for tag in tagged if isinstance(tag, dict)])
    for name in _NAMES_OF_AXES:
        names = names or _list_of_texts(attributes.get(name))
    return named_axes(names, shape) if names else None


def voxel_size_of(attributes: Iterable[Mapping[str, Any]], axes: str | None) -> VoxelSize:
    """Return the size of a voxel in nanometres by the first attributes that tell it.

    Attributes list the slowest axis first, except for Janelia's ``pixelResolution``.
    One number is for rows, columns and planes alike, of a ``pixelSize`` for rows and
    columns. Without a unit they are nanometres, if they can be.

    Parameters
    ----------
    attributes : iterable of mappings
        Of the array, and of the groups that it is in.
    axes : str or None
        One letter for each axis of the array, where they are known.
    """
    for mapping in attributes:
        # Others are not read, as HDF5 may hold some that h5py cannot.
        named = {
            _plain(name): mapping[name]
            for name in mapping
            if _plain(name).startswith(_BEGINNINGS) or "unit" in name.lower()
        }
        for name, value in named.items():
            found = _size(name, value, named, axes)
            if any(found):
                return found
    return None, None, None


def _size(name: str, value: Any, named: Mapping[str, Any], axes: str | None) -> VoxelSize:
    """Return the size that one attribute says, among others that may name its unit."""
    if name == _FASTEST_FIRST:
        told = _structure(value)
        if not isinstance(told, dict):
            return None, None, None
        return _by_axes(_numbers(told.get("dimensions"))[::-1], _texts(told.get("unit")), axes)
    kind = next((kind for kind in _SIZES if name.startswith(kind)), None)
    if kind is None:
        return None, None, None
    rest = name.removeprefix(kind)
    if rest and rest not in _UNITS_IN_NAMES:
        return None, None, None
    units = [rest] if rest else _units(kind, named)
    numbers = _numbers(value)
    plane, row, column = _by_axes(numbers, units, axes)
    return (None if len(numbers) == 1 and kind == "pixelsize" else plane), row, column


def _units(kind: str, named: Mapping[str, Any]) -> list[str]:
    """Units by the attributes that stand beside a size: voxelSizeUnit, voxel_unit, units."""
    short = kind.removesuffix("size").removesuffix("resolution")
    for start in (kind, short, ""):
        for name in (f"{start}unit", f"{start}units"):
            if units := _texts(named.get(name)):
                return units
    return []


def _by_axes(numbers: Sequence[float], units: Sequence[str], axes: str | None) -> VoxelSize:
    """Give plane, row and column their numbers, by the axes if there is a number for each."""
    if not numbers:
        return None, None, None
    if len(numbers) == 1:
        letters = _OF_SPACE
        numbers = list(numbers) * len(letters)
    elif axes is not None and len(numbers) == len(axes):
        letters = axes
    else:
        letters = _OF_SPACE[-len(numbers) :]
        numbers, units = numbers[-len(letters) :], units[-len(letters) :]
    if len(units) != len(numbers):
        units = list(units[:1]) * len(numbers)
    lengths = [to_plausible_nanometres(*pair) for pair in zip(numbers, units, strict=False)]
    if not units and _are_nanometres(numbers):
        lengths = [to_plausible_nanometres(number, "nm") for number in numbers]
    sizes = dict(zip(letters, lengths, strict=False))
    return sizes.get("Z", sizes.get("I")), sizes.get("Y"), sizes.get("X")


def _are_nanometres(numbers: Sequence[float]) -> bool:
    """Whether numbers without a unit can be nanometres; all of 1 say that no size was known."""
    low, high = _PLAUSIBLE
    return all(low <= number <= high for number in numbers) and set(numbers) != {1}


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _structure(value: Any) -> Any:
    """Return what JSON says, which HDF5 keeps as text; None where it is none."""
    texts = _texts(value)
    if len(texts) != 1:
        return value
    try:
        return json.loads(texts[0])
    except ValueError:
        return None


def _list_of_texts(value: Any) -> list[str]:
    """Return several texts; one text alone names no axes."""
    texts = _texts(value)
    return texts if len(texts) > 1 else []


def _texts(value: Any) -> list[str]:
    """Return one text or several as they are in JSON and in HDF5."""
    if isinstance(value, str | bytes | np.bytes_):
        value = [value]
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if not isinstance(value, list | tuple):
        return []
    words = [word.decode("utf-8", "replace") if isinstance(word, bytes) else word for word in value]
    return words if all(isinstance(word, str) for word in words) else []


def _numbers(value: Any) -> list[float]:
    """Return numbers of JSON or HDF5; none where an attribute holds something else."""
    if value is None or _texts(value):
        return []
    try:
        return [float(number) for number in np.ravel(value)]
    except (TypeError, ValueError):
        return []
