"""Loading what painting and predicting need before they need it."""

from collections.abc import Generator

from qtpy.QtCore import QObject, QTimer

from napari_affmae.engine.events import Event
from napari_affmae.widgets.finetune.annotation import Annotation
from napari_affmae.widgets.running.background_job import BackgroundJob
from napari_affmae.widgets.running.loading import load_for_labels, load_torch, loading

# The window's thread is busy while a dock or a layer appears: loading would hinder it most then.
_MILLISECONDS_TO_APPEAR = 150


class WarmingUp(QObject):
    """Loads in the background: first what a layer of labels needs; torch once there is one.

    Parameters
    ----------
    annotation : Annotation
        Knows of labels.
    parent : QObject
        Loading ends with this.
    """

    def __init__(self, annotation: Annotation, parent: QObject) -> None:
        super().__init__(parent)
        self._annotation = annotation
        self._due = [_load_to_paint, _load_to_predict]
        self._has_begun = False
        self._job = BackgroundJob(self, loads_torch=False)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_MILLISECONDS_TO_APPEAR)
        self._timer.timeout.connect(self._go_on)
        self._job.ended.connect(self._timer.start)
        annotation.stroked.connect(self._note_labels)

    def begin(self) -> None:
        """Begin, the first time that this is called."""
        if not self._has_begun:
            self._has_begun = True
            self._timer.start()

    def _note_labels(self) -> None:
        if self._has_begun and self._due:
            self._timer.start()

    def _go_on(self) -> None:
        is_wanted = _load_to_paint in self._due or bool(self._annotation.pairs())
        if self._due and is_wanted and not self._job.is_running:
            self._job.run(self._due.pop(0))


def _load_to_paint() -> Generator[Event, None, None]:
    load_for_labels()
    yield from ()


def _load_to_predict() -> Generator[Event, None, None]:
    load_torch()
    with loading():
        import torch._dynamo  # noqa: F401 - torch's, for the first step of an optimiser

        from napari_affmae.engine import QuickTraining  # noqa: F401
    yield from ()
