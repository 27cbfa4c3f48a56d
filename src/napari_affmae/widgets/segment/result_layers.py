"""The layers of the result that is being made, or was made last."""

import napari
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, QTimer

from napari_affmae.widgets.layers.label_layers import RESULT, show_classes
from napari_affmae.widgets.layers.layer_sources import OWN
from napari_affmae.widgets.layers.overlays import hide_replaced
from napari_affmae.widgets.layers.refreshing import Refresher
from napari_affmae.widgets.layers.view import view_of
from napari_affmae.widgets.segment.gaze import Gaze
from napari_affmae.widgets.segment.job import PlanesWritten, Region, ResultReady, SegmentationJob

_MILLISECONDS = 300


class ResultLayers(QObject):
    """Shows a result while it grows, and tells its job where the user looks.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer that the layers are added to.
    parent : QObject
        What it belongs to.

    Attributes
    ----------
    ready : ResultReady or None
        The result that was shown last, unless its layer was removed.
    labels : napari.layers.Labels or None
        Its layer of classes.
    """

    def __init__(self, viewer: "napari.viewer.Viewer", parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.ready: ResultReady | None = None
        self.labels: Labels | None = None
        self._gaze = Gaze()
        self._refresher = Refresher(viewer, self)
        self._looking = QTimer(self)
        self._looking.setInterval(_MILLISECONDS)
        self._looking.timeout.connect(self._look_at_result)

    def begin(self, job: SegmentationJob, image: Image | None) -> None:
        """Await another result; the layers of the last one stay.

        Parameters
        ----------
        job : SegmentationJob
            The job that will make it.
        image : napari.layers.Image or None
            The image, if it is a layer.
        """
        self.forget()
        self._gaze = job.gaze
        if image is not None and job.region == Region():
            self._look(image)

    def forget(self) -> None:
        """Know no result any more."""
        self.ready = self.labels = None

    def show(self, ready: ResultReady, image: Image | None) -> None:
        """Add the layers of a result.

        Parameters
        ----------
        ready : ResultReady
            The result.
        image : napari.layers.Image or None
            The image, if it is a layer.
        """
        self.ready, result = ready, ready.result
        chances: list[Layer] = [
            Image(
                _shown(levels),
                multiscale=len(levels) > 1,
                name=f"{item.name}: probability",
                contrast_limits=(0, result.most_likely),
                colormap="magma",
                visible=False,
                metadata=OWN,
                cache=False,
                **ready.geometry,
            )
            for item, levels in zip(result.classes, result.probabilities, strict=False)
        ]
        labels = self.labels = Labels(
            _shown(result.labels),
            multiscale=len(result.labels) > 1,
            name=f"{ready.name}: classes",
            metadata=RESULT,
            cache=False,
            **ready.geometry,
        )
        show_classes(labels, result.classes)
        self._viewer.layers.extend([*chances, labels])
        hide_replaced(self._viewer, image, [labels, *chances])
        self._refresher.watch([labels, *chances])
        if result.folder is not None:
            labels.editable = False  # what is marked as done must stay what the model said
            self._looking.start()

    def draw(self, event: PlanesWritten) -> None:
        """Draw what was written, soon."""
        for plane in event.planes:
            self._refresher.touch(plane)

    def finish(self) -> None:
        """Draw once more, when nothing more will be written."""
        self._looking.stop()
        self._refresher.finish()

    def _look_at_result(self) -> None:
        if self.labels is not None and self.labels in self._viewer.layers:
            self._look(self.labels)

    def _look(self, layer: Layer) -> None:
        """Note where the user looks, on a layer of the size of the result."""
        try:
            view = view_of(self._viewer, layer)
        except ValueError:  # the viewer shows the volume, or nothing of the layer
            self._gaze.look(None)
        else:
            self._gaze.look((view.plane, view.rows, view.columns))


def _shown(levels: list[object]) -> object:
    return levels if len(levels) > 1 else levels[0]
