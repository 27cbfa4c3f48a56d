"""OME-Zarr images, and plain zarr arrays and groups, of zarr 2 and 3."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr

from napari_affmae.config import ORIGIN_NAMESPACE
from napari_affmae.data.formats.containers import choose_array, is_image
from napari_affmae.data.formats.decoded import opened_chunks
from napari_affmae.data.formats.handles import OpenFile
from napari_affmae.data.formats.stored_planes import StoredPlanes, open_folder
from napari_affmae.data.sources.layout import named_axes
from napari_affmae.data.sources.source import Content
from napari_affmae.data.sources.units import pixel_size, to_nanometres

_Planes = Callable[["zarr.Array[Any]"], StoredPlanes]


def open_file(path: Path, inner: str | None, *, sparse: bool | None = None) -> OpenFile:
    """Open an OME-Zarr image at full resolution, or a zarr array.

    Parameters
    ----------
    path : Path
        Folder of the array or group.
    inner : str or None
        Array in a group without OME metadata; None takes the only or largest one.
    sparse : bool or None
        Whether planes without a stored chunk are read as the fill value; see
        `StoredPlanes`.

    Raises
    ------
    ValueError
        If `inner` is not there or the choice is ambiguous.
    """
    node = open_folder(path)

    def planes(array: zarr.Array[Any]) -> StoredPlanes:
        return StoredPlanes(array, path, sparse=sparse)

    if isinstance(node, zarr.Array):
        return _open_array(node, planes)
    if inner is None and (multiscale := _multiscale(node.attrs)) is not None:
        file = _open_multiscale(node, multiscale, planes)
        return replace(file, content=_content(node.attrs))
    arrays = {
        name: item
        for name, item in node.members(max_depth=None)
        if isinstance(item, zarr.Array) and is_image(item.shape, item.dtype)
    }
    name = choose_array({key: item.shape for key, item in arrays.items()}, inner)
    notes = () if inner or len(arrays) == 1 else (f"its largest array {name} is used",)
    return _open_array(arrays[name], planes, notes)


def _open_array(array: zarr.Array[Any], planes: _Planes, notes: Sequence[str] = ()) -> OpenFile:
    """Open an array without OME metadata; zarr 3 may name its axes."""
    names = getattr(array.metadata, "dimension_names", None)
    return opened_chunks(planes(array), names and named_axes(names, array.shape), notes=notes)


def _multiscale(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """First image of a group, by OME-Zarr 0.5 (under "ome") or earlier."""
    metadata = attributes.get("ome", attributes)
    multiscales = metadata.get("multiscales")
    return multiscales[0] if multiscales else None


def _content(attributes: Mapping[str, Any]) -> Content:
    """Tell labels, which OME-Zarr marks, and results of this program from images."""
    if ORIGIN_NAMESPACE in attributes:
        return "result"
    return "labels" if "image-label" in attributes.get("ome", attributes) else "image"


def _open_multiscale(group: zarr.Group, multiscale: Mapping[str, Any], planes: _Planes) -> OpenFile:
    dataset = multiscale["datasets"][0]
    array = group.get(dataset["path"])
    if not isinstance(array, zarr.Array):
        raise ValueError(
            f"its metadata say that the full resolution is in {dataset['path']!r}, "
            "where no array is; choose one by its name behind the path, as in folder.zarr:/name"
        )
    axes = multiscale.get("axes")
    if axes is None:
        return opened_chunks(planes(array), "TCZYX"[-array.ndim :])
    named = [axis if isinstance(axis, dict) else {"name": axis} for axis in axes]
    names = [
        "channel" if len(axis["name"]) > 1 and axis.get("type") == "channel" else axis["name"]
        for axis in named
    ]
    letters = named_axes(names, array.shape)
    if letters is None:
        raise ValueError(
            f"its metadata name the axes {names}, which do not fit shape {array.shape} "
            "or do not have one Y and one X"
        )
    sizes = _scale(multiscale, dataset, named)
    file = opened_chunks(planes(array), letters, pixel_size(sizes.get("Y"), sizes.get("X")))
    return replace(file, plane_distance=sizes.get("Z"))


def _scale(
    multiscale: Mapping[str, Any], dataset: Mapping[str, Any], axes: list[dict[str, Any]]
) -> dict[str, float | None]:
    """Nanometres a step along each axis: the product of the level's scale and the image's."""
    scale = [1.0] * len(axes)
    found = False
    # Scales with a wrong number of axes are ignored.
    for holder in (dataset, multiscale):
        for transform in holder.get("coordinateTransformations", ()):
            if transform.get("type") == "scale" and len(transform["scale"]) == len(axes):
                found = True
                scale = [a * float(b) for a, b in zip(scale, transform["scale"], strict=True)]
    if not found:
        return {}
    return {
        str(axis["name"]).upper(): to_nanometres(value, axis.get("unit"))
        for axis, value in zip(axes, scale, strict=True)
    }
