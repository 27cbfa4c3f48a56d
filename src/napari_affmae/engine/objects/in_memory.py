"""Finds, separates, counts and measures the objects of a class."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_affmae.engine.objects.pieces import (
    find_pieces,
    linked,
    numbered,
    overlaps,
)
from napari_affmae.engine.objects.sums import Position, base_columns, sums_of


def label_objects(
    classes: NDArray[np.integer[Any]],
    value: int | Sequence[int] | NDArray[np.integer[Any]],
    *,
    three_d: bool,
    min_size: int,
    separation: float,
    link: Literal["touch", "overlap"] = "touch",
    link_iou: float = 0.25,
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
        Whether objects extend over several planes. With `separation` this needs about 50
        bytes for each voxel.
    min_size : int
        Objects of fewer pixels are removed, after touching ones were divided.
    separation : float
        In pixels. 0 divides no objects; the larger the number, the fewer are divided.
    link : "touch" or "overlap"
        With `three_d`, whether all that touches is one object, or objects of single planes
        are linked that cover each other well.
    link_iou : float
        For ``"overlap"``: smallest intersection over union of linked objects.

    Returns
    -------
    ndarray, as `classes`, int32
        0 where there is no object, else 1 to the number of objects, in the order of their
        first pixels.

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
    planes = classes if classes.ndim == 3 else classes[None]
    wanted = [int(number) for number in np.atleast_1d(value)]
    solid = three_d and link == "touch"
    pieces = find_pieces(planes, wanted, solid=solid, separation=separation)
    rows = sums_of(pieces, planes, Position((0, 0, 0, 0), (1, *planes.shape)))
    objects = np.arange(len(rows), dtype=np.int32)
    if three_d and link == "overlap":
        pairs, pixels = overlaps(planes, pieces)
        objects = linked(rows["size"], pairs - 1, pixels, link_iou)
    numbers, _ = numbered(objects, rows["size"], rows["first"], min_size)
    chosen: NDArray[np.int32] = np.append(np.uint32(0), numbers).astype(np.int32)[pieces]
    return chosen.reshape(classes.shape)


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
    planes = objects if objects.ndim == 3 else objects[None]
    known = planes if classes is None else classes.reshape(planes.shape)
    rows = sums_of(planes, known, Position((0, 0, 0, 0), (1, *planes.shape)))
    labels = np.flatnonzero(rows["size"])
    table = base_columns(rows[labels], (labels + 1).astype(np.int32), spacing, unit)
    if classes is None:
        del table["class"]
    else:
        table["class"] = table["class"].astype(classes.dtype)
    return table
