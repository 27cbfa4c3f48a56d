"""What the manifest promises napari."""

import subprocess
import sys
from importlib import import_module
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
import yaml
from napari._app_model import get_app_model

MANIFEST = yaml.safe_load((files("napari_affmae") / "napari.yaml").read_text("utf-8"))
CONTRIBUTIONS = MANIFEST["contributions"]
DOCKS = [widget["display_name"] for widget in CONTRIBUTIONS["widgets"]]


@pytest.mark.parametrize(
    "python_name", [command["python_name"] for command in CONTRIBUTIONS["commands"]]
)
def test_every_command_is_there(python_name: str) -> None:
    module, name = python_name.split(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("name", DOCKS)
def test_docks_open_from_the_manifest(viewer: Any, name: str) -> None:
    _, dock = viewer.window.add_plugin_dock_widget("napari-affmae", name)
    assert dock.viewer is viewer
    assert viewer.window.add_plugin_dock_widget("napari-affmae", name)[1] is dock


def test_docks_share_a_place(viewer: Any, qtbot: Any) -> None:
    first, *others = (
        viewer.window.add_plugin_dock_widget("napari-affmae", name)[0] for name in DOCKS
    )
    qtbot.waitUntil(lambda: set(first.parent().tabifiedDockWidgets(first)) == set(others))


def test_the_layer_menu_opens_the_dock_with_the_selected_layer(viewer: Any, qtbot: Any) -> None:
    viewer.add_image(np.zeros((70, 80)), name="first")
    second = viewer.add_image(np.zeros((70, 80)), name="second")
    viewer.add_labels(np.zeros((70, 80), np.uint8), name="painted")
    viewer.layers.selection = {second}
    app = get_app_model()
    app.commands.execute_command("napari-affmae.segment_layer").result()
    _, dock = viewer.window.add_plugin_dock_widget("napari-affmae", "3. Segment")
    assert dock.image.layer() is second
    items = [
        item.command.id
        for item in app.menus.get_menu("napari/layers/segment")
        if hasattr(item, "command")
    ]
    assert "napari-affmae.segment_layer" in items


def test_the_layer_menu_without_an_image(viewer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("napari_affmae.widgets.contributions.layer_menus.show_warning", said.append)
    get_app_model().commands.execute_command("napari-affmae.segment_layer").result()
    assert "Select an image layer first" in said[0]


SCRIPT = """
import sys
import napari
viewer = napari.Viewer(show=False)
viewer.window.add_plugin_dock_widget("napari-affmae", {name!r})
heavy = {{"torch"}} & set(sys.modules)
assert not heavy, heavy
viewer.close()
"""


@pytest.mark.parametrize("name", DOCKS)
def test_docks_open_without_torch(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(name=name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
