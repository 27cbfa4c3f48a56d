"""The plane and the rectangle of a layer that the viewer shows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import napari
import numpy as np
from napari.layers import Layer

from napari_affmae.data.sources.layout import plane_number
from napari_affmae.widgets.layers.layer_sources import full_resolution
from napari_affmae.widgets.layers.napari_private import canvas_size

SMALLEST = 64
# Longest side of the part of a view that is predicted, in pixels: the user waits for it.
_LARGEST = 1024
#: Message for a view that is larger.
PART_ONLY = (
    f"The view is large: its middle {_LARGEST} x {_LARGEST} pixels are predicted. "
    "Zoom in to see the rest."
)


@dataclass(frozen=True)
class LayerView:
    """A rectangle of one plane of a layer, in pixels of its full resolution.

    Attributes
    ----------
    indices : tuple of int
        Position on the axes before rows and columns.
    plane : int
        The same as one number, the last axis fastest.
    rows, columns : slice
        The rectangle.
    is_part : bool
        Whether the view was larger than this rectangle.
    """

    indices: tuple[int, ...]
    plane: int
    rows: slice
    columns: slice
    is_part: bool = False


def camera_of(viewer: "napari.viewer.Viewer") -> Any:
    """Return the viewer's camera, which moved to its scene in napari 0.9."""
    return getattr(viewer, "scene", viewer).camera


def view_of(viewer: "napari.viewer.Viewer", layer: Layer) -> LayerView:
    """Return the part of a layer that is in view.

    Raises
    ------
    ValueError
        If the viewer shows the layer along other axes than its rows and
        columns, in 3-D, or nothing of it.
    """
    indices, plane = plane_of(viewer, layer)
    rows, columns = _rectangle(viewer, layer, pixel_shape(layer))
    return LayerView(indices, plane, rows, columns)


def plane_of(viewer: "napari.viewer.Viewer", layer: Layer) -> tuple[tuple[int, ...], int]:
    """Return the position of the shown plane of a layer, and the same as one number.

    Raises
    ------
    ValueError
        If the viewer shows the layer along other axes than its rows and
        columns, or in 3-D.
    """
    shape = pixel_shape(layer)
    shown = viewer.dims.displayed
    if viewer.dims.ndisplay != 2 or tuple(shown) != (viewer.dims.ndim - 2, viewer.dims.ndim - 1):
        raise ValueError(
            "the viewer must show rows and columns of the image in 2-D; "
            "switch the 3-D view off, or undo the change of axes"
        )
    point = np.asarray(layer.world_to_data(viewer.dims.point))[-len(shape) :]
    indices = tuple(
        int(np.clip(round(float(value)), 0, size - 1))
        for value, size in zip(point[:-2], shape[:-2], strict=True)
    )
    return indices, plane_number(indices, shape[:-2])


def look_at(viewer: "napari.viewer.Viewer", layer: Layer, place: Sequence[float]) -> None:
    """Bring a place into the middle of the view.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    layer : napari.layers.Layer
        The layer that the place belongs to.
    place : sequence of float
        Its index in the layer's array, at full resolution.
    """
    world = layer.data_to_world(place)
    first_axis = viewer.dims.ndim - len(world)
    for axis, position in enumerate(world[:-2], first_axis):
        viewer.dims.set_point(axis, position)
    camera_of(viewer).center = tuple(world[-3:])


def pixel_shape(layer: Layer) -> tuple[int, ...]:
    """Return the shape of a layer's full resolution, without a colour axis."""
    shape = tuple(int(size) for size in full_resolution(layer).shape)
    return shape[:-1] if getattr(layer, "rgb", False) else shape


def _rectangle(
    viewer: "napari.viewer.Viewer", layer: Layer, shape: tuple[int, ...]
) -> tuple[slice, slice]:
    """Find the pixels inside the canvas: at least `SMALLEST` a side, if the image is as large.

    napari's `corner_pixels` cover more than the view for multiscale layers, and are the
    same for an image beyond the canvas and for one whose edge is in view.
    """
    camera = camera_of(viewer)
    half = np.asarray(canvas_size(viewer)) / 2 / camera.zoom
    corners = []
    for signs in product((-1, 1), repeat=2):
        place = np.asarray(viewer.dims.point)
        place[-2:] = np.asarray(camera.center)[-2:] + signs * half
        corners.append(np.asarray(layer.world_to_data(place))[-2:])
    parts = []
    for low, high, size in zip(np.min(corners, 0), np.max(corners, 0), shape[-2:], strict=True):
        # The coordinate i is the middle of pixel i.
        start, stop = max(0, int(np.floor(low + 0.5))), min(size, int(np.ceil(high + 0.5)))
        if start >= stop:
            raise ValueError("nothing of the image is in view: move it into the view")
        least = min(SMALLEST, size)
        start = max(0, min(start, stop - least))
        parts.append(slice(start, max(stop, start + least)))
    return parts[0], parts[1]


def shown_part(viewer: "napari.viewer.Viewer", layer: Layer) -> LayerView:
    """Return the part of a layer that is in view; if it is large, its middle.

    Raises
    ------
    ValueError
        As `view_of`.
    """
    return middle(view_of(viewer, layer), _LARGEST)


def middle(view: LayerView, largest: int) -> LayerView:
    """Return the middle of a view, no more than `largest` pixels a side."""

    def cut(part: slice) -> slice:
        spare = max(0, part.stop - part.start - largest)
        start = part.start + spare // 2
        return slice(start, min(part.stop, start + largest))

    rows, columns = cut(view.rows), cut(view.columns)
    is_part = (rows, columns) != (view.rows, view.columns)
    return replace(view, rows=rows, columns=columns, is_part=is_part)
