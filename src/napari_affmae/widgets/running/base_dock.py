"""What the docks have in common: sections, scrolling, and asking before a run is closed."""

from typing import Any

import napari
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QDockWidget,
    QFrame,
    QLabel,
    QMainWindow,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_affmae.errors import AffmaeError
from napari_affmae.widgets.layers.napari_private import ask_before_closing
from napari_affmae.widgets.parts.preferences import load_preferences, remember_form
from napari_affmae.widgets.running.run_panel import RunPanel

_WIDTH = 340
_HEIGHT = 120


class Column(QScrollArea):
    """Sections below each other.

    A scroll area, so that it fits on small screens too.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer that it belongs to.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self.viewer = viewer
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        inner = QWidget()
        self._layout = QVBoxLayout(inner)
        self._layout.setContentsMargins(6, 6, 6, 6)
        self._layout.setSpacing(6)
        self.setWidget(inner)
        self._holder: Any = None

    def event(self, event: Any) -> bool:
        """Note which of napari's docks holds this; once it is closed, nothing needs this."""
        if event.type() == QEvent.Type.ParentChange:
            holder = self.parent()
            if isinstance(holder, QDockWidget):
                self._holder = holder
                self._enter()
                QTimer.singleShot(0, self._join)  # it has no place in the window yet
            elif holder is None and self._holder is not None:
                self._holder = None
                self.deleteLater()
        return bool(super().event(event))

    def _enter(self) -> None:
        """Do what is due once inside a dock of napari's."""

    def _join(self) -> None:
        """Share the place of the plugin's other docks, for two of them find no room there."""
        holder = self._holder
        window = None if holder is None else holder.parent()
        if not isinstance(window, QMainWindow) or window.tabifiedDockWidgets(holder):
            return
        area = window.dockWidgetArea(holder)
        for other in window.findChildren(QDockWidget):
            if (
                other is not holder
                and isinstance(other.widget(), Column)
                and not (other.isHidden() or other.isFloating())
                and window.dockWidgetArea(other) == area
            ):
                window.tabifyDockWidget(other, holder)
                QTimer.singleShot(0, holder.raise_)  # there is no tab to raise yet
                return

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802 - Qt's name
        """Ask for another width when a section does, which a scroll area keeps to itself."""
        if watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for the width of the widest section, so that none is cut off."""
        bar = self.verticalScrollBar().sizeHint().width()
        return QSize(max(_WIDTH, self.widget().minimumSizeHint().width() + bar), _HEIGHT)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Ask for no more width than that."""
        return QSize(self.minimumSizeHint().width(), super().sizeHint().height())

    def add_section(self, title: str, *widgets: QWidget) -> QLabel:
        """Add widgets under a heading, and return the heading."""
        heading = QLabel(f"<b>{title}</b>")
        self.add(heading, *widgets)
        return heading

    def add(self, *widgets: QWidget) -> None:
        """Add widgets without a heading."""
        for widget in widgets:
            self._layout.addWidget(widget)

    def add_stretch(self) -> None:
        """Push what was added to the top."""
        self._layout.addStretch(1)


class Dock(Column):
    """A column with a run, which is asked about before the dock or the window closes.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer that it belongs to.
    panel : RunPanel
        Its run.
    name : str
        Under which what is entered is remembered.
    """

    def __init__(self, viewer: "napari.viewer.Viewer", panel: RunPanel, name: str) -> None:
        super().__init__(viewer)
        self.panel, self._name = panel, name
        panel.running_changed.connect(self._remember)
        # Whatever takes the dock away, the run ends with its checkpoint.
        self.destroyed.connect(panel.stop)

    def entered(self) -> dict[str, Any]:
        """Return what is entered; it is remembered whenever a run starts."""
        raise NotImplementedError

    def remembered(self) -> dict[str, Any]:
        """Return what was entered when a run started last."""
        return load_preferences().forms.get(self._name, {})

    def _remember(self, running: bool) -> None:
        if not running:
            return
        try:
            remember_form(self._name, self.entered())
        except AffmaeError as error:  # no reason to do without the run
            self.panel.messages.add(
                f"The settings are not remembered for the next time: {error}", "warning"
            )

    def showEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Watch the window that the dock has come into, for its closing."""
        super().showEvent(event)
        if self._holder is not None:
            self._holder.parent().installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802 - Qt's name
        """Stop the run when napari's window closes; ask first if the user closes it."""
        if event.type() != QEvent.Type.Close or not self.panel.is_running:
            return bool(super().eventFilter(watched, event))
        if not event.spontaneous():
            self.panel.stop()
        elif not self.panel.confirm_stop():
            event.ignore()
            return True
        return False

    def _enter(self) -> None:
        """Ask before the dock is closed during a run."""
        # Not the dock's own method: napari's dock would keep this one from being destroyed.
        ask_before_closing(self._holder, self.panel.confirm_stop)
