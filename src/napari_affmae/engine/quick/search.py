"""Looking for the place where a stroke would help most."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from napari_affmae.engine.events import Event, TileDone, ViewPredicted
from napari_affmae.engine.quick.strokes import QuickView
from napari_affmae.engine.quick.training import QuickTraining

# A place is judged by its surroundings of this side in pixels: borders alone are thin.
_SIDE = 32


@dataclass(frozen=True)
class PlaceFound(Event):
    """The least certain place.

    Attributes
    ----------
    number : int
        Which of the views it lies in.
    row, column : int
        Its place in the plane, pixels.
    uncertainty : float
        The mean around it, from 0, sure, to 1.
    """

    number: int
    row: int
    column: int
    uncertainty: float


def find_least_certain(
    training: QuickTraining, views: Sequence[QuickView]
) -> Generator[Event, None, None]:
    """Predict views, and find the place among them that is least certain.

    Parameters
    ----------
    training : QuickTraining
        It must have been updated before.
    views : sequence of QuickView
        At least one; their labels are not used.

    Yields
    ------
    Event
        `TileDone` after each view, at last `PlaceFound`.
    """
    best: PlaceFound | None = None
    for number, view in enumerate(views):
        for event in training.predict(view):
            if isinstance(event, ViewPredicted):
                around = uniform_filter(event.uncertainty, _SIDE, mode="nearest")
                row, column = np.unravel_index(int(around.argmax()), around.shape)
                rows, columns = view.bounds()
                found = PlaceFound(
                    number,
                    rows.start + int(row),
                    columns.start + int(column),
                    float(around[row, column]),
                )
                if best is None or found.uncertainty > best.uncertainty:
                    best = found
        yield TileDone(number + 1, len(views), view.plane, None)
    if best is None:
        raise ValueError("there is no view to look at: give at least one")
    yield best
