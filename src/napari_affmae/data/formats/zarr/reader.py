"""OME-Zarr images, and plain zarr arrays and groups, of zarr 2 and 3."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import zarr

from napari_affmae.config import ORIGIN_NAMESPACE
from napari_affmae.data.formats.arrays.decoded import ChunkedArray, opened_chunks
from napari_affmae.data.formats.files.handles import OpenFile
from napari_affmae.data.formats.files.image_folders import ZARR_MARKERS
from napari_affmae.data.formats.metadata.attributes import axes_of, voxel_size_of
from napari_affmae.data.formats.metadata.containers import choose_array, is_image
from napari_affmae.data.formats.zarr.stored_planes import StoredPlanes, open_folder
from napari_affmae.data.sources.class_metadata import classes_in_image_label
from napari_affmae.data.sources.layout import named_axes
from napari_affmae.data.sources.source import Content
from napari_affmae.data.sources.units import pixel_size, to_nanometres

_MOST_LEVELS = 16  # of groups in groups, as links may go round
_MANY_IMAGES = "bioformats2raw.layout"


@dataclass(frozen=True)
class ZarrStore:
    """An opened store, wherever it is.

    Attributes
    ----------
    node : zarr.Array or zarr.Group
        What is at its root.
    paths : callable
        Lists the paths of the arrays and groups below the root, without asking zarr, which
        warns of every other file that it meets.
    reading : callable
        Makes of an array what is read of it.
    """

    node: "zarr.Array[Any] | zarr.Group"
    paths: Callable[[], Iterable[str]]
    reading: Callable[["zarr.Array[Any]"], ChunkedArray]


def open_file(path: Path, inner: str | None, *, sparse: bool | None = None) -> OpenFile:
    """Open an OME-Zarr image at full resolution, or a zarr array.

    Parameters
    ----------
    path : Path
        Folder of the array or group.
    inner : str or None
        Array or image in a group; None takes the group's image, the first of several
        that were converted together, or the only or largest array.
    sparse : bool or None
        Whether planes without a stored chunk are read as the fill value; see
        `StoredPlanes`.

    Raises
    ------
    ValueError
        If `inner` is not there or the choice is ambiguous.
    """

    def reading(array: "zarr.Array[Any]") -> StoredPlanes:
        return StoredPlanes(array, path, sparse=sparse)

    return open_image(ZarrStore(open_folder(path), partial(_paths_below, path), reading), inner)


def _paths_below(folder: Path, parents: str = "") -> Iterator[str]:
    """Paths of the arrays and groups in a folder, with all groups in groups."""
    if parents.count("/") >= _MOST_LEVELS:
        return
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    for name in names:
        if any((folder / name / marker).is_file() for marker in ZARR_MARKERS):
            yield f"{parents}{name}"
            yield from _paths_below(folder / name, f"{parents}{name}/")


def as_stored(array: "zarr.Array[Any]") -> "zarr.Array[Any]":
    """Take what a store does not hold for the fill value, as zarr does."""
    return array


def open_image(store: ZarrStore, inner: str | None) -> OpenFile:
    """Open the image of a store; arguments and errors are those of `open_file`."""
    node = store.node
    if isinstance(node, zarr.Array):
        return _open_array(node, [], store)
    if inner is not None:
        found = node.get(inner.strip("/"))
        if isinstance(found, zarr.Array) and is_image(found.shape, found.dtype):
            return _open_array(found, _groups_of(node, inner), store)
        if isinstance(found, zarr.Group) and _multiscale(found.attrs):
            return _open_multiscale(found, store)
    elif _multiscale(node.attrs):
        return _open_multiscale(node, store)
    elif series := _series(node):
        first = node.get(series[0])
        if isinstance(first, zarr.Group) and _multiscale(first.attrs):
            opened = _open_multiscale(first, store)
            note = f"holds {len(series)} images: {', '.join(series)}; the first is used"
            return replace(opened, notes=[note] if series[1:] else [])
    members = ((path, node.get(path)) for path in store.paths())
    arrays = {
        path: item
        for path, item in members
        if isinstance(item, zarr.Array) and is_image(item.shape, item.dtype)
    }
    name = choose_array({path: item.shape for path, item in arrays.items()}, inner)
    opened = _open_array(arrays[name], _groups_of(node, name), store)
    note = f"its largest array {name} is used"
    return opened if len(arrays) == 1 else replace(opened, notes=[note])


def _groups_of(root: zarr.Group, path: str) -> list[tuple[zarr.Group, str]]:
    """Return the groups that an array is in, the innermost first, with its path in each."""
    parts = path.strip("/").split("/")
    found: list[tuple[zarr.Group, str]] = []
    for cut in range(len(parts) - 1, -1, -1):
        group = root.get("/".join(parts[:cut])) if cut else root
        if isinstance(group, zarr.Group):
            found.append((group, "/".join(parts[cut:])))
    return found


def _series(group: zarr.Group) -> list[str]:
    """Names of the images in a group of bioformats2raw; none if it is no such group."""
    if _MANY_IMAGES not in _ome(group.attrs):
        return []
    listing = group.get("OME")
    listed = _ome(listing.attrs).get("series") if isinstance(listing, zarr.Group) else None
    return [str(name) for name in listed] if listed else ["0"]


def _ome(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return OME metadata, which are below "ome" since OME-Zarr 0.5."""
    found = attributes.get("ome", attributes)
    return found if isinstance(found, Mapping) else {}


def _open_array(
    array: "zarr.Array[Any]", groups: list[tuple[zarr.Group, str]], store: ZarrStore
) -> OpenFile:
    """Open an array, described by the image that it is a resolution of, or by itself."""
    for group, path in groups:
        multiscale = _multiscale(group.attrs) or {}
        for dataset in multiscale.get("datasets", ()):
            if dataset["path"].strip("/") == path:
                return _open_dataset(array, multiscale, dataset, store)
    names = getattr(array.metadata, "dimension_names", None)
    axes = names and named_axes(names, array.shape)
    axes = axes or axes_of(array.attrs, array.shape)
    attributes = [array.attrs, *(group.attrs for group, _ in groups)]
    plane, row, column = voxel_size_of(attributes, axes)
    opened = opened_chunks(store.reading(array), axes, pixel_size(row, column))
    return replace(opened, plane_distance=plane)


def _multiscale(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """First image that a group's attributes describe."""
    multiscales = _ome(attributes).get("multiscales")
    return multiscales[0] if multiscales else None


def _content(attributes: Mapping[str, Any]) -> Content:
    """Tell labels, which OME-Zarr marks, and results of this program from images."""
    if ORIGIN_NAMESPACE in attributes:
        return "result"
    return "labels" if "image-label" in _ome(attributes) else "image"


def _open_multiscale(group: zarr.Group, store: ZarrStore) -> OpenFile:
    multiscale = _multiscale(group.attrs) or {}
    dataset = multiscale["datasets"][0]
    array = group.get(dataset["path"])
    if not isinstance(array, zarr.Array):
        raise ValueError(
            f"its metadata say that the full resolution is in {dataset['path']!r}, "
            "where no array is; choose one by its name behind the path, as in folder.zarr:/name"
        )
    opened = _open_dataset(array, multiscale, dataset, store)
    classes = classes_in_image_label(_ome(group.attrs).get("image-label"))
    return replace(opened, classes=classes, content=_content(group.attrs))


def _open_dataset(
    array: "zarr.Array[Any]",
    multiscale: Mapping[str, Any],
    dataset: Mapping[str, Any],
    store: ZarrStore,
) -> OpenFile:
    """Open one resolution of an image."""
    axes = multiscale.get("axes")
    if axes is None:
        return opened_chunks(store.reading(array), "TCZYX"[-array.ndim :])
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
    file = opened_chunks(store.reading(array), letters, pixel_size(sizes.get("Y"), sizes.get("X")))
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
