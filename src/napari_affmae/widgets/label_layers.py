"""Labels layers to paint on: made to fit an image, and dressed in the classes' colours."""

from collections.abc import Sequence
from typing import Any

import napari
import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_affmae.config import LabelClass
from napari_affmae.widgets.layer_sources import full_resolution, layer_geometry

# Above this, an array of which only the painted chunks take memory.
_LARGEST_IN_MEMORY = 2**30
_CHUNK = 512
_NOTHING = (0.0, 0.0, 0.0, 0.0)


def label_shape(image: Image) -> tuple[int, ...]:
    """Return the shape that labels of an image have."""
    shape = tuple(int(size) for size in full_resolution(image).shape)
    return shape[:-1] if image.rgb else shape


def fits(image: Image, labels: Labels) -> bool:
    """Tell whether labels have the shape of an image."""
    return tuple(full_resolution(labels).shape) == label_shape(image)


def add_labels_layer(viewer: "napari.viewer.Viewer", image: Image) -> Labels:
    """Add an empty labels layer at the place of an image, ready to be painted on."""
    shape = label_shape(image)
    layer = Labels(
        empty_labels(shape), name=f"{image.name} labels", opacity=0.7, **layer_geometry(image)
    )
    viewer.add_layer(layer)
    layer.n_edit_dimensions = 2
    layer.brush_size = int(np.clip(min(shape[-2:]) // 50, 3, 20))
    layer.mode = "paint"
    return layer


def empty_labels(shape: tuple[int, ...]) -> Any:
    """Make an array of zeros to paint on; a huge one takes memory only where it is painted."""
    if np.prod(shape, dtype=float) <= _LARGEST_IN_MEMORY:
        return np.zeros(shape, np.uint8)
    import zarr

    chunks = (*(1 for _ in shape[:-2]), *(min(_CHUNK, size) for size in shape[-2:]))
    return zarr.create_array(
        store=zarr.storage.MemoryStore(), shape=shape, chunks=chunks, dtype="uint8", fill_value=0
    )


def show_classes(layer: Labels, classes: Sequence[LabelClass]) -> None:
    """Give a layer the colours of classes, and their names for the status bar."""
    colors: dict[int | None, Any] = {item.value: item.color for item in classes}
    # What has no class is shown too, or it could not be found and corrected.
    layer.colormap = DirectLabelColormap(color_dict={None: "white", **colors, 0: _NOTHING})
    layer.features = {
        "index": [item.value for item in classes],
        "class": [item.name for item in classes],
    }


def classes_of(layer: Labels) -> tuple[LabelClass, ...]:
    """Read back what `show_classes` wrote; () where it did not."""
    features = layer.features
    if not {"index", "class"} <= set(features.columns):
        return ()
    return tuple(
        LabelClass(value=int(value), name=str(name), color=_hex(layer.get_color(int(value))))
        for value, name in zip(features["index"], features["class"], strict=True)
        if value > 0
    )


def _hex(color: Any) -> str:
    return "#" + "".join(f"{round(float(part) * 255):02x}" for part in color[:3])
