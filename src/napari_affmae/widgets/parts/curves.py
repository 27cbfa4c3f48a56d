"""Learning curves that grow while a run goes on."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from napari.settings import get_settings
from napari.utils.theme import get_theme
from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_affmae.widgets.parts.lifetime import connect_while_alive

# Whenever the curves are drawn, Qt composes the whole window with its canvas, which is slow; so
# they are drawn seldom.
_REDRAW_MILLISECONDS = 1500
_MOST_POINTS = 1500
_FEW_POINTS = 30
_HEIGHT = 160
_DECADE, _MOST_TICKS, _MOST_LOG_TICKS = 10, 4, 8
_COLORS = ("#4c9be8", "#f5a742", "#6cc070", "#d9668c", "#9a7fd1", "#c8b040", "#5fc4c4", "#a0a0a0")


def load_plots() -> None:
    """Load the library of plots. It takes so long that a thread has to call this."""
    import matplotlib.ticker  # noqa: F401 - for the next imports
    import pyqtgraph  # noqa: F401 - likewise


class Curves(QWidget):
    """Named curves over steps.

    The curves are drawn once in a second or two, however fast points arrive, so that
    the window stays quick.

    Parameters
    ----------
    title : str
        What the vertical axis shows.
    logarithmic : bool
        Whether the vertical axis is logarithmic.
    height : int
        Height of legend and plot, pixels of the screen.
    names : sequence of str
        Curves in the order of their colours, the lowest first, whichever has the first point;
        others follow as they come.
    """

    def __init__(
        self,
        title: str,
        *,
        logarithmic: bool = False,
        height: int = _HEIGHT,
        names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._title, self._logarithmic, self._names = title, logarithmic, tuple(names)
        self._points = self._no_points()
        self._lines: dict[str, Any] = {}
        self._plot: Any = None
        self.setFixedHeight(height)
        # The legend stands above the plot, since inside it would lie over a line at some time.
        self.legend = QLabel()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setWordWrap(True)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(0)
        self._layout.addWidget(self.legend)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REDRAW_MILLISECONDS)
        self._timer.timeout.connect(self.redraw)
        connect_while_alive(self, get_settings().appearance.events.theme, self._take_theme)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for the fixed height: the hint of the plot would stretch the dock."""
        return QSize(super().sizeHint().width(), self.maximumHeight())

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each named curve, and drop its points from this step on."""
        for name, value in values.items():
            steps, numbers = self._points.setdefault(name, ([], []))
            while steps and steps[-1] >= step:
                steps.pop()
                numbers.pop()
            steps.append(step)
            numbers.append(value)
        if not self._timer.isActive():
            self._timer.start()

    def points(self, name: str) -> tuple[list[float], list[float]]:
        """Return the steps and values of a curve."""
        return self._points.get(name, ([], []))

    def clear(self) -> None:
        """Remove all points."""
        self._points = self._no_points()
        if self._plot is not None:
            self.redraw()

    def _no_points(self) -> dict[str, tuple[list[float], list[float]]]:
        return {name: ([], []) for name in self._names}

    def _make_plot(self) -> Any:
        """Make the empty plot; `load_plots` has to be called before."""
        import pyqtgraph

        plot = pyqtgraph.PlotWidget()
        plot.setMenuEnabled(False)
        plot.setLogMode(y=self._logarithmic)
        for side in ("left", "bottom"):
            plot.getAxis(side).enableAutoSIPrefix(False)  # it would say "loss (x0.001)"
        self._layout.addWidget(plot, 1)
        return plot

    def _take_theme(self) -> None:
        """Draw in the colours of napari's theme."""
        if self._plot is None:
            return
        theme = get_theme(get_settings().appearance.theme)
        text = theme.text.as_hex()
        self._plot.setBackground(theme.background.as_hex())
        for side in ("left", "bottom"):
            axis = self._plot.getAxis(side)
            axis.setPen(text)
            axis.setTextPen(text)
            axis.setTickPen(text)
        self._plot.getAxis("left").setLabel(self._title, color=text)
        self._plot.getAxis("bottom").setLabel("steps", color=text)

    def redraw(self) -> None:
        """Draw all points."""
        if self._plot is None:
            self._plot = self._make_plot()
            self._take_theme()
        for name in self._lines.keys() - self._points.keys():
            self._plot.removeItem(self._lines.pop(name))
        for name, (steps, values) in self._points.items():
            if name not in self._lines:
                color = _COLORS[len(self._lines) % len(_COLORS)]
                self._lines[name] = self._plot.plot(
                    pen={"color": color, "width": 2}, symbolBrush=color, connect="finite"
                )
            few = len(steps) < _FEW_POINTS
            symbols = {"symbol": "o" if few else None, "symbolSize": 5}
            self._lines[name].setData(*_thinned(steps, values), **symbols)
        colors = {name: line.opts["pen"]["color"] for name, line in self._lines.items()}
        self.legend.setText(
            " &nbsp; ".join(
                f'<span style="color:{color}">&#9632;</span>&nbsp;{escape(name)}'
                for name, color in colors.items()
            )
        )
        if self._logarithmic:
            self._plot.getAxis("left").setTicks([_ticks(self._points)])


def _ticks(points: Mapping[str, tuple[list[float], list[float]]]) -> list[tuple[float, str]]:
    """Return places and texts of a logarithmic axis: some even where it spans no power of ten."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    values = np.array([value for _, numbers in points.values() for value in numbers], float)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return []
    low, high = float(values.min()), float(values.max())
    is_narrow = high < _DECADE * low
    locator = MaxNLocator(_MOST_TICKS) if is_narrow else LogLocator(subs=(1, 2, 5))
    places = [place for place in locator.tick_values(low, high) if place > 0]
    every = 1 if is_narrow else -(-len(places) // _MOST_LOG_TICKS)
    return [(float(np.log10(place)), f"{place:g}") for place in places[::every]]


def _thinned(steps: list[float], values: list[float]) -> tuple[Any, Any]:
    """Average long curves over blocks of steps: fewer points, less noise."""
    x, y = np.asarray(steps, float), np.asarray(values, float)
    block = -(-len(x) // _MOST_POINTS)
    if block <= 1:
        return x, y
    whole = len(x) // block * block
    return x[:whole].reshape(-1, block).mean(1), y[:whole].reshape(-1, block).mean(1)
