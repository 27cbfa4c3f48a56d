"""Finds, separates, counts and measures the objects of a class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed


def label_objects(
    classes: NDArray[np.integer[Any]],
    value: int | Sequence[int] | NDArray[np.integer[Any]],
    *,
    three_d: bool,
    min_size: int,
    separation: float,
) -> NDArray[np.int32]:
    """Give the objects of a class numbers.

    Pixels that share a side (voxels that share a face) belong to one object. With
    `separation`, touching objects are divided by a watershed of the distance to
    their border, if that distance falls by at least so many pixels between them.

    Parameters
    ----------
    classes : ndarray, (P, H, W) or (H, W), integer
        Class values of planes.
    value : int or sequence of int
        The classes whose objects are wanted; an object never joins two classes.
    three_d : bool
        Whether objects extend over several planes. This needs about 25 bytes for
        each voxel, and twice that with `separation`.
    min_size : int
        Objects of fewer pixels are removed, after touching ones were divided.
    separation : float
        In pixels. 0 divides no objects; the larger the number, the fewer are divided.

    Returns
    -------
    ndarray, as `classes`, int32
        0 where there is no object, else 1 to the number of objects.

    Raises
    ------
    TypeError
        If the classes are not integers.
    ValueError
        If the shape or a number is out of range.
    """
    if classes.dtype.kind not in "bui":
        raise TypeError(f"classes must be integers, got {classes.dtype}")
    if classes.ndim not in (2, 3):
        raise ValueError(f"classes must be (P, H, W) or (H, W), got shape {classes.shape}")
    if min_size < 0 or separation < 0:
        raise ValueError(
            f"min_size and separation must be at least 0, got {min_size} and {separation}"
        )
    objects = np.zeros(classes.shape, np.int32)
    parts = [(classes, objects)]
    if classes.ndim == 3 and not three_d:
        parts = list(zip(classes, objects, strict=True))
    count = 0
    for part, out in parts:
        for wanted in np.atleast_1d(value):
            found = _large(_components(part == wanted, separation), min_size)
            inside = found > 0
            out[inside] = found[inside] + count
            count += int(found.max(initial=0))
    return objects


def measure_objects(
    objects: NDArray[np.integer[Any]],
    spacing: Sequence[float] | None = None,
    unit: str = "nm",
    classes: NDArray[np.integer[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Measure numbered objects.

    Parameters
    ----------
    objects : ndarray, (P, H, W) or (H, W), integer
        From `label_objects`.
    spacing : sequence of two or three float, optional
        Size of a pixel (row, column), or of a voxel (plane, row, column).
    unit : str
        Unit of the spacing.
    classes : ndarray, as `objects`, optional
        Class values.

    Returns
    -------
    dict of str to ndarray, (count,)
        Columns of a table, an object a row, by ascending number: ``label``;
        ``plane``, ``row`` and ``column`` of the centroid, in pixels from 0;
        ``size_px``; with two spacings ``area_nm2``, with three ``volume_nm3``
        (or another unit); with `classes` ``class``.

    Raises
    ------
    ValueError
        If shapes do not fit, or the spacing has another length.
    """
    if objects.ndim not in (2, 3):
        raise ValueError(f"objects must be (P, H, W) or (H, W), got shape {objects.shape}")
    if classes is not None and classes.shape != objects.shape:
        raise ValueError(f"classes have shape {classes.shape} and objects {objects.shape}")
    if spacing is not None and len(spacing) not in (2, 3):
        raise ValueError(f"spacing must be of a pixel or a voxel, got {len(spacing)} numbers")
    place = np.nonzero(objects)
    number = objects[place]
    counts = np.bincount(number)
    labels = np.flatnonzero(counts)
    size = counts[labels]

    def centre(axis: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.bincount(number, weights=axis)[labels] / size

    centroid = [centre(axis) for axis in place]
    if objects.ndim == 2:
        centroid.insert(0, np.zeros(len(labels)))
    table: dict[str, NDArray[Any]] = {"label": labels.astype(np.int32)}
    table |= dict(zip(("plane", "row", "column"), centroid, strict=True))
    table["size_px"] = size
    if spacing is not None:
        name = f"area_{unit}2" if len(spacing) == 2 else f"volume_{unit}3"
        table[name] = size * float(np.prod(spacing))
    if classes is not None:
        values = np.zeros(len(counts), classes.dtype)
        values[number] = classes[place]
        table["class"] = values[labels]
    return table


def _components(mask: NDArray[np.bool_], separation: float) -> NDArray[np.integer[Any]]:
    components: NDArray[np.integer[Any]] = label(mask, connectivity=1)
    if separation == 0 or not mask.any():
        return components
    distance = distance_transform_edt(mask).astype(np.float32)
    # Removes maxima that rise by less than `separation` above the saddle to a higher one.
    levelled = reconstruction(distance - np.float32(separation), distance)
    markers = label(local_maxima(levelled) & mask)
    # An object that is thinner than `separation` has no maximum left; it is not divided.
    marked = np.zeros(components.max() + 1, bool)
    marked[components[markers > 0]] = True
    whole = mask & ~marked[components]
    markers[whole] = components[whole] + markers.max()
    cut: NDArray[np.integer[Any]] = watershed(-distance, markers, mask=mask)
    return cut


def _large(objects: NDArray[np.integer[Any]], min_size: int) -> NDArray[np.int32]:
    """Remove small objects and number the others without gaps."""
    counts = np.bincount(objects.ravel())
    kept = counts >= max(min_size, 1)
    kept[:1] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    numbered: NDArray[np.int32] = numbers[objects]
    return numbered
