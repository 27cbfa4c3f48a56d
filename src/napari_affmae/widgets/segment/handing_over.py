"""Accepted objects are handed to the dock that fine-tunes, to be learned from."""

from itertools import product

import napari
import numpy as np
from napari.layers import Image

from napari_affmae.widgets.layers.docks import open_dock
from napari_affmae.widgets.layers.label_layers import Painting
from napari_affmae.widgets.segment.corrections import Corrections
from napari_affmae.widgets.segment.job import ResultReady


def hand_over(viewer: "napari.viewer.Viewer", ready: ResultReady, corrections: Corrections) -> None:
    """Put accepted objects beside the strokes, in the dock that fine-tunes.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    ready : ResultReady
        The segmentation in which they were found.
    corrections : Corrections
        Knows which are accepted.

    Raises
    ------
    ValueError
        If the image is not open as a layer.
    """
    images = (one for one in viewer.layers if isinstance(one, Image) and one.name == ready.name)
    image = next(images, None)
    if image is None:
        raise ValueError(
            f"the image {ready.name!r} is not open as a layer: open it, to learn from its objects"
        )
    dock = open_dock(viewer, "2. Fine-tune")
    dock.take_accepted(image, _paintings(ready, corrections), ready.result.classes)


def _paintings(ready: ResultReady, corrections: Corrections) -> list[Painting]:
    """Return the accepted objects plane by plane, with the values of their classes."""
    values = {item.name: item.value for item in ready.result.classes}
    lead, origin = ready.result.shape[:-2], ready.origin
    paintings = []
    for box, shape, name in corrections.accepted():
        if name not in values:
            continue  # a number that was painted by hand, of which no class is known
        rows, columns = (
            slice(part.start + first, part.stop + first)
            for part, first in zip(box[-2:], origin[1:], strict=True)
        )
        for inner in product(*(range(size) for size in shape.shape[:-2])):
            where = tuple(part.start + i for part, i in zip(box, inner, strict=False))
            plane = int(np.ravel_multi_index(where, lead)) if lead else 0
            painted = np.where(shape[inner], values[name], 0).astype(np.uint16)
            if painted.any():
                paintings.append(Painting(plane + origin[0], rows, columns, painted))
    return paintings
