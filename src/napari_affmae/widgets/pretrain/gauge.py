"""Curves of what the features are worth, beside that of the loss."""

from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_affmae.engine.events import Validated
from napari_affmae.widgets.parts.curves import Curves

_HEIGHT = 140


class Gauge(QWidget):
    """Shows how many directions the features of each stage use, and the score of the probe.

    A plot is hidden until there is something for it: the probe needs labels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ranks = Curves("rank", height=_HEIGHT)
        self.ranks.setToolTip(
            "Over how many directions the features of each of the network's stages spread "
            "(effective rank); stage 1 is next to the image. Where it falls to a few, the network "
            "says the same of everything, however low the loss is."
        )
        self.probe = Curves("IoU", height=_HEIGHT)
        self.probe.setToolTip(
            "How well a linear classifier tells labelled classes apart by the features (probe). "
            "While it rises, longer pretraining helps."
        )
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for curves in (self.ranks, self.probe):
            curves.setVisible(False)
            row.addWidget(curves, 1)

    def add(self, event: Validated) -> None:
        """Add what a validation has measured."""
        if event.ranks:
            names = map(str, range(1, len(event.ranks) + 1))  # a longer legend would not fit
            self.ranks.add(event.step, dict(zip(names, event.ranks, strict=True)))
        if event.probe is not None:
            self.probe.add(event.step, {"probe": event.probe})
        self.ranks.setVisible(bool(event.ranks))
        self.probe.setVisible(event.probe is not None)
        self.setVisible(bool(event.ranks) or event.probe is not None)

    def clear(self) -> None:
        """Remove all points."""
        self.ranks.clear()
        self.probe.clear()
