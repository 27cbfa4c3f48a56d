"""How large, long and bright objects are, by scikit-image's measures of regions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import regionprops_table

_FLAT = ("axis_major_length", "axis_minor_length", "perimeter", "solidity")
_SOLID = ("axis_major_length",)


def measure_shapes(
    objects: NDArray[np.integer[Any]],
    spacing: Sequence[float] | None = None,
    unit: str = "px",
    image: NDArray[Any] | None = None,
) -> dict[str, NDArray[Any]]:
    """Measure the shape of numbered objects of a plane or a volume, and their grey values.

    Parameters
    ----------
    objects : ndarray, (H, W) or (P, H, W), integer
        Numbered objects.
    spacing : sequence of float, optional
        Size of a pixel along each axis; 1 by default.
    unit : str
        Unit of the spacing, for the names of columns.
    image : ndarray, as `objects`, optional
        Grey values.

    Returns
    -------
    dict of str to ndarray, (count,)
        Columns of a table, an object a row, by ascending number: ``label``; ``diameter_UNIT`` of
        a disc or ball of the same size; ``length_UNIT``, the longest axis of the ellipse or
        ellipsoid of the same moments; for planes also ``width_UNIT``, its shortest axis,
        ``roundness``, 1 for a disc and less for all else, and ``solidity``, the part that the
        object fills of its convex hull; with `image` ``mean_grey`` and ``sd_grey``.

    Raises
    ------
    ValueError
        If shapes or spacing do not fit.
    """
    if objects.ndim not in (2, 3):
        raise ValueError(f"objects must be (H, W) or (P, H, W), got shape {objects.shape}")
    steps = tuple(spacing) if spacing is not None else (1.0,) * objects.ndim
    if len(steps) != objects.ndim:
        raise ValueError(f"objects have {objects.ndim} axes and the spacing {len(steps)} numbers")
    if image is not None and image.shape != objects.shape:
        raise ValueError(f"the image has shape {image.shape} and objects {objects.shape}")
    flat = objects.ndim == 2
    # The perimeter is defined for square pixels: a mean step serves pixels that are not.
    same = float(np.sqrt(steps[-1] * steps[-2]))
    names = ("label", "equivalent_diameter_area", *(_FLAT if flat else _SOLID))
    found = regionprops_table(objects, properties=names, spacing=(same, same) if flat else steps)
    table: dict[str, NDArray[Any]] = {
        "label": found["label"],
        f"diameter_{unit}": found["equivalent_diameter_area"],
        f"length_{unit}": found["axis_major_length"],
    }
    if flat:
        table[f"width_{unit}"] = found["axis_minor_length"]
        # Of a few pixels the measured perimeter is shorter than that of a disc, or even 0.
        of_disc = np.pi * found["equivalent_diameter_area"]
        table["roundness"] = (of_disc / np.maximum(found["perimeter"], of_disc)) ** 2
        table["solidity"] = found["solidity"]
    if image is not None:
        table |= _greys(objects, found["label"], image)
    return table


def _greys(
    objects: NDArray[np.integer[Any]], labels: NDArray[Any], image: NDArray[Any]
) -> dict[str, NDArray[np.float64]]:
    """Return mean and standard deviation of the grey values of each object."""
    if len(labels) == 0:
        return {"mean_grey": np.zeros(0), "sd_grey": np.zeros(0)}
    inside = objects > 0
    number, values = objects[inside], image[inside].astype(np.float64)
    size = np.maximum(np.bincount(number), 1)
    mean = np.bincount(number, weights=values) / size
    variance = np.bincount(number, weights=(values - mean[number]) ** 2) / size
    return {"mean_grey": mean[labels], "sd_grey": np.sqrt(variance[labels])}
