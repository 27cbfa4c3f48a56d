"""Predictions and objects that are copied: they stay apart from strokes, and can be taken out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import napari
import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.widgets.finetune.annotation import Annotation
from napari_affmae.widgets.finetune.prediction import PredictionLayers
from napari_affmae.widgets.layers.label_layers import (
    RESULT,
    Painting,
    empty_labels,
    show_classes,
)
from napari_affmae.widgets.layers.layer_sources import layer_geometry
from napari_affmae.widgets.parts.lifetime import connect_while_alive

_CERTAIN = 90
Place = tuple[int, slice, slice]


@dataclass
class _Copied:
    """The layer of what was copied for a labels layer, and where."""

    layer: Labels
    places: list[Place] = field(default_factory=list)


class Copies(QWidget):
    """Copies the prediction, where it is certain, into a layer of its own.

    Nothing is learned from that layer until the user says so. Then its values fill what is
    unpainted in the labels, and are taken out of them again by the same box.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    annotation : Annotation
        The pairs and classes.
    prediction : PredictionLayers
        The prediction that is shown.
    """

    failed = Signal(object)
    """Nothing can be copied: the exception."""

    def __init__(
        self,
        viewer: "napari.viewer.Viewer",
        annotation: Annotation,
        prediction: PredictionLayers,
    ) -> None:
        super().__init__()
        self._viewer, self._annotation, self._prediction = viewer, annotation, prediction
        self._copied: dict[Labels, _Copied] = {}
        self.copy_button = QPushButton("Copy prediction if at least")
        self.copy_button.setToolTip(
            "Copies what is predicted in view into a layer of its own, to be looked at and "
            "corrected. Nothing is learned from it until you say so below."
        )
        self.copy_button.clicked.connect(self.copy)
        self.certainty = QSpinBox()
        self.certainty.setRange(0, 100)
        self.certainty.setValue(_CERTAIN)
        self.certainty.setSuffix(" % sure")
        self.learn_box = QCheckBox("Learn from what is copied")
        self.learn_box.setToolTip(
            "Fills what you left unpainted with what is copied, as if you had painted it. "
            "Unchecked, it is taken out again; what you painted stays."
        )
        self.learn_box.toggled.connect(self._learn)
        self.discard_button = QPushButton("Discard it")
        self.discard_button.setToolTip("Removes what is copied, from the labels too.")
        self.discard_button.clicked.connect(self.discard)
        self._below = QWidget()
        first, second = QHBoxLayout(), QHBoxLayout(self._below)
        second.setContentsMargins(0, 0, 0, 0)
        for row, widgets in (
            (first, (self.copy_button, self.certainty)),
            (second, (self.learn_box, self.discard_button)),
        ):
            for widget in widgets:
                row.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(first)
        layout.addWidget(self._below)
        connect_while_alive(self, viewer.layers.events.removed, self._forget_removed)
        annotation.renamed.connect(self._rename)
        self._show_state()

    def copy(self) -> None:
        """Copy the prediction that is shown, where it is certain and nothing is painted."""
        try:
            labels, view, values, certainty = self._prediction.shown()
        except ValueError as error:
            self.failed.emit(error)
            return
        is_sure = certainty >= self.certainty.value() / 100
        sure = np.where(is_sure, values, 0)
        self.take(labels, [Painting(view.plane, view.rows, view.columns, sure)])

    def take(self, labels: Labels, paintings: Sequence[Painting]) -> None:
        """Copy values, where nothing is painted.

        Parameters
        ----------
        labels : napari.layers.Labels
            The labels of a pair.
        paintings : sequence of Painting
            What to copy, as values of the table's classes.
        """
        copied = self._copied.get(labels) or self._add_layer(labels)
        places = [(one.plane, one.rows, one.columns) for one in paintings]
        for place, one in zip(places, paintings, strict=True):
            index = self._index(copied, place)
            is_free = np.asarray(labels.data[index]) == 0
            before = np.asarray(copied.layer.data[index])
            copied.layer.data[index] = np.where(is_free & (one.values > 0), one.values, before)
        copied.layer.refresh()
        copied.places += places
        if self.learn_box.isChecked():
            self._fill(labels, copied, places)
        self._show_state()

    def discard(self) -> None:
        """Take out what is copied, and remove its layers."""
        self.learn_box.setChecked(False)
        for copied in list(self._copied.values()):
            self._viewer.layers.remove(copied.layer)

    def _add_layer(self, labels: Labels) -> _Copied:
        shape = tuple(int(size) for size in labels.data.shape)
        layer = Labels(
            empty_labels(shape, labels.data.dtype),
            name=f"{labels.name}: copied prediction",
            metadata=RESULT,
            **layer_geometry(labels),
        )
        show_classes(layer, self._annotation.classes())
        selected = set(self._viewer.layers.selection)
        self._viewer.layers.insert(self._viewer.layers.index(labels), layer)
        self._viewer.layers.selection = selected  # a new layer is selected: painting would end
        self._copied[labels] = made = _Copied(layer)
        return made

    def _learn(self, learn: bool) -> None:
        for labels, copied in self._copied.items():
            if learn:
                self._fill(labels, copied, copied.places)
            else:
                self._take_out(labels, copied)

    def _fill(self, labels: Labels, copied: _Copied, places: list[Place]) -> None:
        painted = self._annotation.painted(labels)
        for place in places:
            values = copied.layer.data[self._index(copied, place)]
            self._annotation.edit(labels, partial(painted.fill, *place, np.asarray(values)))

    def _take_out(self, labels: Labels, copied: _Copied) -> None:
        painted = self._annotation.painted(labels)
        for place in copied.places:
            values = np.asarray(copied.layer.data[self._index(copied, place)])
            self._annotation.edit(labels, partial(painted.take_out, *place, values))

    @staticmethod
    def _index(copied: _Copied, place: Place) -> tuple[int | slice, ...]:
        plane, rows, columns = place
        lead = copied.layer.data.shape[:-2]
        indices = np.unravel_index(plane, lead) if lead else ()
        return (*(int(number) for number in indices), rows, columns)

    def _forget_removed(self, event: object) -> None:
        removed = event.value  # type: ignore[attr-defined]
        for labels, copied in list(self._copied.items()):
            if removed in (labels, copied.layer):
                del self._copied[labels]
        self._show_state()

    def _rename(self) -> None:
        for copied in self._copied.values():
            show_classes(copied.layer, self._annotation.classes())

    def _show_state(self) -> None:
        self._below.setVisible(bool(self._copied))
