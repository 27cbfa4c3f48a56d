"""Choosing labels by which a pretraining is judged; nothing is learned from them."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import napari
from napari.layers import Image, Labels
from qtpy.QtCore import QSignalBlocker

from napari_affmae.data.sources.source import ImageSource
from napari_affmae.engine.events import Event, Notice
from napari_affmae.widgets.layers.label_layers import classes_of, may_be_for
from napari_affmae.widgets.layers.layer_sources import LayerImage, LayerLabels
from napari_affmae.widgets.parts.eliding_combo import ElidingCombo
from napari_affmae.widgets.parts.lifetime import connect_while_alive

JUDGE_TIP = (
    "Labels that were painted for one of the images (probe). While it pretrains, they measure how "
    "much the network's features have become worth, and whether it is better than what it started "
    "from. Nothing is learned from them. At least two planes and two classes must be painted."
)


@dataclass(frozen=True)
class Judging:
    """Labels that judge, and their image.

    Attributes
    ----------
    image, labels : ImageSource
        Of one shape.
    ignore_value : int or None
        Value of the labels that means not labelled.
    """

    image: ImageSource
    labels: ImageSource
    ignore_value: int | None

    def usable(self) -> Generator[Event, None, list[tuple[ImageSource, ImageSource]]]:
        """Return image and labels if they can judge; to be called in a worker.

        Yields
        ------
        Notice
            Why they cannot.

        Raises
        ------
        DataError
            If values of the labels are no classes.
        """
        from napari_affmae.data.label_values import class_values, labelled_planes

        lacking = None
        if len(labelled_planes(self.labels, self.ignore_value)) < 2:
            lacking = "fewer than two planes"
        elif len(class_values(self.labels, self.ignore_value)) < 2:
            lacking = "fewer than two classes"
        if lacking is None:
            return [(self.image, self.labels)]
        message = f"{lacking} are painted, too few to judge this pretraining by; it runs without"
        yield Notice(message, "info", self.labels.name)
        return []


class JudgeChoice(ElidingCombo):
    """Offers labels that were painted for the chosen images; the first is chosen by itself.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers are offered.
    images : Callable[[], Sequence[Image]]
        Tells the chosen image layers.
    """

    def __init__(
        self, viewer: "napari.viewer.Viewer", images: Callable[[], Sequence[Image]]
    ) -> None:
        super().__init__()
        self._viewer, self._images = viewer, images
        self._is_declined = False
        self.setToolTip(JUDGE_TIP)
        self.activated.connect(self._note_choice)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            connect_while_alive(self, event, lambda _: self.refresh())
        self.refresh()

    def refresh(self) -> None:
        """Offer the labels that fit by now, and keep the choice if it is among them."""
        chosen = self.pair()
        pairs = [
            (image, labels)
            for image in self._images()
            for labels in self._viewer.layers
            if isinstance(labels, Labels) and may_be_for(image, labels)
        ]
        blocker = QSignalBlocker(self)
        self.clear()
        self.addItem("nothing painted", None)
        for pair in pairs:
            self.addItem(pair[1].name, pair)
        kept = next((pair for pair in pairs if chosen and pair[1] is chosen[1]), None)
        if kept is None and pairs and not self._is_declined:
            kept = pairs[0]
        self.setCurrentIndex(0 if kept is None else pairs.index(kept) + 1)
        del blocker

    def pair(self) -> tuple[Image, Labels] | None:
        """Return the chosen labels behind their image."""
        pair: tuple[Image, Labels] | None = self.currentData()
        return pair

    def ignore_value(self) -> int | None:
        """Return the value of the chosen labels that means not labelled; None if all are."""
        pair = self.pair()
        classes = None if pair is None else classes_of(pair[1])
        return None if any(item.value == 0 for item in classes or ()) else 0

    def judging(self, channels: Sequence[int] | None) -> Judging | None:
        """Return what judges a run.

        Parameters
        ----------
        channels : sequence of int or None
            Channels of the image to read; None for all.

        Raises
        ------
        ValueError
            If the image does not have them.
        """
        pair = self.pair()
        if pair is None:
            return None
        image, labels = pair
        return Judging(LayerImage(image, channels), LayerLabels(labels), self.ignore_value())

    def _note_choice(self) -> None:
        self._is_declined = self.currentData() is None
