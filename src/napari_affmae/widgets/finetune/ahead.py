"""Predictions of the planes beside the one in view, so that scrolling shows no blank."""

from collections.abc import Sequence
from dataclasses import replace

from qtpy.QtCore import QObject, Signal

from napari_affmae.config import LabelClass
from napari_affmae.data.sources.layout import plane_number
from napari_affmae.data.sources.source import ImageSource
from napari_affmae.engine import events as ev
from napari_affmae.widgets.finetune.pair_table import Pair
from napari_affmae.widgets.finetune.quick_session import PredictedAhead, QuickSession
from napari_affmae.widgets.layers.view import LayerView, pixel_shape
from napari_affmae.widgets.running.background_job import BackgroundJob

# In the order in which they are predicted.
_STEPS = (1, -1, 2, -2)


class Ahead(QObject):
    """Predicts in the background what is likely to be looked at next.

    Parameters
    ----------
    session : QuickSession
        Its training predicts, unless another job wants it.
    parent : QObject
        What it belongs to.
    """

    failed = Signal(object)
    """What was to be predicted raised this exception."""

    def __init__(self, session: QuickSession, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._of: tuple[Pair, tuple[int, ...]] | None = None
        self._known: list[PredictedAhead] = []
        self._job = BackgroundJob(self)
        self._job.happened.connect(self._take)
        self._job.failed.connect(self.failed)

    @property
    def known(self) -> int:
        """Number of views that were predicted."""
        return len(self._known)

    def begin(
        self, image: ImageSource, pair: Pair, view: LayerView, classes: Sequence[LabelClass]
    ) -> None:
        """Predict the same part of the planes before and behind, with what is learned now.

        Parameters
        ----------
        image : ImageSource
            The source of the pair's image.
        pair : Pair
            Image and labels.
        view : LayerView
            What is in view.
        classes : sequence of LabelClass
            What is predicted.
        """
        self._of, self._known = (pair, _values(classes)), []
        views = beside(view, pixel_shape(pair[0])[:-2])
        if views:
            self._job.run(lambda: self._session.look_ahead(image, views))

    def stop(self) -> None:
        """Predict no more; what was predicted is kept until others are."""
        self._job.stop()

    def find(
        self, pair: Pair, view: LayerView, classes: Sequence[LabelClass]
    ) -> ev.ViewPredicted | None:
        """Return the prediction of a view, if there is one."""
        if self._of != (pair, _values(classes)):
            return None
        return next((one.prediction for one in self._known if one.view == view), None)

    def _take(self, event: ev.Event) -> None:
        if isinstance(event, PredictedAhead):
            self._known.append(event)


def beside(view: LayerView, lead: tuple[int, ...]) -> list[LayerView]:
    """Return the same part of the planes beside a view, along the last axis of planes.

    Parameters
    ----------
    view : LayerView
        What is in view.
    lead : tuple of int
        The image's axes before rows and columns.
    """
    if not lead:
        return []
    *before, last = view.indices
    places = [(*before, last + step) for step in _STEPS if 0 <= last + step < lead[-1]]
    return [replace(view, indices=place, plane=plane_number(place, lead)) for place in places]


def _values(classes: Sequence[LabelClass]) -> tuple[int, ...]:
    return tuple(item.value for item in classes)
