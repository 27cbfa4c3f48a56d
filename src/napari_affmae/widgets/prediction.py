"""What a network says of the view, as layers at the view's place."""

from collections.abc import Sequence

import napari
import numpy as np
from napari.layers import Image, Labels, Layer

from napari_affmae.config import LabelClass
from napari_affmae.engine.events import ViewPredicted
from napari_affmae.widgets.label_layers import show_classes
from napari_affmae.widgets.layer_sources import OWN, layer_geometry, shifted
from napari_affmae.widgets.view import View

_PREDICTION = "AFFMAE prediction"
_UNCERTAINTY = "AFFMAE uncertainty"


class PredictionLayers:
    """A labels layer and an image layer that hold no more than the view.

    Parameters
    ----------
    viewer : napari.Viewer
        Where.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        self._viewer = viewer
        self.prediction: Labels | None = None
        self.uncertainty: Image | None = None
        self._image: Image | None = None
        self._shows_uncertainty = False

    def show(
        self,
        image: Image,
        view: View,
        event: ViewPredicted,
        classes: Sequence[LabelClass],
    ) -> None:
        """Show a prediction of a view of an image."""
        leading = (1,) * len(view.indices)
        labels = event.labels.reshape(*leading, *event.labels.shape)
        uncertainty = event.uncertainty.reshape(*leading, *event.uncertainty.shape)
        place = _placed(image, view)
        selected = set(self._viewer.layers.selection)
        if not self._fits(self.prediction, labels):
            self._drop(self.prediction)
            self.prediction = self._insert(
                image, Labels(labels, name=_PREDICTION, opacity=0.35, metadata=OWN, **place)
            )
        else:
            _move(self.prediction, labels, place)
        if not self._fits(self.uncertainty, labels):
            self._drop(self.uncertainty)
            self.uncertainty = self._insert(
                image,
                Image(
                    uncertainty,
                    name=_UNCERTAINTY,
                    colormap="inferno",
                    contrast_limits=(0, 1),
                    opacity=0.6,
                    blending="additive",
                    metadata=OWN,
                    **place,
                ),
            )
            self.uncertainty.visible = self._shows_uncertainty
        else:
            _move(self.uncertainty, uncertainty, place)
        show_classes(self.prediction, classes)
        if image is not self._image:
            self._raise_above(image)
        if selected != set(self._viewer.layers.selection):
            self._viewer.layers.selection = selected  # adding a layer must not end the painting

    def rename(self, classes: Sequence[LabelClass]) -> None:
        """Give the classes of the prediction that is shown other names and colours."""
        if self.prediction is not None and self.prediction in self._viewer.layers:
            show_classes(self.prediction, classes)

    def show_uncertainty(self, visible: bool) -> None:
        """Show or hide the uncertainty."""
        self._shows_uncertainty = visible
        if self.uncertainty is not None:
            self.uncertainty.visible = visible

    def _fits(self, layer: Layer | None, data: np.ndarray) -> bool:
        return layer is not None and layer in self._viewer.layers and layer.ndim == data.ndim

    def _insert(self, image: Image, layer: Layer) -> Layer:
        """Add a layer right above the image, below what is painted."""
        layers = self._viewer.layers
        layers.insert(layers.index(image) + 1, layer)
        return layer

    def _raise_above(self, image: Image) -> None:
        """Lay both right above another image, which may hide them; the user may move them then."""
        self._image, layers = image, self._viewer.layers
        for layer in (self.prediction, self.uncertainty):
            layers.move(layers.index(layer), layers.index(image) + 1)

    def _drop(self, layer: Layer | None) -> None:
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)


def _placed(image: Image, view: View) -> dict[str, object]:
    corner = (*view.indices, view.rows.start, view.columns.start)
    return shifted(layer_geometry(image), corner)


def _move(layer: Layer, data: np.ndarray, place: dict[str, object]) -> None:
    layer.data = data
    for name, value in place.items():
        setattr(layer, name, value)
