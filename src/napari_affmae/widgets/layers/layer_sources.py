"""Layers as images and labels that the engine reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.transforms import Affine
from numpy.typing import NDArray

from napari_affmae.data.sources.layout import Layout
from napari_affmae.data.sources.source import ImageSource, PixelSize
from napari_affmae.data.sources.units import pixel_size, to_nanometres
from napari_affmae.errors import DataError
from napari_affmae.widgets.layers.edits import EditLog

_COLOURS = (0, 1, 2)
_NOTHING = 1e-9
_OWN = "napari-affmae"
#: Metadata of layers that the plugin makes to show something.
OWN = {_OWN: "shown"}


class LayerImage(ImageSource):
    """The array of an image layer, read piece by piece.

    The source keeps the array that the layer has now: a run can continue when the layer is
    renamed, moved, or deleted. For a multiscale layer, the full resolution is read; for an
    RGBA layer, the transparency is ignored.

    Parameters
    ----------
    layer : napari.layers.Image
        Its last two axes (of data, not of the view) are rows and columns.
    channels : sequence of int, optional
        Channels of an RGB layer to read; all three by default.
    """

    def __init__(self, layer: Image, channels: Sequence[int] | None = None) -> None:
        self._array, self._rgb = full_resolution(layer), layer.rgb
        shape = tuple(int(size) for size in self._array.shape)
        tail = "YXS" if layer.rgb else "YX"
        super().__init__(
            layer.name,
            Layout(shape, "I" * (len(shape) - len(tail)) + tail),
            np.dtype(self._array.dtype),
            pixel_size=_pixel_size(layer),
            channels=channels or (_COLOURS if layer.rgb else None),
        )

    def reads(self, layer: Image, channels: Sequence[int] | None = None) -> bool:
        """Return whether the layer still has this array, and these channels are read."""
        wanted = channels or (_COLOURS if layer.rgb else (0,))
        return (
            self._array is full_resolution(layer)
            and self._rgb == layer.rgb
            and self.channels == tuple(wanted)
        )

    def _fetch(self, index: tuple[Any, ...]) -> NDArray[Any]:
        return np.asarray(self._array[index])


class LayerLabels(ImageSource):
    """The labels of a layer, including strokes that are painted later.

    Parameters
    ----------
    layer : napari.layers.Labels
        The layer that the user paints on.
    """

    def __init__(self, layer: Labels) -> None:
        self._layer = layer
        array = full_resolution(layer)
        shape = tuple(int(size) for size in array.shape)
        super().__init__(
            layer.name,
            Layout(shape, "I" * (len(shape) - 2) + "YX"),
            np.dtype(array.dtype),
            pixel_size=_pixel_size(layer),
        )
        self.edits = EditLog(layer)

    def revision(self, plane: int) -> int:
        """Count the changes that may have touched a plane."""
        return self.edits.revision(plane)

    def changed_since(self, plane: int, revision: int) -> tuple[slice, slice] | None:
        """Return rows and columns that hold all changes of a plane since it had a revision.

        See `EditLog.changed_since`: the whole plane where they are not known, None if
        there are none.
        """
        return self.edits.changed_since(plane, revision)

    def _fetch(self, index: tuple[Any, ...]) -> NDArray[Any]:
        array = full_resolution(self._layer)
        if tuple(array.shape) != self.layout.shape:
            raise DataError(
                f"the labels {self.name!r} have changed from shape {self.layout.shape} to "
                f"{tuple(array.shape)} since the run was started; start it again"
            )
        return np.asarray(array[index])


def is_own(layer: Layer) -> bool:
    """Return whether the plugin made a layer to show something; it is not offered as input."""
    return _OWN in layer.metadata


def full_resolution(layer: Layer) -> Any:
    """Return the array of a layer; for a multiscale layer, that of its finest level."""
    return layer.data[0] if layer.multiscale else layer.data


def _pixel_size(layer: Layer) -> PixelSize | None:
    """Return (row, column) in nanometres, or None if the layer's units are not lengths."""
    row, column = step_sizes(layer_geometry(layer))[-2:]
    return pixel_size(row, column)


def layer_geometry(layer: Layer) -> dict[str, Any]:
    """Return the settings that place another layer with the same axes on this one.

    Returns
    -------
    dict
        ``scale``, ``translate``, ``rotate``, ``shear``, ``affine``, ``units``
        and ``axis_labels``, as layers take them.
    """
    names = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
    return {name: getattr(layer, name) for name in names}


def step_sizes(geometry: Mapping[str, Any]) -> list[float | None]:
    """Return the distance between pixels along each axis, after all transforms of the layer.

    Rows are measured perpendicular to the columns, and planes perpendicular to both: the
    product of the sizes is the area or volume of a pixel, even in a sheared layer.

    Parameters
    ----------
    geometry : Mapping[str, Any]
        From `layer_geometry` or `source_geometry`.

    Returns
    -------
    list of float or None
        Nanometres; None for axes whose units are not lengths.
    """
    factors = np.array([to_nanometres(1.0, str(unit)) or np.nan for unit in geometry["units"]])
    within = Affine(**{name: geometry[name] for name in ("scale", "rotate", "shear")})
    matrix = geometry["affine"].linear_matrix @ within.linear_matrix
    # Rotations leave rounding errors where the matrix should be zero.
    matrix[np.abs(matrix) < _NOTHING * np.abs(matrix).max(axis=0)] = 0
    unknown = ((matrix != 0) & np.isnan(factors)[:, None]).any(axis=0)
    # Each axis is measured perpendicular to those after it: hence the reversed order.
    placed = (matrix * np.nan_to_num(factors, nan=1.0)[:, None])[:, ::-1]
    sizes = np.abs(np.diag(np.linalg.qr(placed, mode="r")))[::-1]
    return [
        None if hidden else round(float(size), 6)
        for size, hidden in zip(sizes, unknown, strict=True)
    ]


def shifted(geometry: Mapping[str, Any], corner: Sequence[int]) -> dict[str, Any]:
    """Return the geometry of a part of a layer, whose first pixel is at `corner`.

    Parameters
    ----------
    geometry : Mapping[str, Any]
        Geometry of the whole layer, from `layer_geometry`.
    corner : sequence of int
        Index of the part's first pixel in the layer's array.
    """
    names = ("scale", "translate", "rotate", "shear")
    placed = Affine(**{name: geometry[name] for name in names})
    return {**geometry, "translate": placed(np.asarray(corner, float))}


def source_geometry(source: ImageSource) -> dict[str, Any]:
    """Return the geometry of a layer for an image that is not open: its pixel sizes, if known.

    If the distance of the planes is not known, they are shown as far apart as rows, but
    the unit of that axis stays "pixel".
    """
    row, column = source.pixel_size or (1.0, 1.0)
    ndim = len(source.plane_shape) + 2
    scale, units = [row] * (ndim - 1) + [column], ["pixel"] * ndim
    if source.pixel_size is not None:
        units[-2:] = ["nm", "nm"]
        if source.plane_distance is not None:
            scale[-3], units[-3] = source.plane_distance, "nm"
    # A layer turns these into the objects that `layer_geometry` returns.
    return layer_geometry(Image(np.zeros((1,) * ndim), scale=scale, units=units))
