"""Labels layers to paint on: how they are made for an image, and show classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_affmae.config import LabelClass
from napari_affmae.widgets.layers.layer_sources import layer_geometry
from napari_affmae.widgets.layers.view import pixel_shape

if TYPE_CHECKING:
    import pandas as pd

# Labels of more bytes than this are kept in an array whose empty chunks take no memory.
_LARGEST_IN_MEMORY = 2**30
_CHUNK = 512
_NOTHING = (0.0, 0.0, 0.0, 0.0)
# Keys of a layer's metadata. A layer's features hold the classes too, but other plugins may
# write columns of the same names.
_CLASSES = "napari-affmae classes"
_RESULT = "napari-affmae result"
#: Metadata of labels that a network predicted: no training must learn from them by default.
RESULT = {_RESULT: True}


@dataclass(frozen=True)
class Painting:
    """Class values for a rectangle of a plane of an image, 0 where nothing is said."""

    plane: int
    rows: slice
    columns: slice
    values: NDArray[Any]


def fits(image: Image, labels: Labels) -> bool:
    """Return whether labels have the shape of an image."""
    return pixel_shape(labels) == pixel_shape(image)


def may_be_for(image: Image, labels: Labels) -> bool:
    """Return whether labels fit an image and were made to learn from."""
    return classes_of(labels) is not None and _RESULT not in labels.metadata and fits(image, labels)


def is_result(layer: Layer) -> bool:
    """Return whether a network made a layer's labels, or objects were found in such labels."""
    return _RESULT in layer.metadata


def is_named_for(image: Image, labels: Labels) -> bool:
    """Return whether labels bear an image's name, as those of `add_labels_layer` do."""
    name = _name_for(image)
    return labels.name == name or labels.name.startswith(f"{name} [")  # napari numbers namesakes


def painted_classes(viewer: "napari.viewer.Viewer", image: Image) -> frozenset[str]:
    """Return the names of the classes of the labels layer that was made for an image."""
    layers = (one for one in viewer.layers if isinstance(one, Labels) and is_named_for(image, one))
    return frozenset(
        item.name for one in layers if may_be_for(image, one) for item in classes_of(one) or ()
    )


def _name_for(image: Image) -> str:
    return f"{image.name} labels"


def add_labels_layer(
    viewer: "napari.viewer.Viewer", image: Image, array: Any | None = None
) -> Labels:
    """Add a labels layer at the place of an image, ready to be painted on.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    image : napari.layers.Image
        The image.
    array : array, optional
        What is painted already; empty without it.
    """
    shape = pixel_shape(image)
    layer = Labels(
        empty_labels(shape) if array is None else array,
        name=_name_for(image),
        opacity=0.7,
        metadata={_CLASSES: []},
        **layer_geometry(image),
    )
    viewer.add_layer(layer)
    layer.n_edit_dimensions = 2
    layer.brush_size = int(np.clip(min(shape[-2:]) // 50, 3, 20))
    layer.mode = "paint"
    return layer


def empty_labels(shape: tuple[int, ...], dtype: Any = np.uint8) -> Any:
    """Make an array of zeros to paint on; a huge one takes memory only where it is painted."""
    if np.prod(shape, dtype=float) * np.dtype(dtype).itemsize <= _LARGEST_IN_MEMORY:
        return np.zeros(shape, dtype)
    import zarr

    chunks = (*(1 for _ in shape[:-2]), *(min(_CHUNK, size) for size in shape[-2:]))
    return zarr.create_array(
        store=zarr.storage.MemoryStore(), shape=shape, chunks=chunks, dtype=dtype, fill_value=0
    )


def show_classes(layer: Labels, classes: Sequence[LabelClass]) -> None:
    """Give a layer the colours of classes, their names for the status bar, and note the classes.

    Other columns of the layer's table of features stay.
    """
    colors: dict[int | None, Any] = {item.value: item.color for item in classes}
    # Values without a class are shown in white, so that the user finds and corrects them.
    layer.colormap = DirectLabelColormap(color_dict={None: "white", **colors, 0: _NOTHING})
    layer.features = _named(layer.features, classes)
    layer.metadata = {**layer.metadata, _CLASSES: [item.model_dump() for item in classes]}


def classes_of(layer: Labels) -> tuple[LabelClass, ...] | None:
    """Read back the classes that `show_classes` noted.

    Returns
    -------
    tuple of LabelClass or None
        Empty for a new layer from `add_labels_layer`; None for any other layer, whose
        values may mean anything.
    """
    noted = layer.metadata.get(_CLASSES)
    return None if noted is None else tuple(LabelClass(**item) for item in noted)


def _named(features: "pd.DataFrame", classes: Sequence[LabelClass]) -> "pd.DataFrame":
    """Name the classes in a table with a row for each value, as the status bar reads it."""
    import pandas as pd  # not earlier: it takes as long as all else of a dock

    others = features.drop(columns="class", errors="ignore")
    if "index" not in others:  # without this column, napari takes a row's number as the value
        others.insert(0, "index", range(len(others)))
    others = others.dropna(how="all", subset=others.columns.difference(["index"]))
    names = {"index": [item.value for item in classes], "class": [item.name for item in classes]}
    return others.merge(pd.DataFrame(names), how="outer", on="index")
