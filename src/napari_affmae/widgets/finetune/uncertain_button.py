"""A button that goes to where the prediction is least certain."""

import napari
import numpy as np
from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton

from napari_affmae.engine.events import Event, TileDone
from napari_affmae.widgets.finetune.annotation import Annotation
from napari_affmae.widgets.finetune.quick_session import QuickSession
from napari_affmae.widgets.layers.view import look_at
from napari_affmae.widgets.running.background_job import BackgroundJob

_TEXT = "Go to where it is least certain"
_PLACES = 12
_SIDE = 256
_GOLDEN = 0.618034
_PLASTIC = 0.754878
Place = tuple[int, slice, slice]


class UncertainButton(QPushButton):
    """Looks at places all over the stack, and shows the one where a stroke helps most.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    annotation : Annotation
        The pairs.
    session : QuickSession
        What was learned.
    """

    failed = Signal(object)
    """It cannot look: the exception."""
    arrived = Signal()
    """The place is in view."""

    def __init__(
        self, viewer: "napari.viewer.Viewer", annotation: Annotation, session: QuickSession
    ) -> None:
        super().__init__(_TEXT)
        self.setToolTip(
            f"Predicts {_PLACES} places on planes all over the stack, and shows the one where "
            "the prediction is least certain: a stroke helps most there. Press again for others."
        )
        self._viewer, self._annotation, self._session = viewer, annotation, session
        self._image: Image | None = None
        self._places: list[Place] = []
        self._asked = 0
        self._job = BackgroundJob(self)
        self._job.happened.connect(self._take)
        self._job.failed.connect(self.failed)
        self._job.ended.connect(self._end)
        self.clicked.connect(self._search)

    def _search(self) -> None:
        try:
            self._image, _ = self._annotation.pairs()[self._annotation.shown_pair()]
            source = self._annotation.image(self._image)
        except ValueError as error:
            self.failed.emit(error)
            return
        numbers = range(self._asked * _PLACES, (self._asked + 1) * _PLACES)
        self._asked += 1
        size = source.n_planes, source.height, source.width
        self._places = places = [scattered(number, *size) for number in numbers]
        self.setEnabled(False)
        self._job.run(lambda: self._session.search(source, places))

    def _take(self, event: Event) -> None:
        from napari_affmae.engine.quick.search import PlaceFound

        match event:
            case TileDone():
                self.setText(f"looking at place {event.done} of {event.total} ...")
            case PlaceFound() if self._image in self._viewer.layers:
                plane, _, _ = self._places[event.number]
                source = self._annotation.image(self._image)
                lead = source.plane_shape
                indices = np.unravel_index(plane, lead) if lead else ()
                place = (*map(int, indices), event.row, event.column)
                look_at(self._viewer, self._image, place)
                self.arrived.emit()

    def _end(self) -> None:
        self.setText(_TEXT)
        self.setEnabled(True)


def scattered(number: int, planes: int, height: int, width: int) -> Place:
    """Return a place of a stack; those of following numbers fill it evenly.

    Parameters
    ----------
    number : int
        From 0.
    planes, height, width : int
        Size of the stack.
    """
    # Multiples of these numbers, without their whole parts, never gather anywhere.
    steps = (number + 0.5) * np.array([_GOLDEN, _PLASTIC, _PLASTIC**2])
    across = steps % 1.0
    plane = int(across[0] * planes)
    row, column = (
        int(part * max(0, size - _SIDE))
        for part, size in zip(across[1:], (height, width), strict=True)
    )
    return plane, slice(row, min(height, row + _SIDE)), slice(column, min(width, column + _SIDE))
