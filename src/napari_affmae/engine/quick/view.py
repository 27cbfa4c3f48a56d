"""Prediction of a part of a plane from kept features."""

import math
from collections.abc import Generator

import numpy as np
import torch
from numpy.typing import NDArray

from napari_affmae.engine.events import TileDone
from napari_affmae.engine.quick.features import FeatureStore, TileCount
from napari_affmae.engine.quick.strokes import QuickView
from napari_affmae.model import QuickSegmenter
from napari_affmae.model.quick.local_features import REACH, gaussian_blur


def predict_view(
    module: QuickSegmenter, store: FeatureStore, view: QuickView
) -> Generator[TileDone, None, NDArray[np.float32]]:
    """Predict a view in bands of rows, so that not all its features are needed at once.

    Parameters
    ----------
    module : QuickSegmenter
        The network.
    store : FeatureStore
        Its features.
    view : QuickView
        The view to predict; its labels are not used.

    Yields
    ------
    TileDone
        After each tile and each band.

    Returns
    -------
    ndarray
        (classes, rows, columns) float32 probabilities.

    Raises
    ------
    OutOfMemoryError
        If memory runs out.
    UnreadableFileError
        If the image's file is damaged.
    """
    patch, tile, extent = store.patch, store.tile, store.extent(view.source)
    bounds = view.bounds()
    # Border around the view that interpolation and blur need.
    margin = patch + math.ceil(REACH * module.smoothness)
    rows, columns = (
        _around(part, margin, patch, size) for part, size in zip(bounds, extent, strict=True)
    )
    progress = TileCount(len(store.missing(view.source, view.plane, rows, columns)))
    bands = []
    for start in range(rows.start, rows.stop, tile // 2):
        stop = min(start + tile // 2, rows.stop)
        needed = _around(slice(start, stop), patch, patch, extent[0])
        yield from store.fill(view.source, view.plane, needed, columns, progress)
        with store.working(), torch.inference_mode():
            features = store.assemble(view.source, view.plane, needed, columns)
            logits = module.head.classify(features, patch)
            bands.append(logits[:, :, start - needed.start : stop - needed.start])
        yield progress.event(view.plane)
    with store.working(), torch.inference_mode():
        blurred = gaussian_blur(torch.cat(bands, dim=2), module.smoothness)[0]
        inner = [
            slice(part.start - around.start, part.stop - around.start)
            for part, around in zip(bounds, (rows, columns), strict=True)
        ]
        probabilities: NDArray[np.float32] = blurred[:, inner[0], inner[1]].softmax(0).cpu().numpy()
        return probabilities


def _around(part: slice, margin: int, multiple: int, size: int) -> slice:
    """Widen a slice to multiples within an axis."""
    start = max(0, part.start - margin) // multiple * multiple
    return slice(start, min(size, -(-(part.stop + margin) // multiple) * multiple))
