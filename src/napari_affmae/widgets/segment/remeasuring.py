"""Measures of single objects, after they were corrected."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from napari_affmae.engine.results.tables import Table
from napari_affmae.widgets.layers.layer_sources import step_sizes
from napari_affmae.widgets.segment.job import ResultReady

Box = tuple[slice, ...]
Row = dict[str, Any]
#: Column of what the user said of an object, and what it holds.
STATE = "state"
ACCEPTED, CORRECTED, DELETED = "accepted", "corrected", "deleted"
_NANOMETRES = 1000.0  # in a micrometre


def measure_one(
    objects: NDArray[Any], number: int, box: Box, ready: ResultReady, *, three_d: bool
) -> Row | None:
    """Measure one object.

    Parameters
    ----------
    objects : ndarray, (..., H, W), integer
        Numbered objects.
    number : int
        Which of them.
    box : tuple of slice
        A part of `objects` that holds it.
    ready : ResultReady
        The segmentation in which they were found.
    three_d : bool
        Whether objects extend over several planes.

    Returns
    -------
    dict or None
        Its measures, by the names of columns; None if there is nothing of it.
    """
    from napari_affmae.engine import measure_objects
    from napari_affmae.engine.objects.shapes import measure_shapes

    mask = (objects[box] == number).astype(np.int32)
    found = find_objects(mask)
    if not found:
        return None
    corner = [part.start + inner.start for part, inner in zip(box, found[0], strict=True)]
    lead = objects.shape[:-2]
    first = int(np.ravel_multi_index(tuple(corner[:-2]), lead)) if lead else 0
    volume = mask[found[0]].reshape(-1, *mask[found[0]].shape[-2:])
    steps = step_sizes(ready.geometry)[-3 if three_d else -2 :]
    known = [step / _NANOMETRES for step in steps if step is not None]
    spacing = known if len(known) == len(steps) else None
    row = {name: column[0] for name, column in measure_objects(volume, spacing, "um").items()}
    is_solid = three_d and objects.ndim > 2
    if is_solid or len(volume) == 1:
        part = volume if is_solid else volume[0]
        planes = range(first, first + len(volume))
        size = volume.shape[1:]
        rows, columns = (slice(a, a + n) for a, n in zip(corner[-2:], size, strict=True))
        grey = np.stack([ready.image.read(p, rows, columns).mean(0) for p in planes])
        unit = "px" if spacing is None else "um"
        shapes = measure_shapes(part, spacing, unit, grey.reshape(part.shape))
        row |= {name: column[0] for name, column in shapes.items()}
    for axis, start in zip(("plane", "row", "column"), (first, *corner[-2:]), strict=True):
        row[axis] += start
    for axis, start in zip(("plane", "row", "column"), ready.origin, strict=True):
        row[axis] += start
    return row


def corrected_table(
    table: Table, rows: Mapping[int, Row | None], classes: Mapping[int, str], states: Sequence[str]
) -> Table:
    """Return a table with other measures of some objects.

    Parameters
    ----------
    table : Table
        A row for each number from 1.
    rows : Mapping[int, Row or None]
        What was measured anew, by number; None of objects that are gone.
    classes : Mapping[int, str]
        Names of the classes of objects that are new.
    states : sequence of str
        For each number from 1: what the user said of it.
    """
    count, former = len(states), len(table["label"])
    changed: dict[str, NDArray[Any]] = {}
    for name, column in table.items():
        if name == STATE:
            continue
        blank = {"f": np.nan, "U": ""}.get(column.dtype.kind, 0)
        values = [*column.tolist(), *[blank] * (count - former)]
        for number, row in rows.items():
            if name == "class":
                values[number - 1] = classes.get(number, values[number - 1])
            else:
                values[number - 1] = blank if row is None else row.get(name, blank)
        changed[name] = np.array(values, str if column.dtype.kind == "U" else column.dtype)
    changed["label"] = np.arange(1, count + 1, dtype=table["label"].dtype)
    changed[STATE] = np.array(states, str)
    return changed


def present(table: Table) -> Table:
    """Return the rows of objects that were not deleted."""
    kept = table["size_px"] > 0
    return {name: column[kept] for name, column in table.items()}
