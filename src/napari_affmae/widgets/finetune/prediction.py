"""Layers that show a prediction of the view."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import napari
import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils import Colormap

from napari_affmae.config import LabelClass
from napari_affmae.engine.events import ViewPredicted
from napari_affmae.widgets.finetune.pair_table import Pair
from napari_affmae.widgets.layers.label_layers import RESULT, show_classes
from napari_affmae.widgets.layers.layer_sources import OWN, layer_geometry, shifted
from napari_affmae.widgets.layers.view import LayerView, plane_of

_PREDICTION = "AFFMAE prediction"
_UNCERTAINTY = "AFFMAE uncertainty"
# What is sure is left as it is. Light that is added would not be seen on bright images.
_TINT = Colormap([(1, 0.35, 0, 0), (1, 0.35, 0, 1)], name="uncertainty")


class PredictionLayers:
    """A labels layer and an image layer of the size of the view, at its place.

    The layers of a dock that was closed are used again. The image is made when it is to be seen:
    to make a layer takes napari a tenth of a second, in which the window stands still.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer that the layers are added to.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        self._viewer = viewer
        self.prediction: Labels | None = self._find(_PREDICTION)
        self.uncertainty: Image | None = self._find(_UNCERTAINTY)
        self._shown: tuple[Pair, LayerView] | None = None
        self._certainty = np.zeros((0, 0), np.float32)
        self._uncertain: tuple[Pair, np.ndarray, dict[str, Any]] | None = None
        self.shows_uncertainty = self.uncertainty is not None and self.uncertainty.visible

    def show(
        self,
        pair: Pair,
        view: LayerView,
        event: ViewPredicted,
        classes: Sequence[LabelClass],
    ) -> None:
        """Show a prediction of a view of a pair's image."""
        image, _ = pair
        leading = (1,) * len(view.indices)
        labels = event.labels.reshape(*leading, *event.labels.shape)
        uncertainty = event.uncertainty.reshape(*leading, *event.uncertainty.shape)
        place = _placed(image, view)
        with self._keeping_selection():
            self._show_prediction(pair, labels, place)
            self._uncertain = (pair, uncertainty, place)
            if self.shows_uncertainty or self._fits(self.uncertainty, uncertainty):
                self._show_uncertain()
            show_classes(self.prediction, classes)
            if self._shown is None or pair != self._shown[0]:
                self._lay_below(pair)
        self._shown, self._certainty = (pair, view), event.probabilities.max(axis=0)

    def _show_prediction(self, pair: Pair, labels: np.ndarray, place: dict[str, Any]) -> None:
        if not self._fits(self.prediction, labels):
            self._drop(self.prediction)
            self.prediction = self._insert(
                pair,
                Labels(labels, name=_PREDICTION, metadata=_mark(_PREDICTION) | RESULT, **place),
            )
            self.prediction.visible = not self.shows_uncertainty
        else:
            _move(self.prediction, labels, place)
        _lock(self.prediction)

    def _show_uncertain(self) -> None:
        """Show how uncertain the last prediction is, in a layer that may be hidden."""
        if self._uncertain is None:
            return
        pair, uncertainty, place = self._uncertain
        if pair[0] not in self._viewer.layers:
            return
        if not self._fits(self.uncertainty, uncertainty):
            self._drop(self.uncertainty)
            self.uncertainty = self._insert(
                pair,
                Image(
                    uncertainty,
                    name=_UNCERTAINTY,
                    colormap=_TINT,
                    contrast_limits=(0, 1),
                    opacity=0.8,
                    blending="translucent",
                    metadata=_mark(_UNCERTAINTY),
                    **place,
                ),
            )
            self.uncertainty.visible = self.shows_uncertainty
        else:
            _move(self.uncertainty, uncertainty, place)
        _lock(self.uncertainty)

    @contextmanager
    def _keeping_selection(self) -> Iterator[None]:
        """Take the selection away from new layers, which would end the painting."""
        layers = self._viewer.layers
        selected = set(layers.selection)
        yield
        if selected != set(layers.selection):
            layers.selection = selected

    def rename(self, classes: Sequence[LabelClass]) -> None:
        """Change names and colours of the classes in the prediction that is shown."""
        if self.prediction is not None and self.prediction in self._viewer.layers:
            show_classes(self.prediction, classes)

    def show_uncertainty(self, visible: bool) -> None:
        """Show the uncertainty alone on the image, or the predicted classes."""
        self.shows_uncertainty = visible
        if visible and self.uncertainty not in self._viewer.layers:
            with self._keeping_selection():
                self._show_uncertain()
        for layer, shown in ((self.uncertainty, visible), (self.prediction, not visible)):
            if layer is not None:
                layer.visible = shown

    def shown(self) -> tuple[Labels, LayerView, np.ndarray, np.ndarray]:
        """Return the labels layer of the predicted pair, the view, the prediction, and how sure.

        The prediction is an array (rows, columns); how sure it is, the probability of the
        predicted class, another.

        Raises
        ------
        ValueError
            If there is no prediction of the plane that the viewer shows.
        """
        layers, prediction = self._viewer.layers, self.prediction
        if self._shown is not None and prediction is not None and prediction in layers:
            (image, labels), view = self._shown
            is_there = image in layers and labels in layers
            if is_there and plane_of(self._viewer, image)[1] == view.plane:
                values = prediction.data.reshape(prediction.data.shape[-2:])
                return labels, view, values, self._certainty
        raise ValueError("There is no prediction of what is in view: let it predict first.")

    def _find(self, name: str) -> Any:
        mark = _mark(name).items()
        return next((one for one in self._viewer.layers if mark <= one.metadata.items()), None)

    def _fits(self, layer: Layer | None, data: np.ndarray) -> bool:
        return layer is not None and layer in self._viewer.layers and layer.ndim == data.ndim

    def _insert(self, pair: Pair, layer: Layer) -> Layer:
        self._viewer.layers.insert(self._place(pair), layer)
        return layer

    def _lay_below(self, pair: Pair) -> None:
        """Put both layers below the labels of another pair; the user may move them then."""
        layers = self._viewer.layers
        for layer in (self.prediction, self.uncertainty):
            if layer in layers:
                layers.move(layers.index(layer), self._place(pair))

    def _place(self, pair: Pair) -> int:
        """Return the index right below the labels, but above their image.

        An image between them would hide the prediction.
        """
        image, labels = pair
        layers = self._viewer.layers
        return max(layers.index(image) + 1, layers.index(labels) if labels in layers else 0)

    def _drop(self, layer: Layer | None) -> None:
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)


def _mark(name: str) -> dict[str, str]:
    """Return the metadata that identifies one of the plugin's own layers."""
    return dict.fromkeys(OWN, name)


def _placed(image: Image, view: LayerView) -> dict[str, object]:
    corner = (*view.indices, view.rows.start, view.columns.start)
    return shifted(layer_geometry(image), corner)


def _lock(layer: Any) -> None:
    layer.editable = False  # napari resets it with each new array


def _move(layer: Layer, data: np.ndarray, place: dict[str, object]) -> None:
    layer.data = data
    for name, value in place.items():
        setattr(layer, name, value)
