"""One line that says how far the work on a segmentation is, and what to do next."""

from collections import Counter
from collections.abc import Sequence
from enum import Enum, auto

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel

from napari_affmae.config import LabelClass
from napari_affmae.widgets.finetune.annotation import Annotation

_MILLISECONDS = 100


class Model(Enum):
    """What has become of what was learned from the strokes."""

    NONE = auto()
    UNSAVED = auto()
    SAVED = auto()


class StateLine(QLabel):
    """Shows what is painted, whether the model is saved, and what to do next.

    Parameters
    ----------
    annotation : Annotation
        The pairs, classes and strokes.
    """

    def __init__(self, annotation: Annotation) -> None:
        super().__init__()
        self.setWordWrap(True)
        self._annotation = annotation
        self._model = Model.NONE
        # Pairs, classes and strokes may change one after the other: all of them are looked at
        # together, a moment later.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_MILLISECONDS)
        self._timer.timeout.connect(self._show)
        annotation.stroked.connect(self._note_stroke)
        for signal in (annotation.renamed, annotation.counted):
            signal.connect(self._timer.start)
        self._show()

    def note_learned(self) -> None:
        """Note that something was learned; of strokes that are learned already, nothing new."""
        if self._model is Model.NONE:
            self._model = Model.UNSAVED
            self._timer.start()

    def note_saved(self) -> None:
        """Note that a model was saved."""
        self._model = Model.SAVED
        self._timer.start()

    def _note_stroke(self) -> None:
        if self._model is Model.SAVED:
            self._model = Model.UNSAVED
        self._timer.start()

    def _show(self) -> None:
        annotation = self._annotation
        planes = {(number, square.plane) for number, square in annotation.strokes()}
        self.setText(
            describe(
                annotation.counts(),
                annotation.classes(),
                planes=len(planes),
                has_pair=bool(annotation.pairs()),
                model=self._model,
            )
        )


def describe(
    counts: Counter[int],
    classes: Sequence[LabelClass],
    *,
    planes: int,
    has_pair: bool,
    model: Model,
) -> str:
    """Say how far the work is, and what to do next.

    Parameters
    ----------
    counts : Counter of int
        Painted pixels by value.
    classes : sequence of LabelClass
        All classes.
    planes : int
        Number of planes that are painted on.
    has_pair : bool
        Whether there is an image with labels.
    model : Model
        What has become of what was learned.
    """
    if not has_pair:
        return "Next: open an image, and press 'New labels layer'."
    missing = [item.name for item in classes if item.value and not counts[item.value]]
    painted = sum(bool(item.value) for item in classes) - len(missing)
    on = f" on {planes} plane{'s' * (planes != 1)}" if painted else ""
    state = f"{painted} of {painted + len(missing)} classes painted{on}"
    match model:
        case Model.UNSAVED:
            return f"{state}, model not saved. Next: paint where it is wrong, or save the model."
        case Model.SAVED:
            return f"{state}, model saved. Next: segment with it."
    if missing:
        return f"{state}. Next: paint some strokes of {missing[0]!r}."
    return f"{state}. Next: switch 'Predict while painting' on."
