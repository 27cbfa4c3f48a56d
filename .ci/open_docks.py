"""Open a sample and every dock of the installed plugin in a napari window, as its menus do.

Needs nothing but the plugin with one of its extras for a Qt binding. What Qt and napari would
only show is an error here, and so is a dock of which nothing is on the screen.
"""

import os
import subprocess
import sys
from types import TracebackType

PLUGIN, SAMPLE = "napari-affmae", "synthetic_em"


def main() -> int:
    """Open them; returns the exit code."""
    import napari
    from napari.utils.notifications import NotificationSeverity, notification_manager
    from npe2 import PluginManager
    from qtpy import API_NAME
    from qtpy.QtWidgets import QApplication

    errors = []

    def note(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        errors.append(f"{kind.__name__}: {error}")

    viewer = napari.Viewer()
    sys.excepthook = note  # napari's shows a message
    viewer.open_sample(PLUGIN, SAMPLE)
    docks = PluginManager.instance().get_manifest(PLUGIN).contributions.widgets or []
    for name in (widget.display_name for widget in docks):
        dock, _ = viewer.window.add_plugin_dock_widget(PLUGIN, name)
        dock.raise_()
        for _ in range(3):
            QApplication.processEvents()
        size = dock.size()
        print(f"{name}: {size.width()} x {size.height()} pixels, {API_NAME}")
        if not dock.isVisible() or dock.visibleRegion().isEmpty():
            errors.append(f"{name} is not on the screen")
    viewer.close()
    errors += [
        notice.message
        for notice in notification_manager.records
        if notice.severity >= NotificationSeverity.WARNING
    ]
    if not docks:
        errors.append("the manifest names no dock")
    for error in errors:
        print(error)
    return 1 if errors else 0


def on_a_virtual_screen() -> int:
    """Run this file in another process, on a screen that nobody sees."""
    return subprocess.call(["xvfb-run", "--auto-servernum", sys.executable, *sys.argv])


if __name__ == "__main__":
    bare = sys.platform.startswith("linux") and "DISPLAY" not in os.environ
    sys.exit(on_a_virtual_screen() if bare else main())
