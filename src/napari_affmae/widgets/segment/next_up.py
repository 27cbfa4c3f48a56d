"""The segmentation that comes after the one that runs."""

from dataclasses import dataclass

from napari.layers import Image
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_affmae.widgets.running.run_panel import Outcome, RunPanel
from napari_affmae.widgets.segment.job import SegmentationJob


@dataclass(frozen=True)
class Chosen:
    """What was chosen to be segmented: the job, the layer of its image, and both in words."""

    job: SegmentationJob
    layer: Image | None
    words: str


class NextUp(QWidget):
    """Keeps one segmentation that was chosen while another one runs.

    It begins when that one is finished. After one that was stopped or failed it waits for the
    user, who has to see what was wrong.

    Parameters
    ----------
    panel : RunPanel
        Runs segmentations.
    """

    asked = Signal()
    """What is chosen now is to come next; the dock then calls `put`."""
    begun = Signal(object)
    """It is its turn: `Chosen`."""

    def __init__(self, panel: RunPanel) -> None:
        super().__init__()
        self._panel = panel
        self._chosen: Chosen | None = None
        self._is_urgent = False
        self.add_button = QPushButton("Segment this next")
        self.add_button.setToolTip(
            "Puts what is chosen above in line: it begins when the segmentation that runs is done."
        )
        self.add_button.clicked.connect(self.asked)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.now_button = QPushButton("Begin it now")
        self.now_button.setToolTip("Stops the segmentation that runs; what it has done stays.")
        self.now_button.clicked.connect(self._hurry)
        self.drop_button = QPushButton("Remove")
        self.drop_button.setToolTip("Does not segment this next.")
        self.drop_button.clicked.connect(self.take)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.timeout.connect(self._begin)
        buttons = QHBoxLayout()
        buttons.addWidget(self.now_button)
        buttons.addWidget(self.drop_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.add_button)
        layout.addWidget(self.text)
        layout.addLayout(buttons)
        panel.running_changed.connect(self._show)
        panel.ended.connect(self._go_on)
        self._show()

    def put(self, chosen: Chosen) -> None:
        """Keep a segmentation, in place of the one that was kept."""
        self._chosen = chosen
        self._show()

    def take(self) -> Chosen | None:
        """Return what is kept, and keep it no longer."""
        chosen, self._chosen, self._is_urgent = self._chosen, None, False
        self._show()
        return chosen

    def _hurry(self) -> None:
        if self._panel.is_running:
            self._is_urgent = True
            self._panel.stop()
        else:
            self._begin()

    def _go_on(self, outcome: Outcome) -> None:
        if self._chosen is not None and (outcome is Outcome.FINISHED or self._is_urgent):
            self._soon.start()  # others hear first that this one has ended

    def _begin(self) -> None:
        chosen = None if self._panel.is_running else self.take()
        if chosen is not None:
            self.begun.emit(chosen)

    def _show(self) -> None:
        is_running, chosen = self._panel.is_running, self._chosen
        self.add_button.setVisible(is_running)
        for widget in (self.text, self.now_button, self.drop_button):
            widget.setVisible(chosen is not None)
        if chosen is not None:
            self.text.setText(f"Next: {chosen.words}")
