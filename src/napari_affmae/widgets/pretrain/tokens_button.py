"""The tokens that survive at each stage of a network, as points on the image."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import napari
import numpy as np
from napari.layers import Image, Points
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton

from napari_affmae.data.sources.source import ImageSource
from napari_affmae.engine.events import Event
from napari_affmae.errors import AffmaeError
from napari_affmae.widgets.layers.layer_sources import LayerImage, is_own, layer_geometry
from napari_affmae.widgets.layers.own_layers import OwnLayers
from napari_affmae.widgets.layers.view import LayerView, shown_part
from napari_affmae.widgets.running.background_job import BackgroundJob

_COLORS = ("#3b6fb6", "#3aa17e", "#e0a030", "#e0503c")
_SIZES = (3.0, 5.0, 8.0, 12.0)


@dataclass(frozen=True)
class _Tokens(Event):
    stages: list[np.ndarray]


class TokensButton(QPushButton):
    """Adds a Points layer for each stage, with the tokens of the first visible image in view.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer that the layers are added to.
    model : Callable[[], Path or None]
        Returns the run or model whose tokens are shown.
    """

    failed = Signal(object)
    """Nothing can be shown: the exception."""

    def __init__(self, viewer: "napari.viewer.Viewer", model: Callable[[], Path | None]) -> None:
        super().__init__("What it keeps (tokens)")
        self.setToolTip(
            "Shows as points which parts of the image in view, of a large view its middle, "
            "the network keeps at each of its stages."
        )
        self._viewer, self._model = viewer, model
        self._layer: Image | None = None
        self._view: LayerView | None = None
        self._tokens = OwnLayers(viewer)
        self._job = BackgroundJob(self)
        self._job.happened.connect(self._draw)
        self._job.failed.connect(self._fail)
        self._job.ended.connect(lambda: self.setEnabled(True))
        self.clicked.connect(self._ask)

    def _ask(self) -> None:
        model = self._model()
        layers = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and layer.visible and not is_own(layer)
        ]
        chosen = [layer for layer in layers if layer in self._viewer.layers.selection] or layers
        if model is None or not chosen:
            what = "an image layer" if model else "a run that has a checkpoint"
            self.failed.emit(ValueError(f"There is nothing to show: choose {what} first."))
            return
        try:
            view, source = shown_part(self._viewer, chosen[0]), LayerImage(chosen[0])
        except (ValueError, AffmaeError) as error:
            self._fail(error)
            return
        self._layer, self._view = chosen[0], view
        self.setEnabled(False)
        self._job.run(lambda: _find(model, source, view))

    def _draw(self, event: _Tokens) -> None:
        layer, view = self._layer, self._view
        if layer is None or view is None:
            return
        # The large points of the last stage are added first, so that the others lie on top.
        shown = []
        for number, positions in reversed(list(enumerate(event.stages, 1))):
            corner = np.array([view.rows.start, view.columns.start])
            plane = np.tile(view.indices, (len(positions), 1))
            points = np.hstack([plane, positions + corner])
            shown.append(
                Points(
                    points,
                    name=f"tokens of stage {number} ({len(points)})",
                    size=_SIZES[number - 1],
                    face_color=_COLORS[number - 1],
                    border_width=0,
                    opacity=0.8,
                    visible=number > 1,
                    **layer_geometry(layer),
                )
            )
        self._tokens.show(shown)

    def _fail(self, error: Exception) -> None:
        self.setEnabled(True)
        self.failed.emit(error)


def _find(model: Path, source: ImageSource, view: LayerView) -> Generator[Event, None, None]:
    from napari_affmae.data import window
    from napari_affmae.engine import read_metadata, surviving_tokens
    from napari_affmae.engine.inference.segmentation import normalize_like

    part = window(source, planes=[view.plane], rows=view.rows, columns=view.columns)
    image = normalize_like(part, read_metadata(model)).read(0)
    yield _Tokens([stage.positions for stage in surviving_tokens(model, image)])
