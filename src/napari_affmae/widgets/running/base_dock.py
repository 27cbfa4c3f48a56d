"""The base classes of the docks: sections, scrolling, and a question before a run is stopped."""

from typing import Any

import napari
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QDockWidget,
    QFrame,
    QLabel,
    QMainWindow,
    QMessageBox,
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
_PLUGIN = " (napari-affmae)"
_HEIGHT = 120


class ScrollingSections(QScrollArea):
    """Sections below each other, in a scroll area that fits on small screens too.

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
        """Note the dock of napari that holds this; when it closes, delete this."""
        if event.type() == QEvent.Type.ParentChange:
            holder = self.parent()
            if isinstance(holder, QDockWidget):
                self._holder = holder
                self._enter()
                QTimer.singleShot(0, self._join)  # the holder has no place in the window yet
            elif holder is None and self._holder is not None:
                self._holder = None
                self.deleteLater()
        return bool(super().event(event))

    def _enter(self) -> None:
        """Handle that one of napari's docks holds this now."""

    def _join(self) -> None:
        """Make a tab beside the plugin's other docks: two below each other have no room."""
        holder = self._holder
        window = None if holder is None else holder.parent()
        if not isinstance(window, QMainWindow):
            return
        # The name of the plugin, which napari adds, would be cut off in a narrow tab anyway.
        holder.setWindowTitle(holder.windowTitle().removesuffix(_PLUGIN))
        if window.tabifiedDockWidgets(holder):
            return
        area = window.dockWidgetArea(holder)
        for other in window.findChildren(QDockWidget):
            if (
                other is not holder
                and isinstance(other.widget(), ScrollingSections)
                and not (other.isHidden() or other.isFloating())
                and window.dockWidgetArea(other) == area
            ):
                window.tabifyDockWidget(other, holder)
                QTimer.singleShot(0, holder.raise_)  # there is no tab to raise yet
                return

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802 - Qt's name
        """Ask for another width when a section does: a scroll area does not pass it on."""
        if watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the width of the widest section, so that none is cut off."""
        bar = self.verticalScrollBar().sizeHint().width()
        return QSize(max(_WIDTH, self.widget().minimumSizeHint().width() + bar), _HEIGHT)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return no more width than the smallest."""
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


class Dock(ScrollingSections):
    """Sections with a run; the user is asked before the dock or the window closes on it.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer that it belongs to.
    panel : RunPanel
        Starts and stops the run.
    name : str
        The key under which the entered settings are remembered.
    """

    def __init__(self, viewer: "napari.viewer.Viewer", panel: RunPanel, name: str) -> None:
        super().__init__(viewer)
        self.panel, self._name = panel, name
        panel.running_changed.connect(self._remember)
        # However the dock is removed, the run stops, and saves its checkpoint.
        self.destroyed.connect(panel.stop)

    def entered(self) -> dict[str, Any]:
        """Return the settings that last; they are remembered when a run starts."""
        raise NotImplementedError

    def remembered(self) -> dict[str, Any]:
        """Return the settings that are remembered from the last run."""
        return load_preferences().forms.get(self._name, {})

    def _remember(self, running: bool) -> None:
        if not running:
            return
        try:
            remember_form(self._name, self.entered())
        except AffmaeError as error:  # the run can start nevertheless
            self.panel.messages.add(
                f"The settings are not remembered for the next time: {error}", "warning"
            )

    def showEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Watch for the closing of the window that holds the dock."""
        super().showEvent(event)
        if self._holder is not None:
            self._holder.parent().installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802 - Qt's name
        """Stop the run when napari's window closes; ask first if the user closes it.

        napari may ask too, after this. A run that was stopped by then would be stopped although
        the user cancels. So this question takes the place of napari's: the window is closed
        without it, and runs are stopped only then.
        """
        if event.type() != QEvent.Type.Close or not self.panel.is_running:
            return bool(super().eventFilter(watched, event))
        if not event.spontaneous():
            self.panel.stop()
            return False
        event.ignore()
        if self._may_close(watched):
            QTimer.singleShot(0, watched.close)
        return True

    def _may_close(self, window: QMainWindow) -> bool:
        """Ask once for all docks whether their runs may be stopped."""
        running = [dock.panel for dock in window.findChildren(Dock) if dock.panel.is_running]
        answer = QMessageBox.question(
            window,
            "Close napari",
            "\n".join(
                [*(panel.what_stops() for panel in running), "", "Stop and close the window?"]
            ),
        )
        return bool(answer == QMessageBox.StandardButton.Yes)

    def _enter(self) -> None:
        """Ask before the dock is closed during a run."""
        # A method of the panel: one of this dock would make napari's dock keep it alive.
        ask_before_closing(self._holder, self.panel.confirm_stop)
