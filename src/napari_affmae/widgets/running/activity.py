"""A run's progress in napari's activity dock."""

from napari.utils import progress
from qtpy.QtCore import QObject, QTimer

_PARTS = 1000
_MILLISECONDS = 1000


class Activity:
    """Shows a run among napari's own progress bars, from a second after its start to its end.

    It is for runs on a GPU only. While there is a bar, napari turns a wheel in its status bar, for
    which Qt composes the whole window again 30 times a second; that takes a third of the
    speed of a run on the CPU where the CPU also draws.

    Parameters
    ----------
    title : str
        The name of the run: "Pretraining".
    parent : QObject
        The bar is removed when this is destroyed.
    """

    def __init__(self, title: str, parent: QObject) -> None:
        self._title = title
        self._bar: progress | None = None
        self._running = False
        self._latest = (0.0, "")
        # Each change of a bar lets Qt process events, also those of the run. So a timer makes
        # the changes, never the handling of an event of the run.
        self._timer = QTimer(parent)
        self._timer.setInterval(_MILLISECONDS)
        self._timer.timeout.connect(self._update)
        parent.destroyed.connect(self._close)

    def begin(self) -> None:
        """Show a run that has started."""
        self._running, self._latest = True, (0.0, "")
        self._timer.start()

    def show(self, part: float, text: str) -> None:
        """Show how far it is, within a second.

        Parameters
        ----------
        part : float
            The part that is done, from 0 to 1.
        text : str
            Text beside the bar.
        """
        self._latest = part, text

    def end(self) -> None:
        """Remove the bar: the run is over."""
        self._timer.stop()
        self._close()

    def _close(self) -> None:
        self._running = False
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _update(self) -> None:
        if self._bar is None:
            bar = progress(total=_PARTS, desc=self._title)
            if not self._running:  # it ended meanwhile
                bar.close()
                return
            self._bar = bar
        bar, (part, text) = self._bar, self._latest
        bar.update(round(_PARTS * part) - bar.n)
        if self._running:
            bar.set_description(f"{self._title}: {text}")
